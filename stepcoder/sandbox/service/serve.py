"""The `sandbox serve` step: the service's process, from its socket to its end."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from stepcoder.errors import DataError, StepCoderError
from stepcoder.platform.logs import get_logger
from stepcoder.sandbox.address import cores
from stepcoder.sandbox.extras import needing
from stepcoder.sandbox.pool import Pool
from stepcoder.sandbox.service.config import ServeConfig
from stepcoder.sandbox.token import TOKEN_VARIABLE, token_from_environment

with needing("service"):
    import uvicorn

    from stepcoder.sandbox.service.app import build_app
    from stepcoder.sandbox.service.intake import Intake

SOCKET_PATH_BYTES = 107
BACKLOG = 1024
HANGING_SECONDS = 10

log = get_logger("sandbox-serve")

__all__ = ["ServeConfig", "serve"]


def serve(config: ServeConfig) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what was taken; a second signal ends it at once.

    Raises:
        DataError: the settings or the token are at fault.
        StepCoderError: the address is in use, or the pool does not start.
    """
    slots = config.slots or cores()
    with listening(config) as listener, Pool(slots, config.unsafe, config.twice) as sandbox:
        intake = Intake(sandbox, config, slots)
        app = build_app(intake)
        address = _address_of(listener)
        if not token_from_environment() and not config.uds and not _is_loopback(listener):
            log.warning("no_token", address=address, do=f"set {TOKEN_VARIABLE}: anybody who reaches it can use it")
        log.info("listening", address=address, slots=slots)
        intake.self_test.start()
        settings = uvicorn.Config(
            app,
            # One worker, since the pool is the parallel part; the implementations that need no further package.
            **{"loop": "asyncio", "http": "h11", "ws": "none", "lifespan": "off"},  # type: ignore[arg-type]
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=75,
            # All that was taken is answered by then: this is for those who do not send or read to the end.
            timeout_graceful_shutdown=HANGING_SECONDS,
        )
        Server(settings, intake).run(sockets=[listener])
    log.info("stopped", finished=intake.idle)


class Server(uvicorn.Server):
    """Uvicorn, which on a signal first refuses new work, while it still listens, and stops when all is answered."""

    def __init__(self, config: uvicorn.Config, intake: Intake) -> None:
        super().__init__(config)
        self._intake = intake

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second gives up what is in work, the third waits for no connection either."""
        if self._intake.draining:
            self.force_exit = self.should_exit
            self.should_exit = True
            self._intake.give_up()
        self._intake.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Comes ten times a second."""
        if self._intake.draining and self._intake.idle:
            self.should_exit = True
        return await super().on_tick(counter)


@contextlib.contextmanager
def listening(config: ServeConfig) -> Iterator[socket.socket]:
    """A listening socket; a Unix socket's file is removed at the end.

    Raises:
        DataError: the path cannot be that of a socket.
        StepCoderError: the address is in use, or is not of this machine.
    """
    if config.uds is None:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        # With the protocol named: asyncio sends small answers at once (TCP_NODELAY) only where it is.
        with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((config.host, config.port))
                listener.listen(BACKLOG)
            except OSError as error:
                where = f"{config.host}:{config.port}"
                raise StepCoderError(f"cannot listen on {where}: {error.strerror or error}") from error
            yield listener
        return
    path = Path(config.uds)
    _make_way(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(str(path))
            path.chmod(0o666)  # who may connect is a matter of the folder: a container's user is another
            listener.listen(BACKLOG)
        except OSError as error:
            raise StepCoderError(f"cannot listen on {path}: {error.strerror or error}") from error
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _make_way(path: Path) -> None:
    """Removes a socket that a dead service left."""
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise DataError(
            f"{path}: is longer than the {SOCKET_PATH_BYTES} bytes of a socket's path; choose a shorter one"
        )
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StepCoderError(f"cannot listen on {path}: {error.strerror or error}") from error
    if not stat.S_ISSOCK(mode):
        raise DataError(f"{path}: exists and is no socket; give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError as error:
            raise StepCoderError(f"cannot listen on {path}: {error.strerror or error}") from error
        else:
            raise StepCoderError(f"cannot listen on {path}: another service does")


def _address_of(listener: socket.socket) -> str:
    name = listener.getsockname()
    if isinstance(name, str):
        return f"http+unix://{quote(str(Path(name).absolute()))}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"


def _is_loopback(listener: socket.socket) -> bool:
    host: str = listener.getsockname()[0]
    return host.startswith("127.") or host == "::1"
