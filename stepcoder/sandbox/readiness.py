"""Whether a sandbox is ready to judge for this version, without giving it any work of a run."""

from __future__ import annotations

import asyncio
from typing import Any

from stepcoder import __version__
from stepcoder.errors import StepCoderError
from stepcoder.sandbox.address import LOCAL, check_address, open_sandbox
from stepcoder.sandbox.extras import needing
from stepcoder.sandbox.token import token_from_environment


def check_ready(address: str, seconds: float) -> tuple[str, ...]:
    """Tries a sandbox: a service's readiness, version and token, or the self-test on this machine.

    Args:
        address: as `open_sandbox` takes it.
        seconds: how long a service may take to become ready.

    Returns:
        Layers of isolation that it lacks.

    Raises:
        DataError: the address is not valid.
        StepCoderError: it is not ready in time, its self-test fails, it refuses the token, or it is of another version.
    """
    check_address(address)
    if address in LOCAL or address == "docker":
        return _self_test(address)
    with needing("service"):
        state = asyncio.run(_ask(address, seconds))
    theirs = str(state.get("version", ""))
    if _series(theirs) != _series(__version__):
        raise StepCoderError(
            f"sandbox service {address}: is of version {theirs or 'unknown'}, and this is {__version__}: roll out the "
            "sandbox of this version, or use images of its version"
        )
    return tuple(map(str, state["lacking"]))


def _self_test(address: str) -> tuple[str, ...]:
    from stepcoder.sandbox.service.selftest import SelfTest

    with open_sandbox(address, 1) as sandbox:
        test = SelfTest(sandbox)
        test.run()
    if test.state != "ready":
        raise StepCoderError(f"sandbox {address!r}: its self-test failed here: {test.detail}")
    return test.lacking


async def _ask(address: str, seconds: float) -> dict[str, Any]:
    from stepcoder.sandbox.link import Link

    async with Link(address, token_from_environment(), seconds, 1) as link:
        return await link.ready(seconds)


def _series(version: str) -> tuple[str, ...]:
    """What must agree: the major version, and before 1.0 the minor one too."""
    major, _, rest = version.partition(".")
    return (major, rest.partition(".")[0]) if major == "0" else (major,)
