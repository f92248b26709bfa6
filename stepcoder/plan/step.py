"""The step: from a model and a device to a table or JSON, or to a refusal that says what to change."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rich.console import Console
from rich.table import Table

from stepcoder.errors import DataError
from stepcoder.plan.config import PlanConfig
from stepcoder.plan.devices import GIB, Device, device_of
from stepcoder.plan.memory import Memory, memory, networks
from stepcoder.plan.shape import Shape, shape_of
from stepcoder.plan.speed import ASSUMED, Speed, speed

MOST_GPUS = 8
"""Most ranks that a refusal proposes: they are all in one machine."""
SHOWN = 4
"""Largest items, and changes that help, in a refusal."""
_PLAIN_WIDTH = 100


@dataclass(frozen=True)
class Plan:
    """What one training needs. Memory is in bytes on one rank, time in seconds."""

    config: PlanConfig
    shape: Shape
    device: Device
    memory: Memory
    speed: Speed

    def as_dict(self) -> dict[str, Any]:
        """For programs: every figure of the table with its items, the settings, and the assumptions."""
        config, need, pace = self.config, self.memory, self.speed
        return {
            "fits": need.fits,
            "settings": config.model_dump(mode="json"),
            "model": {
                **dataclasses.asdict(self.shape),
                "networks": [dataclasses.asdict(network) for network in networks(self.shape, config)],
            },
            "device": dataclasses.asdict(self.device),
            "memory_bytes_a_rank": {
                "usable": need.capacity,
                "peak": need.peak,
                "peak_phase": need.peak_phase,
                "resident": dict(need.resident),
                "phases": {name: dict(items) for name, items in need.phases.items()},
                "host": dict(need.host),
            },
            "step": {
                "sequences": pace.sequences,
                "tokens": pace.tokens,
                "seconds": dict(pace.seconds),
                "seconds_in_all": pace.total,
                "sequences_a_second": pace.sequences / pace.total,
                "tokens_a_second": pace.tokens / pace.total,
            },
            "hours": config.steps * pace.total / 3600,
            "assumed": dataclasses.asdict(ASSUMED),
            "measured_on_a_gpu": False,
        }


def estimate(config: PlanConfig, shape: Shape | None = None) -> Plan:
    """Memory and time from the formulas, whether it fits or not.

    Args:
        config: settings.
        shape: the model, where it is known already.

    Raises:
        DataError: the model's configuration cannot be read, or it has fewer positions than the longest sequence.
    """
    shape = shape or shape_of(config.model)
    if shape.positions is not None and config.longest > shape.positions:
        raise DataError(
            f"{config.model}: the model has {shape.positions} positions, and max_prompt_tokens and max_new_tokens "
            f"together are {config.longest}; lower them"
        )
    device = device_of(config)
    return Plan(config, shape, device, memory(shape, config, device), speed(shape, config, device))


def plan(config: PlanConfig) -> None:
    """Prints what a training needs to standard output, as a table or as JSON.

    Both are printed also where the training cannot fit; JSON then has `fits: false`. The reason goes to stderr.

    Raises:
        DataError: a rank needs more than its device has. The message has the largest items, and changes that would fit.
    """
    result = estimate(config)
    if config.output == "json":
        print(json.dumps(result.as_dict(), indent=1))
    else:
        _print(result)
    sys.stdout.flush()
    if not result.memory.fits:
        raise DataError(refusal(result))


def refusal(result: Plan) -> str:
    """Why a training cannot fit, its largest items, and what to change."""
    need, config = result.memory, result.config
    lines = [
        f"{config.model} does not fit: a rank needs {_gib(need.peak)} GiB in the phase `{need.peak_phase}`, and "
        f"{config.gpu} has {_gib(need.capacity)} GiB that can be used",
        "largest: " + ", ".join(f"{name} {_gib(size)} GiB" for name, size in need.largest[:SHOWN]),
    ]
    found: list[dict[str, Any]] = []
    for change in _changes(config):
        # What fits already does not become better by another change.
        if len(found) == SHOWN or any(_covers(smaller, change) for smaller in found):
            continue
        other = estimate(config.model_copy(update=change), result.shape).memory
        if other.fits:
            found.append(change)
            lines.append(f"would fit: {_told(change)}: {_gib(other.peak)} GiB a rank")
    if not found:
        lines.append(f"none of the changes tried fits, up to {MOST_GPUS} GPUs; take a larger device or a smaller model")
    return "\n".join(lines)


def _changes(config: PlanConfig) -> Iterator[dict[str, Any]]:
    """Changes to try: one by one from those that cost nothing to those that change the training, then in pairs."""
    single: list[dict[str, Any]] = []
    if not config.gradient_checkpointing:
        single.append({"gradient_checkpointing": True})
    for name, least in (("micro_batch_tokens", config.longest), ("sampling_batch", 1)):
        value = getattr(config, name)
        single += [{name: lower} for lower in (value // 2, value // 4) if lower >= least]
    single += [{"zero_stage": stage} for stage in (2, 3) if stage > config.stage]
    counts = [config.nproc_per_node * 2**power for power in (1, 2, 3) if config.nproc_per_node * 2**power <= MOST_GPUS]
    single += [{"nproc_per_node": count} for count in counts]
    if not config.offload:
        single.append({"offload": True})
    if not config.lora_rank:
        single.append({"lora_rank": 16})
    yield from single
    for first, second in combinations(single, 2):
        if not first.keys() & second.keys():
            yield first | second
    smaller = {"zero_stage": 3, "sampling_batch": max(1, config.sampling_batch // 16)}
    for more in ({"offload": True}, {"lora_rank": config.lora_rank or 16}, {"offload": True, "lora_rank": 16}):
        yield smaller | more
        yield from (smaller | more | {"nproc_per_node": count} for count in counts)


def _covers(smaller: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    """Whether a change does all that a smaller one does, on as many GPUs or more."""
    if change.get("nproc_per_node", 0) < smaller.get("nproc_per_node", 0):
        return False
    return all(name == "nproc_per_node" or change.get(name) == value for name, value in smaller.items())


def _told(change: Mapping[str, Any]) -> str:
    return " and ".join(f"--{name.replace('_', '-')} {value}" for name, value in change.items())


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"


def _print(result: Plan) -> None:
    """The table; colours where a person watches."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    config, shape, need, pace = result.config, result.shape, result.memory, result.speed
    console.print(
        f"{config.phase} of {config.model}: {shape.parameters / 1e9:.2f} B parameters ({shape.architecture}), "
        + ", ".join(f"{n.name} trains {n.trained / 1e9:.3f} B" for n in networks(shape, config))
    )
    console.print(
        f"{config.nproc_per_node} × {config.gpu}, {config.precision}, zero_stage {config.zero_stage}"
        + (f" (inside {config.stage})" if config.stage != config.zero_stage else "")
        + (", gradient checkpointing" if config.gradient_checkpointing else "")
        + (", offload" if config.offloads else "")
        + (f", lora_rank {config.lora_rank}" if config.lora_rank else "")
    )
    table = Table(title="memory of a rank, GiB", title_justify="left", box=None, pad_edge=False)
    table.add_column("phase", no_wrap=True)
    table.add_column("item", no_wrap=True)
    table.add_column("GiB", justify="right")
    _rows(table, "in all phases", need.resident)
    for phase, items in need.phases.items():
        _rows(table, phase, items)
    mark = "green" if need.fits else "red"
    table.add_section()
    verdict = f"[{mark}]{'fits' if need.fits else 'does not fit'}[/]"
    table.add_row("peak", f"{need.peak_phase}; {verdict} in {_gib(need.capacity)}", _gib(need.peak))
    if need.host:
        table.add_row("host memory", "optimiser state", _gib(sum(need.host.values())))
    console.print(table, width=min(console.width, _PLAIN_WIDTH))
    unit = "roll-outs" if config.phase == "ppo" else "examples"
    table = Table(title="time of a step, estimated", title_justify="left", box=None, pad_edge=False)
    table.add_column("phase", no_wrap=True)
    table.add_column("seconds", justify="right")
    for phase, seconds in pace.seconds.items():
        table.add_row(phase, f"{seconds:.1f}")
    table.add_row("step", f"{pace.total:.1f}")
    console.print(table)
    console.print(
        f"{pace.sequences:,} {unit} and {pace.tokens:,} tokens (each with its prompt) a step; "
        f"{pace.sequences / pace.total:.2f} {unit}/s, {pace.tokens / pace.total:,.0f} tokens/s; "
        f"{config.steps} steps: {config.steps * pace.total / 3600:.1f} hours"
    )
    console.print("Times are from assumed shares of the device's peaks, not measured; judging is not in them.")


def _rows(table: Table, phase: str, items: Mapping[str, int]) -> None:
    for position, (name, size) in enumerate(items.items()):
        table.add_row(phase if not position else "", name, _gib(size))
