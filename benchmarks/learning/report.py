"""What a run ends with: `results.json`, the tables as Markdown and on the terminal, the curves as PNG."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.learning import figures
from benchmarks.learning.plan import Unit
from benchmarks.learning.settings import BASELINE, NAMES, SWITCHES, Setting
from benchmarks.learning.unit import TRACES, VALIDATION
from stepcoder.platform import storage

COLOURS = {"sft": "#777777", "plain": "#222222", "fgo": "#d08000", "cccs": "#0070b0", "stepcoder": "#b02060"}
TITLES = {
    "pass_rate": "training pass rate, from where each problem stands",
    "level_mean": "mean level (0: from scratch)",
    "executed_fraction": "share of tokens in the policy loss",
    "kl": "KL a token",
    "entropy": "entropy a token",
    VALIDATION: "validation pass@1",
}


def results(setting: Setting, units: Sequence[Unit], seconds: float | None) -> dict[str, Any]:
    """All figures of a run: of the seeds whose variants are all done, or, before there is one, of whatever is done."""
    missing = {unit.seed for unit in units if not unit.done}
    complete = [seed for seed in setting.seeds if seed not in missing]
    done = [unit for unit in units if unit.done and (unit.seed in complete or not complete)]
    records = {unit.name: unit.record for unit in done}
    measured = {(unit.seed, unit.variant): records[unit.name]["problems"] for unit in done}
    ks = [k for k in (1, 8) if k <= setting.measured["samples"]]
    return {
        "setting": setting.model_dump(mode="json"),
        "complete_seeds": complete,
        "rollouts": setting.rollouts,
        "units": {name: {key: record[key] for key in ("seconds", "measuring")} for name, record in records.items()},
        "machines": [json.loads(one) for one in sorted({json.dumps(record["machine"]) for record in records.values()})],
        "wall_seconds": seconds,
        **figures.summarise(measured, setting.buckets, ks),
        "outcomes": outcomes(done),
        "curves": curves(setting, done),
    }


def outcomes(units: Sequence[Unit]) -> dict[str, dict[str, float]]:
    """Shares of outcomes on held-out problems, over all seeds."""
    counts: dict[str, dict[str, int]] = {}
    for unit in units:
        here = counts.setdefault(unit.variant, {})
        for name, n in unit.record["outcomes"].items():
            here[name] = here.get(name, 0) + n
    return {v: {name: n / sum(here.values()) for name, n in sorted(here.items())} for v, here in counts.items()}


def curves(setting: Setting, units: Sequence[Unit]) -> dict[str, dict[str, Any]]:
    """Curves of the PPO variants over roll-outs: mean and interval over seeds."""
    found: dict[str, dict[str, Any]] = {}
    for variant in SWITCHES:
        runs = {unit.seed: unit.record["curves"] for unit in units if unit.variant == variant}
        if runs:
            found[variant] = {
                trace: figures.curve({seed: points[trace] for seed, points in runs.items()})
                for trace in (*TRACES, VALIDATION)
            }
    return found


def write(folder: Path, found: dict[str, Any], console: Console) -> None:
    """Writes the three files and shows the tables."""
    storage.write_text(folder / "results.json", json.dumps(found, indent=1) + "\n")
    storage.write_text(folder / "results.md", markdown(found))
    for title, heading, rows in tables(found):
        table = Table(title=title)
        for index, name in enumerate(heading):
            table.add_column(name, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    written = ["results.json", "results.md"]
    try:
        written += draw(folder, found)
    except ImportError:
        console.print("no PNG: matplotlib is missing (the extra `pipeline` brings it)", highlight=False)
    console.print(f"{folder}: {', '.join(written)}", highlight=False, soft_wrap=True)


def tables(found: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, heading and rows of each table."""
    groups = list(found["problems"])
    heading = ["", *(f"{name} ({found['problems'][name]})" for name in groups)]
    variants, differences = found["variants"], found["differences"]
    made = []
    for k in next(iter(variants.values()))[figures.ALL]:
        seeds = sorted({seed for values in variants.values() for seed in values[figures.ALL][k]["seeds"]}, key=int)
        rows = [[NAMES[v], *(_figure(values[group][k]) for group in groups)] for v, values in variants.items()]
        made.append((f"{k}, %, by number of conditional statements (problems)", heading, rows))
        rows = [
            [NAMES[v], *(_difference(values[g].get(k), variants[v][g][k], variants[BASELINE][g][k]) for g in groups)]
            for v, values in differences.items()
        ]
        of = "[over seeds] [over seeds and problems]" if len(seeds) > 1 else "[over problems]"
        made.append((f"{k}, points above {NAMES[BASELINE]}: mean {of}", heading, rows))
        rows = [[NAMES[v], *(_of_seed(found, v, k, seed) for seed in seeds)] for v in variants]
        made.append(
            (f"{k}, %, all problems, by seed (above {NAMES[BASELINE]})", ["", *(f"seed {one}" for one in seeds)], rows)
        )
    names = sorted({name for shares in found["outcomes"].values() for name in shares})
    rows = [
        [NAMES[variant], *(f"{100 * shares.get(name, 0):.1f}" for name in names)]
        for variant, shares in found["outcomes"].items()
    ]
    made.append(("outcomes, % of samples", ["", *names], rows))
    return made


def markdown(found: dict[str, Any]) -> str:
    """The tables, ready to be pasted."""
    n, of = len(found["complete_seeds"]), len(found["setting"]["seeds"])
    parts = [
        f"{n} of {of} seeds, {found['rollouts']} roll-outs a variant and seed, "
        f"{found['setting']['measured']['samples']} samples a held-out problem; intervals are 95 %.\n"
    ]
    for title, heading, rows in tables(found):
        lines = [f"**{title}**", "", "| " + " | ".join(heading) + " |", "| --- |" + " ---: |" * (len(heading) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def draw(folder: Path, found: dict[str, Any]) -> list[str]:
    """Writes `curves.png` and `pass_at_1.png`; returns their names.

    Raises:
        ImportError: there is no matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    traces = [("pass_rate", 5), (VALIDATION, 1), ("level_mean", 1), ("executed_fraction", 5), ("kl", 5), ("entropy", 5)]
    figure, axes = pyplot.subplots(2, 3, figsize=(15, 8))
    for (trace, width), axis in zip(traces, axes.flat, strict=True):
        for variant, lines in found["curves"].items():
            rows = lines[trace]
            x = [row["x"] for row in rows]
            axis.plot(x, smooth([row["mean"] for row in rows], width), color=COLOURS[variant], label=NAMES[variant])
            if rows and rows[0]["low"] is not None:
                low, high = (smooth([row[end] for row in rows], width) for end in ("low", "high"))
                axis.fill_between(x, low, high, color=COLOURS[variant], alpha=0.12, linewidth=0)
        axis.set_title(TITLES[trace], fontsize=10)
        axis.set_xlabel("roll-outs")
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    figure.tight_layout()
    figure.savefig(folder / "curves.png", dpi=110)
    pyplot.close(figure)
    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4))
    panels = (
        (axes[0], found["variants"], "pass@1, %"),
        (axes[1], found["differences"], f"points above {NAMES[BASELINE]}"),
    )
    for axis, side, title in panels:
        for place, (variant, values) in enumerate(side.items()):
            here = values[figures.ALL].get("pass@1")
            if here is None:
                continue
            half = 0.0 if here["low"] is None else 100 * (here["mean"] - here["low"])
            axis.errorbar(100 * here["mean"], -place, xerr=half, fmt="o", color=COLOURS[variant], capsize=4)
            seeds = [100 * value for value in here["seeds"].values()]
            axis.plot(seeds, [-place - 0.2] * len(seeds), "|", color=COLOURS[variant], alpha=0.6)
        axis.set_yticks([-place for place in range(len(side))], [NAMES[variant] for variant in side])
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3, axis="x")
    axes[1].axvline(0, color="#222222", linewidth=0.8)
    figure.tight_layout()
    figure.savefig(folder / "pass_at_1.png", dpi=110)
    pyplot.close(figure)
    return ["curves.png", "pass_at_1.png"]


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Centred moving mean; narrower at the ends."""
    half = width // 2
    spans = [values[max(0, index - half) : index + half + 1] for index in range(len(values))]
    return [sum(span) / len(span) for span in spans]


def _figure(here: dict[str, Any]) -> str:
    if math.isnan(here["mean"]):
        return "-"
    if here["low"] is None:
        return f"{100 * here['mean']:.1f}"
    return f"{100 * here['mean']:.1f} ± {100 * (here['mean'] - here['low']):.1f}"


def _difference(here: dict[str, Any] | None, *sides: dict[str, Any]) -> str:
    if here is None or all(side["mean"] == 0 for side in sides):  # An interval of nothing would claim certainty.
        return "-"
    text = f"{100 * here['mean']:+.1f}"
    for low, high in ((here["low"], here["high"]), (here["boot_low"], here["boot_high"])):
        if low is not None:
            text += f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return text


def _of_seed(found: dict[str, Any], variant: str, k: str, seed: str) -> str:
    level = found["variants"][variant][figures.ALL][k]["seeds"].get(seed)
    if level is None:
        return "-"
    change = found["differences"].get(variant, {}).get(figures.ALL, {}).get(k, {"seeds": {}})["seeds"].get(seed)
    return f"{100 * level:.1f}" + ("" if change is None else f" ({100 * change:+.1f})")
