"""How a request is refused: a status, a sentence, and the places at fault."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

BUSY_SECONDS = 1
"""What Retry-After says: the queue moves within a second, or clients wait in turns of one."""


class RefusalError(Exception):
    """Ends the handling of a request with an answer that says why."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        places: Sequence[tuple[str, str]] | None = None,
        missing: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.body: dict[str, Any] = {"detail": detail}
        if places is not None:
            self.body["places"] = [{"place": place, "fault": fault} for place, fault in places]
        if missing is not None:
            self.body["missing"] = list(missing)
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The answer."""
        return json_response(self.body, self.status, self.headers)


def busy(detail: str) -> RefusalError:
    """Too much at the same time: come again (429)."""
    return RefusalError(429, detail, headers={"Retry-After": str(BUSY_SECONDS)})


def unavailable(detail: str) -> RefusalError:
    """Not now, and perhaps not here (503)."""
    return RefusalError(503, detail, headers={"Retry-After": str(BUSY_SECONDS)})


def json_response(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Data as strict JSON in ASCII: what a program printed may hold lone surrogates, which UTF-8 cannot."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Response(text, status, headers, "application/json")
