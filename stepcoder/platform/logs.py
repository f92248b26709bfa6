"""Logs and progress: `key=value` lines on stderr, or colours and a moving bar where a person watches."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from rich.console import Console
from rich.filesize import decimal
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

ROOT = "stepcoder"
LINE = "STEPCODER_PROGRESS_SECONDS"
LINE_SECONDS = 10.0
"""Seconds between two progress lines where no terminal is, unless the variable says otherwise."""

_console = Console(stderr=True)

T = TypeVar("T")


def configure(level: str | None = None) -> None:
    """Sets up the program's log once, at its start.

    Args:
        level: `debug`, `info`, `warning` or `error`; default `$STEPCODER_LOG`, else `info`.
    """
    name = (level or os.environ.get("STEPCODER_LOG") or "info").upper()
    handler: logging.Handler
    if _console.is_terminal:
        handler = RichHandler(console=_console, show_path=False, markup=False, log_time_format="%H:%M:%S")
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = _Lines()
        formatter = logging.Formatter("time=%(asctime)sZ level=%(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        handler.setFormatter(formatter)
    logger = logging.getLogger(ROOT)
    logger.handlers[:] = [handler]
    logger.setLevel(name if name in logging.getLevelNamesMapping() else "INFO")
    if rank():
        logger.setLevel(max(logger.level, logging.WARNING))
    # Kubeflow's executor gives the root logger a handler too, and lines would come twice.
    logger.propagate = False
    # It tells every request to the sandbox, as soon as the root logger has a handler.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def rank() -> int:
    """This process's number among those that train together, from 0; only rank 0 tells how the work goes."""
    return int(os.environ.get("RANK") or 0)


class _Lines(logging.Handler):
    """Writes to whatever `sys.stderr` is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class Log:
    """A logger whose lines are an event and `key=value` pairs."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger = logging.getLogger(f"{ROOT}.{name}")

    def debug(self, event: str, **values: Any) -> None:
        """Details for a developer."""
        self._write(logging.DEBUG, event, values)

    def info(self, event: str, **values: Any) -> None:
        """What happened."""
        self._write(logging.INFO, event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Something is not as it should be, and the work goes on."""
        self._write(logging.WARNING, event, values)

    def error(self, event: str, **values: Any) -> None:
        """The work ends here."""
        self._write(logging.ERROR, event, values)

    def _write(self, level: int, event: str, values: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            own = {"rank": number} if (number := rank()) else {}
            pairs = {"step": self._name, **own, "event": event, **values}
            self._logger.log(level, "%s", " ".join(f"{key}={quoted(value)}" for key, value in pairs.items()))


def get_logger(name: str) -> Log:
    """The log of one step or part, for example `get_logger("sft")`."""
    return Log(name)


def quoted(value: Any) -> str:
    """A value as it stands in a `key=value` line: bare when it is one plain word, else a JSON string."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else str(value)
    plain = text != "" and text.isprintable() and not any(char in ' ="\\' for char in text)
    # Unprintable characters, line separators among them, are escaped; letters of any script stay readable.
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def seconds_of(variable: str, default: float) -> float:
    """The seconds that a variable of the environment gives; what is no number is told, and the default counts."""
    try:
        return float(os.environ.get(variable) or default)
    except ValueError:
        log = get_logger("settings")
        log.warning("not a number of seconds; the default counts", variable=variable, default=default)
        return default


class Progress(Generic[T]):
    """How far a piece of work is and when it will end: a bar on a terminal, else a log line now and then.

    Iterate over it, or use it as a context manager and call `advance`.

    Args:
        work: what is worked on; a range where only the number of items, or of bytes, counts.
        description: what is done.
        in_bytes: whether bytes are counted.
    """

    def __init__(self, work: Collection[T], description: str, *, in_bytes: bool = False) -> None:
        self._items = work
        self._total = len(work)
        self._description = description
        self._in_bytes = in_bytes
        self._log = get_logger("progress")
        self._bar: RichProgress | None = None
        self._task = TaskID(0)
        self._done = 0
        self._line_seconds = seconds_of(LINE, LINE_SECONDS)
        self._started = self._written = time.monotonic()

    def __enter__(self) -> Self:
        self._started = self._written = time.monotonic()
        if _console.is_terminal and not rank():
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                *([DownloadColumn(), TransferSpeedColumn()] if self._in_bytes else [MofNCompleteColumn()]),
                TextColumn("{task.fields[values]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=_console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._description, total=self._total, values="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self._items:
                yield item
                self.advance()

    def advance(self, count: int = 1, **values: Any) -> None:
        """Counts `count` more items as done; `values` are shown beside the count."""
        self._done += count
        if self._bar is not None:
            shown = " ".join(f"{key}={quoted(value)}" for key, value in values.items())
            self._bar.update(self._task, advance=count, values=shown)
            return
        now = time.monotonic()
        since = self._started if self._done >= self._total else self._written
        if now - since >= self._line_seconds:
            self._written = now
            elapsed = now - self._started
            left = elapsed / max(self._done, 1) * max(self._total - self._done, 0)
            how_far: dict[str, Any] = {"done": self._done, "total": self._total}
            if self._in_bytes:
                how_far = {name: decimal(count) for name, count in how_far.items()}
                how_far["rate"] = f"{decimal(round(self._done / max(elapsed, 1e-9)))}/s"
            self._log.info(self._description, **how_far, left=f"{left:.0f}s", **values)


class Clock:
    """How long the parts of a piece of work take."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}
        """`seconds_<part>` of each part that has ended."""

    def lap(self, part: str) -> None:
        """Ends a part."""
        now = time.perf_counter()
        self.seconds[f"seconds_{part}"] = now - self._last
        self._last = now

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return self._last - self._began
