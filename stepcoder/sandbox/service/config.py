"""Settings of the sandbox service."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from stepcoder.platform.config import StepConfig
from stepcoder.sandbox.service.models import MAX_JOBS

MIB = 1 << 20


class ServeConfig(StepConfig):
    """Serve the sandbox over HTTP, until SIGTERM. A token in STEPCODER_SANDBOX_TOKEN is asked of every client."""

    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` for all of the machine's."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The port to listen on; 0 for any that is free."""
    uds: str | None = None
    """The path of a Unix socket to listen on, instead of host and port. Who can reach its folder can use it."""
    slots: PositiveInt | None = None
    """Programs judged at the same time; default: one a core."""
    twice: float = Field(default=0.0, ge=0, le=1)
    """Share of the programs that run a second time, to count verdicts that differ."""
    unsafe: bool = False
    """Serve also where the kernel cannot keep programs from other processes and the network."""
    queue: int = Field(default=4096, ge=MAX_JOBS)
    """Jobs that may be in the service at the same time; what comes beyond is told to come again (429)."""
    body_mib: PositiveInt = 32
    """MiB of a request's body."""
    program_kib: PositiveInt = 1024
    """KiB of a program, and of a preamble."""
    tests_mib: PositiveInt = 256
    """MiB of test lists that are kept, so that clients need not send them again; the newest in any case."""
    max_cpu_seconds: PositiveFloat = 60.0
    """CPU seconds a test that a job may ask for."""
    max_wall_seconds: PositiveFloat = 300.0
    """Wall-clock seconds a test that a job may ask for."""
    max_memory_mib: PositiveInt = 4096
    """MiB of memory that a job may ask for."""
    max_output_bytes: PositiveInt = 64 * MIB
    """Bytes of output a test that a job may ask for."""
