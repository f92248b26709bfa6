"""The token that a service and its clients share. It comes by the environment: arguments are for all to see."""

from __future__ import annotations

import os

from stepcoder.errors import DataError

TOKEN_VARIABLE = "STEPCODER_SANDBOX_TOKEN"


def token_from_environment() -> str:
    """The token; empty when there is none.

    Raises:
        DataError: it cannot stand in a header. The message does not hold it.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not all("!" <= character <= "~" for character in token):
        raise DataError(f"{TOKEN_VARIABLE}: must be printable ASCII without spaces")
    return token
