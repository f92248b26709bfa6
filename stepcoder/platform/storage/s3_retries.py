"""What may be tried again at an object store, and how long to wait before it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from stepcoder.platform.logs import get_logger

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FIRST_DELAY = 1.0
"""Seconds before the second attempt, at most; each further wait is twice as long."""
LONGEST_DELAY = 20.0
"""Seconds between two attempts, at most. With these values a store may be away for 45 seconds."""
_ATTEMPTS = 8
_WHOLE = 3
"""How often something is begun anew whose requests have been tried again by the client already."""
_STATUSES = {408, 429, 500, 502, 503, 504}
_CODES = {
    "InternalError",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    # The store has noticed that what arrived is not what was sent.
    "BadDigest",
    "IncompleteBody",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}

log = get_logger("object-store")

T = TypeVar("T")


def limit() -> int:
    """How often a request is sent at most: `$AWS_MAX_ATTEMPTS`, else 8."""
    value = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return max(int(value), 1) if value.isdigit() else _ATTEMPTS


def delay(attempt: int) -> float:
    """Seconds to wait after the given attempt, from 1; spread, so that many clients do not come back together."""
    return min(FIRST_DELAY * 2.0 ** (attempt - 1), LONGEST_DELAY) * random.uniform(0.5, 1)


class StoppedError(Exception):
    """Raised inside a transfer that is no longer wanted."""


def cause_of(error: BaseException) -> BaseException:
    """The error below boto3's own, which says only that a transfer has failed."""
    from boto3.exceptions import RetriesExceededError, S3UploadFailedError

    if isinstance(error, RetriesExceededError):
        return getattr(error, "last_exception", None) or error
    if isinstance(error, S3UploadFailedError):
        return error.__context__ or error
    return error


def install(client: S3Client) -> None:
    """Makes a client try again by these rules; its own waits are too short for a store that restarts."""
    client.meta.events.register_first("needs-retry.s3", _wait_before_next)  # type: ignore[arg-type] # it returns seconds


def again(call: Callable[[], T], what: str) -> T:
    """Calls until it succeeds or trying again cannot help.

    For what the client cannot try again by itself: an answer that breaks off while it is read.
    """
    most = min(limit(), _WHOLE)
    for attempt in range(1, most):
        try:
            return call()
        except Exception as error:
            if not _broke_off(error):
                raise
            seconds = delay(attempt)
            _tell(what, attempt, most, seconds, type(cause_of(error)).__name__)
            time.sleep(seconds)
    return call()


def _wait_before_next(
    *, attempts: int, operation: Any, response: tuple[Any, dict[str, Any]] | None, caught_exception: Any, **_: Any
) -> float | None:
    if attempts >= limit():
        return None
    if response is not None:
        status, error = response[0].status_code, response[1].get("Error")
        code = error.get("Code") if isinstance(error, dict) else None
        if status not in _STATUSES and code not in _CODES:
            return None
        reason = str(code or status)
    elif _lost(caught_exception):
        reason = type(caught_exception).__name__
    else:
        return None
    seconds = delay(attempts)
    _tell(operation.name, attempts, limit(), seconds, reason)
    return seconds


def _lost(error: Any) -> bool:
    """Whether the connection failed, rather than what was asked for or this machine."""
    from botocore import exceptions as botocore

    if isinstance(error, botocore.SSLError):
        return "CERTIFICATE" not in str(error).upper()
    if isinstance(getattr(error, "kwargs", {}).get("error"), StoppedError):
        return False
    return isinstance(error, botocore.ConnectionError | botocore.HTTPClientError | ConnectionError | TimeoutError)


def _broke_off(error: Exception) -> bool:
    from botocore import exceptions as botocore
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    broken = (
        botocore.IncompleteReadError,
        botocore.ReadTimeoutError,
        ResponseParserError,
        botocore.ResponseStreamingError,
        HTTPError,
        ConnectionError,
        TimeoutError,
    )
    return isinstance(cause_of(error), broken)


def _tell(what: str, attempt: int, most: int, seconds: float, reason: str) -> None:
    # One failure in a thousand requests is everyday life.
    tell = log.warning if attempt > 1 else log.debug
    tell("trying again", request=what, attempt=attempt + 1, of=most, wait=f"{seconds:.1f}s", reason=reason)
