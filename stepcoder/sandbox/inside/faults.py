"""An exception as data for a person: its type, its message, and the line of the program that raised."""

from __future__ import annotations

from typing import Any

MESSAGE_CHARACTERS = 300


def describe(error: BaseException, filename: str) -> dict[str, Any]:
    """What a person needs to know of an exception.

    Args:
        error: the exception.
        filename: whose lines count: the last frame of this file gives the line.
    """
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        message = str(error)
    except BaseException:  # a program's own `__str__`
        message = "<no message>"
    name = type(error).__name__
    text = f"{name}: {message}" if message else name
    return {
        "exception": text[:MESSAGE_CHARACTERS],
        "type": name[:MESSAGE_CHARACTERS],
        "line": line,
        "memory": isinstance(error, MemoryError),
    }
