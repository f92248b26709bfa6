"""From a request's bytes to jobs: size, strict JSON, form, digests. Every fault is told with its place."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from typing import NoReturn

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from stepcoder.problems.problem import Test
from stepcoder.sandbox.job import Job, Limits
from stepcoder.sandbox.service.config import MIB, ServeConfig
from stepcoder.sandbox.service.models import JobMessage, JudgeRequest
from stepcoder.sandbox.service.refusal import RefusalError
from stepcoder.sandbox.wire import digest_of

PLACES_TOLD = 20
READ_SECONDS = 60.0
"""What a body may take to come: a client that vanished must not keep its place."""
VALUES_TAKEN = 2_000_000
"""Values of a body, by its commas: a few bytes of JSON can become a hundred times as many in memory."""
FAULTS_READ = 10_000
"""Beyond so many faults none is told: reading them takes longer than the request did."""


def size_of(request: Request, config: ServeConfig) -> int:
    """The most bytes that the body can have.

    Raises:
        RefusalError: the header promises more than is allowed (413).
    """
    largest = config.body_mib * MIB
    given = request.headers.get("content-length", "")
    size = int(given) if given.isascii() and given.isdigit() else largest
    if size > largest:
        raise _too_large(config)
    return size


async def read(request: Request, config: ServeConfig) -> bytes:
    """The whole body.

    Raises:
        RefusalError: it is no JSON by its type (415), too large (413), or does not come in time (408).
    """
    # A web page may send a form or plain text to a service on this machine, but not JSON.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusalError(415, "the content type must be application/json")
    largest = config.body_mib * MIB
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > largest:
                    raise _too_large(config)
                chunks.append(chunk)
    except TimeoutError as error:
        raise RefusalError(408, f"the body did not come within {READ_SECONDS:.0f} s") from error
    except ClientDisconnect as error:
        raise RefusalError(400, "the client hung up") from error
    return b"".join(chunks)


def parse(body: bytes, config: ServeConfig) -> tuple[JudgeRequest, dict[str, int]]:
    """The request, and the size of each of its test lists in bytes.

    Raises:
        RefusalError: names every place at fault (422), or there are too many values (413).
    """
    if body.count(b",") > VALUES_TAKEN:
        raise RefusalError(413, f"the body holds more than {VALUES_TAKEN} values")
    try:
        # The standard parser, since pydantic's refuses lone surrogates, which clients may send.
        data = json.loads(body.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise _faulty("body", "nested too deep") from error
    except ValueError as error:
        raise _faulty("body", f"is no strict JSON: {error}") from error
    try:
        request = JudgeRequest.model_validate(data)
    except ValidationError as error:
        raise RefusalError(422, "the request is not valid", places=list(_places(error))) from error
    except Exception as error:  # what decodes a test's values may stumble in many ways
        raise _faulty("tests", f"values cannot be read: {type(error).__name__}: {error}") from error
    places = [place for number, job in enumerate(request.jobs) for place in _excesses(f"jobs.{number}", job, config)]
    sizes: dict[str, int] = {}
    for digest, tests in data.get("tests", {}).items():
        text = json.dumps(tests, separators=(",", ":"))
        sizes[digest] = len(text)
        if digest_of(text) != digest:
            places.append((f"tests.{digest}", "is not the digest of this list's content"))
    if places:
        raise RefusalError(422, "the request is not valid", places=places[:PLACES_TOLD])
    return request, sizes


def job_of_message(message: JobMessage, tests: tuple[Test, ...]) -> Job:
    """The job that a message describes."""
    asked = message.limits
    limits = Limits(
        asked.cpu_seconds, asked.wall_seconds, asked.memory_mib, asked.output_bytes, asked.stop_at_first_failure
    )
    return Job(
        message.id,
        message.program,
        tests,
        message.entry_point,
        message.preamble,
        limits,
        message.trace,
        message.run,
        message.checker,
        message.branches,
    )


def _excesses(place: str, job: JobMessage, config: ServeConfig) -> Iterator[tuple[str, str]]:
    """Where a job asks for more than the server gives."""
    for name, largest in (
        ("cpu_seconds", config.max_cpu_seconds),
        ("wall_seconds", config.max_wall_seconds),
        ("memory_mib", config.max_memory_mib),
        ("output_bytes", config.max_output_bytes),
    ):
        asked = getattr(job.limits, name)
        if asked > largest:
            yield f"{place}.limits.{name}", f"{asked} is more than the {largest} of this server (`max_{name}`)"
    largest = config.program_kib * 1024
    for name in ("program", "preamble"):
        text = getattr(job, name)
        # Characters first: most programs are short, and need not be encoded to know it.
        if len(text) * 4 > largest and len(text.encode(errors="surrogatepass")) > largest:
            yield f"{place}.{name}", f"is longer than the {config.program_kib} KiB of this server (`program_kib`)"


def _places(error: ValidationError) -> Iterator[tuple[str, str]]:
    if error.error_count() > FAULTS_READ:
        yield "body", f"{error.error_count()} faults"
        return
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    for fault in faults[:PLACES_TOLD]:
        yield ".".join(map(str, fault["loc"])) or "body", fault["msg"]


def _faulty(place: str, fault: str) -> RefusalError:
    return RefusalError(422, "the request is not valid", places=[(place, fault)])


def _too_large(config: ServeConfig) -> RefusalError:
    return RefusalError(413, f"the body is larger than the {config.body_mib} MiB of this server (`body_mib`)")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value
