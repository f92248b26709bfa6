"""Posts one JSON document to an address that is a secret itself: no error and no log line names it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from stepcoder.errors import DataError, StepCoderError

ATTEMPTS: Final = 4
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 20.0
"""Seconds; also the most that an answer may ask for by Retry-After."""
CONNECT_SECONDS, READ_SECONDS = 5.0, 10.0
TOTAL_SECONDS: Final = 60.0
"""All attempts together."""
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


def check_form(url: str) -> None:
    """Raises `DataError` when the address cannot be one to post to; the message does not hold it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise DataError("is no address: its host or port cannot be read") from error
    if parts.scheme not in ("http", "https") or not host:
        raise DataError("must read https://HOST/… (or http:// inside the cluster)")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise DataError("holds white space; was a line end pasted with it?")


def post(url: str, document: Mapping[str, Any], *, seconds: float = TOTAL_SECONDS) -> None:
    """Posts the document, again where a later attempt may succeed, and gives up when the time is over.

    Redirects are not followed: what is sent is meant for this host alone.

    Args:
        url: where to.
        document: what, as JSON.
        seconds: for all attempts together.

    Raises:
        DataError: the address is none.
        StepCoderError: it was not taken; the message says why and does not hold the address.
    """
    check_form(url)
    ended: list[StepCoderError | None] = []
    # A server that sends a byte now and then would outlast every timeout of the HTTP library.
    thread = threading.Thread(
        target=lambda: ended.append(_attempts(url, document, time.monotonic() + seconds)), name="webhook", daemon=True
    )
    thread.start()
    thread.join(seconds)
    if not ended:
        raise StepCoderError(f"was not answered within {seconds:.0f} s")
    if ended[0] is not None:
        raise ended[0]


def _attempts(url: str, document: Mapping[str, Any], deadline: float) -> StepCoderError | None:
    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        why, again, asked = _attempt(url, document)
        if why is None:
            return None
        wait = min(max(pause, asked), LONGEST_PAUSE)
        if not again or attempt == ATTEMPTS or time.monotonic() + wait >= deadline:
            return StepCoderError(f"{why} (attempt {attempt} of {ATTEMPTS})")
        time.sleep(wait)
        pause *= 2
    raise AssertionError("the last attempt returns")


def _attempt(url: str, document: Mapping[str, Any]) -> tuple[str | None, bool, float]:
    """Why it was not taken or None, whether to try again, and for how many seconds the server asks to wait."""
    import requests

    # Its debug lines hold the path.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    # The library's own texts hold the address, so only their kinds are told.
    try:
        with requests.post(
            url,
            json=dict(document),
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            allow_redirects=False,
            stream=True,  # what it answers is not read
        ) as response:
            status, asked = response.status_code, _seconds(response.headers.get("Retry-After", ""))
    except requests.exceptions.SSLError:
        return "its certificate is not trusted", False, 0.0
    except requests.exceptions.ProxyError:
        return "the proxy does not let it through", True, 0.0
    except requests.exceptions.Timeout:
        return "does not answer in time", True, 0.0
    except requests.exceptions.ConnectionError:
        return "cannot be reached", True, 0.0
    except Exception as error:  # Whatever else the library raises, an address it cannot use among it.
        return f"cannot be posted to ({type(error).__name__})", False, 0.0
    if 200 <= status < 300:
        return None, False, 0.0
    if 300 <= status < 400:
        return f"redirects (status {status}), which is not followed; set the final address", False, 0.0
    return f"answers status {status}", status in _AGAIN, asked


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
