"""What a run on this machine ends with: pass@1 along the training, the gate's decision, times, where to look."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.watch import Step
from stepcoder.platform import tracking


def show_summary(folder: Path, steps: Sequence[Step], seconds: float, console: Console) -> None:
    """Prints the tables of a finished run.

    Args:
        folder: The run's folder.
        steps: The steps in the order in which they ran.
        seconds: Wall-clock seconds of the whole command.
        console: Where to print.
    """
    newest = max((folder / "artifacts").iterdir(), key=lambda path: path.stat().st_mtime)
    evaluation = next(newest.rglob("evaluation/metrics.json")).parent
    metrics = json.loads((evaluation / "metrics.json").read_text())
    console.print()
    console.print(pass_table(metrics, validations(evaluation)))
    decision = gate_decision(newest)
    verdict = "[green]promoted[/green]" if decision["promote"] else "[yellow]not promoted[/yellow]"
    console.print(f"Gate: {verdict}: {escape(str(decision['why']))}", highlight=False, soft_wrap=True)
    times = ", ".join(
        f"{step.name} {'cached' if step.state == 'cached' else f'{step.seconds:.0f} s'}" for step in steps
    )
    console.print(f"Time: {seconds:.0f} s ({times})", highlight=False, soft_wrap=True)
    report = folder / "report.html"
    shutil.copyfile(evaluation / "report.html", report)
    python = _short(Path(sys.executable))
    console.print(f"Report: {python} -m webbrowser -t {report.absolute().as_uri()}", highlight=False, soft_wrap=True)
    console.print(
        f"MLflow: {python} -m mlflow ui --backend-store-uri {tracking.tracking_uri()}", highlight=False, soft_wrap=True
    )


def pass_table(metrics: dict[str, Any], stages: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    """pass@1 in percent: along the training on validation problems, at the end on test problems.

    Args:
        metrics: Content of the evaluation's `metrics.json`.
        stages: Name and `summary.json` of every training step in order.
    """
    table = Table(title="pass@1, %")
    for heading in ("model", "validation", "problems × samples", "test", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    test = {name: _figure(model) for name, model in metrics["models"].items()}
    rows: list[tuple[str, dict[str, Any] | None, str | None]] = []
    for position, (name, summary) in enumerate(stages):
        validation = summary.get("validation") or {}
        if position == 0:
            rows.append(("base", validation.get("before"), "base"))
        last = position == len(stages) - 1
        rows.append(
            (f"after {name}", validation.get("after"), "sft" if position == 0 else "candidate" if last else None)
        )
    rows.append(("champion", None, "champion"))
    for title, measured, model in rows:
        figure = test.get(model) if model else None
        if title == "champion" and figure is None:
            continue
        table.add_row(
            title,
            f"{100 * measured['pass_at_1']:.1f}" if measured and measured["pass_at_1"] is not None else "",
            _counts(measured),
            f"{100 * figure[0]:.1f}" if figure else "",
            f"{100 * figure[1]:.1f} to {100 * figure[2]:.1f}" if figure else "",
        )
    return table


def validations(evaluation: Path) -> list[tuple[str, dict[str, Any]]]:
    """Name and `summary.json` of every training step, as the evaluation's config names their folders."""
    found = []
    for folder in json.loads((evaluation / "config.json").read_text())["history"]:
        summary = json.loads((Path(folder) / "summary.json").read_text())
        stage = summary.get("stage")
        found.append(("SFT" if summary.get("step_name") == "sft" else f"PPO stage {stage}", summary))
    return found


def gate_decision(run: Path) -> dict[str, Any]:
    """What promotion-gate gave: `promote` and `why`."""
    output = next(run.rglob("promotion-gate/executor_output.json"))
    decision: dict[str, Any] = json.loads(output.read_text())["parameterValues"]
    return decision


def _figure(model: dict[str, Any]) -> tuple[float, float, float] | None:
    figure = model["overall"]["pass_at_k"].get("1")
    return (figure["value"], figure["low"], figure["high"]) if figure else None


def _counts(measured: dict[str, Any] | None) -> str:
    if not measured or not measured.get("problems"):
        return ""
    return f"{measured['problems']} × {measured['samples'] // measured['problems']}"


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
