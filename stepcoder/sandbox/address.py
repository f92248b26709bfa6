"""Where the sandbox runs: an address, and the sandbox behind it."""

from __future__ import annotations

import os
import sys
from urllib.parse import urlsplit

from stepcoder.errors import DataError, StepCoderError
from stepcoder.sandbox.extras import needing
from stepcoder.sandbox.job import Sandbox

CHOICES = "`local`, `unsafe`, `docker`, `http://HOST:PORT`, `https://HOST` or `http+unix:///PATH/TO/SOCKET`"

SANDBOX_VARIABLE = "STEPCODER_SANDBOX"
UNSAFE = "unsafe"
LOCAL = ("local", UNSAFE)


def default_address() -> str:
    """The sandbox of every step that is told none: the environment's, else this machine."""
    return os.environ.get(SANDBOX_VARIABLE, "").strip() or "local"


def open_sandbox(address: str = "local", slots: int | None = None, *, twice: float = 0) -> Sandbox:
    """Opens a sandbox; close it, or use it in a `with`.

    Args:
        address: `local`, a pool of processes on this machine; `unsafe`, the same also where the kernel cannot keep
            programs from other processes and the network; `docker`, the same in a locked container on this
            machine; `http://HOST:PORT`, `https://HOST` or `http+unix:///PATH/TO/SOCKET`, a service, as
            `stepcoder sandbox serve` starts it.
        slots: programs judged at the same time; default: the cores this process may use. A service has its own.
        twice: share of the programs that a local pool runs a second time, to count verdicts that differ.

    Raises:
        DataError: the address or the number of slots is not valid.
        StepCoderError: the sandbox does not start, or the service cannot be reached.
    """
    if slots is not None and slots < 1:
        raise DataError(f"a sandbox needs at least one slot, not {slots}")
    check_address(address)
    if address in LOCAL:
        return _local(slots or cores(), unsafe=address == UNSAFE, twice=twice)
    if twice:
        raise DataError(
            f"sandbox address {address!r}: only a local pool runs programs twice; a service has its own setting"
        )
    if address == "docker":
        with needing("service"):
            from stepcoder.sandbox.container import ContainerSandbox
        return ContainerSandbox(slots or cores())
    with needing("service"):
        from stepcoder.sandbox.remote import RemoteSandbox
    return RemoteSandbox(address)


def check_address(address: str) -> None:
    """Checks the form of an address; nothing is opened.

    Raises:
        DataError: it is none that `open_sandbox` knows.
    """
    if address in (*LOCAL, "docker"):
        return
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise DataError(f"sandbox address {address!r}: {error}") from error
    if parts.scheme not in ("http", "https", "http+unix"):
        raise DataError(f"sandbox address {address!r} is not known: use {CHOICES}")
    if parts.username is not None or parts.password is not None:
        # The address itself stays out of the message: it holds a secret.
        raise DataError("a sandbox address holds no user or password: put the token into STEPCODER_SANDBOX_TOKEN")
    if parts.query or parts.fragment:
        raise DataError(f"sandbox address {address!r}: must end before `?` and `#`")
    if parts.scheme == "http+unix":
        if parts.netloc or len(parts.path) < 2:
            raise DataError(f"sandbox address {address!r}: a socket is named by http+unix:///PATH, with three slashes")
    elif not host:
        raise DataError(f"sandbox address {address!r}: has no host; use {parts.scheme}://HOST:PORT")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _local(slots: int, unsafe: bool, twice: float) -> Sandbox:
    if sys.platform != "linux":
        raise StepCoderError("the local sandbox runs on Linux only: use `docker` or the address of a service")
    from stepcoder.sandbox.pool import Pool

    return Pool(slots, unsafe, twice)
