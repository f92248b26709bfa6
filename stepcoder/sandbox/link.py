"""One client's connection to a sandbox service: what is sent, what is sent again, and what an answer means.

Judging is keyed by content, so a request whose answer was lost can be sent again: the service runs nothing twice that
it still remembers, and the verdict is the same.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from stepcoder.errors import StepCoderError
from stepcoder.platform.logs import get_logger
from stepcoder.sandbox import wire
from stepcoder.sandbox.job import Job, Verdict
from stepcoder.sandbox.recent import Recent
from stepcoder.sandbox.token import TOKEN_VARIABLE

CONNECT_SECONDS = 10.0
GRACE_SECONDS = 60.0
"""Seconds that an answer may take beyond what its programs may use one after another."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
LOOK_SECONDS = 0.2
TEST_SENDINGS = 4
AGAIN = frozenset({408, 429, 502, 503, 504})
"""Statuses after which the same request may succeed later."""
# A machine that vanishes without a word is noticed within a minute; a long judgement is not cut short.
KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
]

log = get_logger("sandbox")


@dataclass(frozen=True)
class Parcel:
    """A job and its tests as they travel."""

    job: Job
    tests: wire.SentTests


class LostError(Exception):
    """The service cannot be reached, or fails: the job has no verdict."""


class TooLargeError(StepCoderError):
    """The body is larger than the service takes."""


class FaultyJobsError(StepCoderError):
    """The service refuses some jobs for what they are."""

    def __init__(self, faults: dict[int, str]) -> None:
        super().__init__("; ".join(faults.values()))
        self.faults = faults
        """Position in the request to what is wrong with the job."""


class Link:
    """The connection to one service. For one event loop; use it in an `async with`."""

    def __init__(self, address: str, token: str, patience: float, connections: int) -> None:
        self.address = address
        self._patience = patience
        self._failing_since: float | None = None
        self._held: Recent[str, bool] = Recent(wire.TEST_LISTS)
        parts = urlsplit(address)
        retries = 0  # ours are enough
        # A context of its own, since the environment's proxies and .netrc are not for this.
        context = ssl.create_default_context() if parts.scheme == "https" else False
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=60)
        if parts.scheme == "http+unix":
            path = unquote(parts.path)
            transport = httpx.AsyncHTTPTransport(uds=path, retries=retries, limits=limits, trust_env=False)
            base = "http://sandbox"
        else:
            transport = httpx.AsyncHTTPTransport(
                verify=context, retries=retries, limits=limits, trust_env=False, socket_options=KEEP_ALIVE
            )
            base = address.rstrip("/")
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.AsyncClient(transport=transport, base_url=base, headers=headers, trust_env=False)

    async def __aenter__(self) -> Link:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._client.aclose()

    async def ready(self, seconds: float) -> dict[str, Any]:
        """Waits until the service can judge, and tries the token.

        Returns:
            What the service says of itself: fields of `models.Readiness`.

        Raises:
            StepCoderError: it cannot within so many seconds, or refuses the token.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                response = await self._client.get("/readyz", timeout=CONNECT_SECONDS)
                state = _data(response)
                if response.status_code == 200:
                    break
                why = f"status {response.status_code}: {state.get('state', '')} {state.get('detail', '')}".strip()
                if state.get("state") == "failed":
                    raise StepCoderError(f"sandbox service {self.address}: its self-test failed: {state.get('detail')}")
            except httpx.HTTPError as error:
                why = _told(error)
            if time.monotonic() > deadline:
                raise StepCoderError(
                    f"sandbox service {self.address}: not ready within {seconds:.0f} s ({why}); "
                    "is `stepcoder sandbox serve` running there?"
                )
            await asyncio.sleep(LOOK_SECONDS)
        if "lacking" not in state:
            raise StepCoderError(f"{self.address}: something answers, but it is no sandbox service")
        if state["lacking"]:
            log.warning("isolation_incomplete", address=self.address, lacks=",".join(map(str, state["lacking"])))
        try:
            await self.judge([])
        except LostError as error:
            raise StepCoderError(str(error)) from error
        return state

    async def judge(self, parcels: Sequence[Parcel]) -> list[Verdict]:
        """Verdicts in the order of the parcels.

        Raises:
            LostError: no answer within the link's patience; how long it has failed counts over all requests.
            TooLargeError, FaultyJobsError: the service does not take the request as it is.
            StepCoderError: the token is refused, or what answers is no sandbox service.
        """
        timeout = httpx.Timeout(CONNECT_SECONDS, read=GRACE_SECONDS + sum(map(_longest, parcels)), pool=None)
        needed = {parcel.tests.digest: parcel.tests for parcel in parcels}
        sending = {digest for digest in needed if not self._held.get(digest)}
        jobs = json.dumps([wire.job_to_data(parcel.job, parcel.tests.digest) for parcel in parcels])
        attempt = sendings = 0
        while True:
            tests = ",".join(f'"{digest}":{needed[digest].text}' for digest in sorted(sending))
            try:
                response = await self._client.post(
                    "/v1/judge", content=f'{{"jobs":{jobs},"tests":{{{tests}}}}}', timeout=timeout
                )
            except httpx.TransportError as error:
                await self._pause(attempt, _told(error))
                attempt += 1
                continue
            if response.status_code not in AGAIN:
                self._failing_since = None
            match response.status_code:
                case 200:
                    for digest in sending:
                        self._held.put(digest, True)
                    return self._verdicts(response, parcels)
                case 409:
                    missing = set(_data(response).get("missing", ())) & needed.keys()
                    sendings += 1
                    if not missing or sendings > TEST_SENDINGS:
                        raise StepCoderError(f"{self.address}: the service does not keep the tests that it was sent")
                    sending |= missing
                case status if status in AGAIN:
                    # Pods of a Service are chosen by connection: the next attempt may reach one that has room.
                    await response.extensions["network_stream"].aclose()
                    await self._pause(attempt, _reason(response), response.headers.get("retry-after"))
                    attempt += 1
                case 401:
                    raise StepCoderError(
                        f"sandbox service {self.address} refuses the token: set {TOKEN_VARIABLE} to the service's"
                    )
                case 413:
                    raise TooLargeError(f"sandbox service {self.address}: {_reason(response)}")
                case 422:
                    raise self._faults(response, len(parcels))
                case 500:
                    raise LostError(f"sandbox service {self.address} failed: {_reason(response)}; see its log")
                case _:
                    raise StepCoderError(f"{self.address}: is no sandbox service: {_reason(response)}")

    async def _pause(self, attempt: int, why: str, retry_after: str | None = None) -> None:
        """Waits before the next attempt, longer each time, unless the service has failed for too long."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            log.warning("service_failing", address=self.address, why=why, patience=f"{self._patience:.0f}s")
        if now - self._failing_since >= self._patience:
            raise LostError(
                f"sandbox service {self.address}: no verdict for {now - self._failing_since:.0f} s ({why}); "
                "look at the service's log, or start it again"
            )
        pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
        if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
            pause = min(max(pause, float(retry_after)), 60.0)
        # Clients that failed together do not come back together.
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))

    def _verdicts(self, response: httpx.Response, parcels: Sequence[Parcel]) -> list[Verdict]:
        try:
            verdicts = [wire.verdict_from_data(data) for data in json.loads(response.content)["verdicts"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StepCoderError(f"{self.address}: answers no verdicts; is it a service of this version?") from error
        if [verdict.id for verdict in verdicts] != [parcel.job.id for parcel in parcels]:
            raise StepCoderError(f"{self.address}: answers other jobs than it was asked")
        return verdicts

    def _faults(self, response: httpx.Response, jobs: int) -> StepCoderError:
        """The jobs at fault, where all places lie in jobs."""
        faults: dict[int, str] = {}
        places = _data(response).get("places", [])
        for place in places:
            kind, _, rest = str(place.get("place")).partition(".")
            number, _, field = rest.partition(".")
            if kind != "jobs" or not number.isdecimal() or int(number) >= jobs:
                faults.clear()
                break
            faults[int(number)] = f"sandbox service {self.address} refuses a job: {field}: {place.get('fault')}"
        if not faults:
            told = "; ".join(f"{place.get('place')}: {place.get('fault')}" for place in places)
            return StepCoderError(f"sandbox service {self.address} refuses a request: {told or _reason(response)}")
        return FaultyJobsError(faults)


def _longest(parcel: Parcel) -> float:
    """Seconds that a job can take: its tests and its compilation one after another, on a service of one slot."""
    return parcel.job.limits.wall_seconds * (len(parcel.tests.tests) + 1)


def _data(response: httpx.Response) -> dict[str, Any]:
    try:
        data = json.loads(response.content)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _reason(response: httpx.Response) -> str:
    detail = _data(response).get("detail")
    return f"status {response.status_code}" + (f", {detail}" if detail else "")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
