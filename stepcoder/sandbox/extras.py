"""Parts of the sandbox that need more than the plain install: what to do when it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stepcoder.errors import StepCoderError


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Surrounds imports that only come with an extra of the package.

    Raises:
        StepCoderError: a package is not installed; the message names it and the extra.
    """
    try:
        yield
    except ImportError as error:
        missing = error.name or str(error)
        raise StepCoderError(f"{missing} is not installed: pip install 'stepcoder[{extra}]'") from error
