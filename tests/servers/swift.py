"""OpenStack Swift with its S3 interface: an account, a container, an object and a proxy server on loopback.

It checks signatures and the least size of a part as a real store does, and survives a restart on the same folder.
"""

from __future__ import annotations

import os
import pwd
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.servers import MISSING, free_ports, listening, program, running

REGION = "us-east-1"
_ACCESS_KEY = "stepcoder:tester"
_STORES = ("account", "container", "object")

_RINGS = """
import sys
from swift.common.ring import RingBuilder
folder, *ports = sys.argv[1:]
for name, port in zip(("account", "container", "object"), ports):
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    place = {"ip": "127.0.0.1", "port": int(port), "replication_ip": "127.0.0.1", "replication_port": int(port)}
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "device": "disk", "meta": "", **place})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{name}.ring.gz")
"""

_DEFAULTS = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
workers = 0
"""

_STORE = """[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""

_PROXY = """[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck s3api tempauth slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
{filters}[filter:tempauth]
use = egg:swift#tempauth
user_{user} = {secret} .admin
[filter:s3api]
use = egg:swift#s3api
location = {region}
"""
_PLAIN_FILTERS = ("catch_errors", "gatekeeper", "healthcheck", "slo", "dlo")


@dataclass(frozen=True)
class Swift:
    """A running object store."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str

    @property
    def environment(self) -> dict[str, str]:
        """The usual AWS variables by which programs reach the store."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }

    def bucket(self) -> str:
        """Makes a bucket and returns its name."""
        name = f"bucket-{secrets.token_hex(6)}"
        _client(self).create_bucket(Bucket=name)
        return name


@lru_cache
def _client(store: Swift) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key,
        region_name=store.region,
        config=Config(s3={"addressing_style": "path"}),
    )


def missing() -> str:
    """Why the store cannot be started here, or nothing."""
    return "" if program("swift-proxy-server") else MISSING


@contextmanager
def swift(folder: Path) -> Iterator[Swift]:
    """Starts the store with its data below `folder`, on a file system with extended attributes, and stops it.

    A folder of an earlier start has its data, keys and ports.

    Raises:
        RuntimeError: it is not installed, or does not start.
    """
    if reason := missing():
        raise RuntimeError(reason)
    secret, *ports = _configured(folder)
    endpoint = f"http://127.0.0.1:{ports[-1]}"
    commands = {name: [f"{program(f'swift-{name}-server')}", f"{folder}/{name}.conf"] for name in (*_STORES, "proxy")}
    commands = {name: [*command, "--verbose"] for name, command in commands.items()}

    def ready() -> bool:
        return all(listening(int(port)) for port in ports)

    with running(commands, ready, folder):
        yield Swift(endpoint, _ACCESS_KEY, secret, REGION)


def _configured(folder: Path) -> list[str]:
    kept = folder / "started"
    if kept.exists():
        return kept.read_text().split()
    (folder / "devices" / "disk").mkdir(parents=True)
    secret = secrets.token_hex(16)
    names = (*_STORES, "proxy")
    # Different ones: servers that share a port would both listen, and each get some of the other's requests.
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    (folder / "swift.conf").write_text(f"[swift-hash]\nswift_hash_path_suffix = {secrets.token_hex(8)}\n")
    filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in _PLAIN_FILTERS)
    user = _ACCESS_KEY.replace(":", "_")
    texts = {name: _STORE.format(name=name) for name in _STORES}
    texts["proxy"] = _PROXY.format(user=user, secret=secret, region=REGION, filters=filters)
    for name, text in texts.items():
        head = _DEFAULTS.format(port=ports[name], user=pwd.getpwuid(os.getuid()).pw_name, folder=folder.absolute())
        (folder / f"{name}.conf").write_text(head + text)
    python = program("python")
    made = [str(python), "-c", _RINGS, str(folder), *(str(ports[name]) for name in _STORES)]
    subprocess.run(made, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    kept.write_text(" ".join([secret, *map(str, ports.values())]))
    return kept.read_text().split()
