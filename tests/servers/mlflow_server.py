"""An MLflow server with basic auth and a PostgreSQL of its own, on loopback; it can be killed and started again.

PostgreSQL comes from Debian's packages (`apt-get install postgresql`) and listens on a Unix socket only.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import MISSING, free_ports, program

_START_SECONDS = 120
_AUTH = """[mlflow]
default_permission = READ
database_uri = {database}
admin_username = {user}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 300
"""


@dataclass
class MlflowServer:
    """A server that is running, or has been killed."""

    folder: Path
    port: int
    user: str
    password: str
    database: Path
    """Folder with PostgreSQL's data and socket."""
    destination: str
    """Where the server keeps artifacts: a folder or an `s3://` address."""
    surroundings: Mapping[str, str]
    """Environment of the server beyond its own settings, for example the object store's credentials."""
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        """Address without credentials."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which MLflow's clients reach the server as its administrator."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": self.user,
            "MLFLOW_TRACKING_PASSWORD": self.password,
        }

    def start(self) -> None:
        """Starts the server on the data that is there and waits until it answers.

        Raises:
            RuntimeError: it does not answer.
        """
        address = f"postgresql+psycopg2://mlflow@/{{name}}?host={self.database}"
        settings = self.folder / "basic_auth.ini"
        settings.write_text(_AUTH.format(database=address.format(name="auth"), user=self.user))
        log = self.folder / "mlflow.log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [
                    *(f"{program('mlflow')}", "server", "--app-name", "basic-auth"),
                    *("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
                    *("--backend-store-uri", address.format(name="mlflow")),
                    *("--serve-artifacts", "--artifacts-destination", self.destination),
                ],
                cwd=self.folder,
                env={
                    "PATH": f"{_program('mlflow').parent}:{os.environ['PATH']}",
                    "HOME": str(self.folder),
                    "MLFLOW_AUTH_CONFIG_PATH": str(settings),
                    "MLFLOW_AUTH_ADMIN_PASSWORD": self.password,
                    "MLFLOW_FLASK_SERVER_SECRET_KEY": self.password,
                    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                    **self.surroundings,
                },
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                # Its workers are processes of their own: one group, so that they can be killed together.
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not _healthy(f"{self.uri}/health"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"MLflow does not answer:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)

    def sql(self, *commands: str) -> None:
        """Runs commands one after another in one session with the server's database."""
        binaries = _postgres()
        assert binaries is not None
        arguments = [part for command in commands for part in ("--command", command)]
        address = ["--host", str(self.database), "--username", "mlflow", "--set", "ON_ERROR_STOP=1", "mlflow"]
        subprocess.run([str(binaries / "psql"), *arguments, *address], check=True, capture_output=True, timeout=60)

    def kill(self) -> None:
        """Ends the server and its workers at once, as a lost node would."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def missing() -> str:
    """Why the server cannot be started here, or nothing."""
    if program("mlflow") is None:
        return MISSING
    return "" if _postgres() else "no PostgreSQL: apt-get install postgresql"


@contextmanager
def mlflow_server(
    folder: Path, destination: str | None = None, surroundings: Mapping[str, str] | None = None
) -> Iterator[MlflowServer]:
    """Starts PostgreSQL and MLflow with their data below `folder`, and stops them.

    Args:
        folder: an empty folder.
        destination: where the server keeps artifacts; None for a folder below `folder`.
        surroundings: further environment of the server.

    Raises:
        RuntimeError: one of them is not installed, or does not start.
    """
    if reason := missing():
        raise RuntimeError(reason)
    with _database(folder) as database:
        server = MlflowServer(
            folder=folder,
            port=free_ports(1)[0],
            user="admin",
            password=secrets.token_hex(12),
            database=database,
            destination=destination or str(folder / "artifacts"),
            surroundings={"MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "path", **(surroundings or {})},
        )
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def _database(log: Path) -> Iterator[Path]:
    """A PostgreSQL cluster with the databases `mlflow` and `auth`; yields the folder of its socket."""
    binaries = _postgres()
    # PostgreSQL refuses to run as root, and its own user may not enter a test's folder: it gets one of its own.
    folder = Path(tempfile.mkdtemp(prefix="stepcoder-postgres-"))
    # By `runuser`: a fork of a process that has trained fails for want of memory.
    as_owner = []
    if os.getuid() == 0:
        as_owner = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    folder.chmod(0o711)
    data = folder / "data"

    def run(name: str, *arguments: str) -> None:
        done = subprocess.run(
            [*as_owner, str(binaries / name), *arguments], cwd=folder, text=True, capture_output=True, timeout=60
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr or done.stdout}")

    try:
        run(
            "initdb",
            "--pgdata",
            str(data),
            "--auth",
            "trust",
            "--username",
            "mlflow",
            "--no-sync",
            "--locale",
            "C",
            "--encoding",
            "UTF8",
        )
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c max_connections=40"
        run("pg_ctl", "start", "-w", "-D", str(data), "-l", str(folder / "log"), "-o", options)
        try:
            for name in ("mlflow", "auth"):
                run("createdb", "--host", str(folder), "--username", "mlflow", name)
            yield folder
        finally:
            run("pg_ctl", "stop", "-D", str(data), "-m", "immediate")
    finally:
        (log / "postgres.log").write_bytes((folder / "log").read_bytes() if (folder / "log").exists() else b"")
        shutil.rmtree(folder)


def _postgres() -> Path | None:
    """Folder of PostgreSQL's programs: Debian keeps them out of the path, one folder a version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def _program(name: str) -> Path:
    path = program(name)
    assert path is not None
    return path


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
