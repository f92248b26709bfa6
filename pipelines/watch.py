"""Watches a pipeline under kfp.local: whose output a line is, what goes to the log files, what a person sees.

kfp.local prints everything into one stream: its own messages, which begin with the time, and each step's output. It
means to indent that by four spaces, and does so for what comes at once, be it part of a line or several lines.
"""

from __future__ import annotations

import io
import json
import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.text import Text

from stepcoder.platform.entry import FAILED

INDENT = "    "
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_OWN = re.compile(r"[\d:.]+ - [A-Z]+ - ")
_START = re.compile(r"Executing task '([\w-]+)'")
_END = re.compile(r"Task '([\w-]+)' finished with status (SUCCESS|FAILURE)")
_HIT = re.compile(r"Task ([\w-]+) cache hit")


@dataclass
class Step:
    """One step of the run."""

    name: str
    task: str
    """Its name in Kubeflow."""
    started: float
    seconds: float = 0.0
    state: str = "running"
    """`running`, `done`, `cached` or `failed`."""
    errors: list[str] = field(default_factory=list)
    """What the step said about its failure, one fault each."""
    exit_status: int = 1
    """What the step's failure means for the whole command: 2 for bad input, else 1."""
    said: str = ""
    """The last thing it had to say besides its progress."""
    tail: list[str] = field(default_factory=list)
    """The last lines of output, for a failure that nobody explained."""


class Watch(io.TextIOBase):
    """Takes the place of standard output while the pipeline runs."""

    def __init__(self, logs: Path, console: Console) -> None:
        self.steps: list[Step] = []
        self._logs = logs
        self._console = console
        self._rest = ""
        self._file: TextIO | None = None
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._doing = ""
        logs.mkdir(parents=True, exist_ok=True)

    @property
    def failed(self) -> Step | None:
        """The first step that failed."""
        return next((step for step in self.steps if step.state == "failed"), None)

    def write(self, text: str) -> int:
        """Takes output in any portions."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)
        return len(text)

    def writable(self) -> bool:
        """Always."""
        return True

    def finish(self) -> None:
        """Ends what is still open: a step that runs now was interrupted."""
        if self.steps and self.steps[-1].state == "running":
            self._end("failed")

    def judge(self, artifacts: Path) -> None:
        """Takes a step that left no output as failed, whatever its runner says.

        kfp's DockerRunner says success when a container is gone before it can ask how it ended.

        Args:
            artifacts: The folder under which kfp.local keeps what each run wrote.
        """
        runs = sorted(artifacts.iterdir(), key=lambda path: path.stat().st_mtime) if artifacts.exists() else []
        for step in self.steps:
            if step.state == "done" and not any(runs[-1].rglob(f"{step.task}/executor_output.json")):
                step.state = "failed"

    def hit(self, name: str) -> None:
        """A step's earlier result was taken."""
        self.steps.append(Step(shown(name), name, time.monotonic(), state="cached"))
        self._print(f"[green]✓[/green] {shown(name):<16} earlier result")

    def _line(self, line: str) -> None:
        plain = _COLOURS.sub("", line)
        running = self.steps[-1] if self.steps and self.steps[-1].state == "running" else None
        if running is not None and not _OWN.match(plain):
            self._output(running, plain.removeprefix(INDENT))
        elif started := _START.search(plain):
            self._begin(started[1])
        elif ended := _END.search(plain):
            self._end("done" if ended[2] == "SUCCESS" else "failed")

    def _begin(self, task: str) -> None:
        name = shown(task)
        self.steps.append(Step(name, task, time.monotonic()))
        self._file = (self._logs / f"{name}.log").open("w", encoding="utf-8")
        self._doing = ""
        if not self._console.is_terminal:
            self._print(f"> {name}")
            return
        # Not redirected: what runs while the line is shown prints to this watch, not to the terminal.
        self._live = Live(
            get_renderable=self._moment,
            console=self._console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def _end(self, state: str) -> None:
        step = self.steps[-1]
        step.state = state
        step.seconds = time.monotonic() - step.started
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._file is not None:
            self._file.close()
            self._file = None
        mark = "[green]✓[/green]" if state == "done" else "[red]✗[/red]"
        said = f"  [dim]{escape(step.said)}[/dim]" if step.said and self._console.is_terminal else ""
        self._print(f"{mark} {step.name:<16} {step.seconds:6.1f} s{said}")

    def _output(self, step: Step, line: str) -> None:
        if self._file is not None:
            self._file.write(line + "\n")
            self._file.flush()
        step.tail = [*step.tail[-9:], line]
        pairs = read_pairs(line)
        if pairs is None:
            return
        if pairs.get("event") == FAILED:
            step.errors.append(pairs.get("error", ""))
            step.exit_status = int(pairs.get("exit_status", "1"))
        elif pairs.get("level") in {"WARNING", "ERROR"}:
            self._print(f"  [yellow]{escape(step.name)}: {escape(sentence(pairs))}[/yellow]")
        elif self._console.is_terminal:
            self._doing = sentence(pairs)
            step.said = step.said if pairs.get("step") == "progress" else self._doing
        else:
            self._print(f"  {step.name}: {escape(sentence(pairs))}")

    def _moment(self) -> Spinner:
        """The moving line of the step that runs: its name, its time, and what it said last."""
        step = self.steps[-1]
        line = f"{step.name:<16} {time.monotonic() - step.started:6.1f} s  {self._doing}"
        self._spinner.update(text=Text(line[: self._console.width - 3]))
        return self._spinner

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


class CacheHits(logging.Handler):
    """Tells a watch of the steps that kfp.local takes from its cache: it only logs them."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.INFO)
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a message of kfp's root logger."""
        if found := _HIT.search(record.getMessage()):
            self._watch.hit(found[1])


def shown(task: str) -> str:
    """The name of a task as people read it: Kubeflow numbers repeated components from the second on."""
    return "ppo-stage-1" if task == "ppo-stage" else task


def read_pairs(line: str) -> dict[str, str] | None:
    """The `key=value` pairs of a step's log line; None for any other line."""
    if not line.startswith("time="):
        return None
    try:
        return {key: value for key, _, value in (part.partition("=") for part in _split(line))}
    except ValueError:
        return None


def sentence(pairs: dict[str, str]) -> str:
    """A log line without what a person who watches knows anyway."""
    values = [f"{key} {value}" for key, value in pairs.items() if key not in {"time", "level", "step", "event"}]
    return ", ".join([pairs.get("event", ""), *values])


def _split(line: str) -> list[str]:
    parts = []
    for match in re.finditer(r'([\w.]+)=("(?:[^"\\]|\\.)*"|\S*)', line):
        value = json.loads(match[2]) if match[2].startswith('"') else match[2]
        parts.append(f"{match[1]}={value}")
    return parts
