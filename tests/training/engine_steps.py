"""What `test_engine` lets one rank and two ranks do alike; the results are compared there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from torch import Tensor, nn

from stepcoder.platform import engine, ranks
from tests.training.rank_steps import Config

__all__ = ["Config"]

INPUTS = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
INTEGERS = torch.randint(-9, 10, (8, 5), generator=torch.Generator().manual_seed(2)).float()
WEIGHTS = torch.tensor([3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, -6.0])
"""A linear loss `sum_i WEIGHTS_i * (w . x_i) / 8` has the gradient `WEIGHTS @ INTEGERS / 8` whatever `w` is.

DeepSpeed reduces no float64; sums of whole numbers are exact in float32, in whatever order.
"""

SPLITS = {1: ([8], [1, 7], [4, 4], [2, 3, 3]), 2: ([4], [1, 3], [2, 2], [1, 1, 2])}
"""Sizes of the micro-batches of each rank, by the number of ranks; a rank's rows are every second one."""


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(5, 1, bias=False)


def curved() -> nn.Module:
    """Parameters whose sizes no number of ranks divides; one weight serves twice, as tied embeddings do."""
    torch.manual_seed(0)
    first, again = nn.Linear(5, 5), nn.Linear(5, 5)
    again.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), again, nn.Tanh(), nn.Linear(5, 1))


def made(network: nn.Module, stage: int, precision: Literal["fp32", "bf16"] = "fp32", **more: Any) -> engine.Engine:
    settings: dict[str, Any] = {"learning_rate": 1e-2, "max_gradient_norm": 1e9, "epsilon": 1e-8, **more}
    schedule = engine.warm_up_then_linear(2, 12)
    return engine.Engine(network, schedule=schedule, zero_stage=stage, precision=precision, **settings)


def mine() -> Tensor:
    """The numbers of this rank's rows."""
    return torch.arange(8)[ranks.rank() :: ranks.count()]


def linear_losses(running: engine.Engine, split: Sequence[int]) -> list[Callable[[], Tensor]]:
    def loss(rows: Tensor) -> Tensor:
        return (running(INTEGERS[rows]).squeeze(-1) * WEIGHTS[rows]).sum() / 8

    return [lambda rows=rows: loss(rows) for rows in mine().split(list(split))]  # type: ignore[misc]


def curved_losses(running: engine.Engine, split: Sequence[int], factor: float = 1.0) -> list[Callable[[], Tensor]]:
    """The mean square over all rows; `factor` spoils the first micro-batch of the last rank."""

    def loss(rows: Tensor, first: bool) -> Tensor:
        value = (running(INPUTS[rows].to(dtype_of(running))) ** 2).float().sum() / 8
        return value * factor if first and ranks.rank() == ranks.count() - 1 else value

    return [
        lambda rows=rows, first=number == 0: loss(rows, first)  # type: ignore[misc]
        for number, rows in enumerate(mine().split(list(split)))
    ]


def dtype_of(running: engine.Engine) -> torch.dtype:
    return next(running.engine.module.parameters()).dtype


def state(running: engine.Engine) -> dict[str, Tensor]:
    """Whole weights, in the optimiser's precision, and Adam's moments."""
    found: dict[str, Tensor] = {}
    for name, weight in running.engine.module.named_parameters():
        if isinstance(running.engine.optimizer, torch.optim.AdamW):
            kept = running.engine.optimizer.state[weight]
            values = [weight, kept["exp_avg"], kept["exp_avg_sq"]]
        else:
            moments = [safe_get_full_optimizer_state(weight, key) for key in ("exp_avg", "exp_avg_sq")]
            values = [safe_get_full_fp32_param(weight), *moments]
        for kind, value in zip(("weight", "exp_avg", "exp_avg_sq"), values, strict=True):
            found[f"{name}.{kind}"] = (
                value.detach().reshape(weight.ds_shape if hasattr(weight, "ds_id") else weight.shape).clone()
            )
    return found


def first_step(stage: int, split: Sequence[int], clip: float) -> tuple[float, Tensor]:
    """The norm that is told, and the gradient that the optimiser got: Adam's first moment after one step is a tenth."""
    running = made(linear(), stage, max_gradient_norm=clip)
    norm = running.step(linear_losses(running, split)).norm
    return norm, state(running)["weight.exp_avg"].flatten() * 10


def curve(running: engine.Engine, steps: int) -> dict[str, Tensor]:
    """State after some steps, each split in another way."""
    splits = SPLITS[ranks.count()]
    for step in range(steps):
        assert not running.step(curved_losses(running, splits[step % len(splits)])).skipped
    return state(running)


def skipped_steps(stage: int, precision: Literal["fp32", "bf16"], factor: float) -> dict[str, Any]:
    """What a spoilt micro-batch on one rank leaves behind."""
    running = made(curved(), stage, precision)
    before = curve(running, 2)
    rate = running.learning_rate
    first = running.step(curved_losses(running, SPLITS[ranks.count()][1], factor))
    after = state(running)
    kept = all(torch.equal(before[name], after[name]) for name in before)
    rate_kept = running.learning_rate == rate
    second = running.step(curved_losses(running, SPLITS[ranks.count()][1]))
    return {"first": first, "second": second, "kept": kept, "rate_kept": rate_kept}


def generated(stage: int, *, offload: bool) -> dict[str, Any]:
    """Forward passes of the network itself, on each rank another number of them, between two steps."""
    network = curved()
    running = made(network, stage, offload=offload)
    curve(running, 1)
    with running.generating(), torch.no_grad():
        inside = [network(INPUTS) for _ in range(1 + 2 * ranks.rank())][-1]
        with engine.whole(network):
            shapes = [tuple(weight.shape) for weight in network.parameters()]
    with torch.no_grad():
        through = running(INPUTS)
    return {"same": torch.allclose(inside, through), "shapes": shapes, "after": curve(running, 2)}


def all_cases(config: Config) -> None:
    """Everything that does not depend on what the other number of ranks wrote, and loading what it did write."""
    engine.start()
    out, here = Path(config.out), ranks.count()
    found: dict[Any, Any] = {}
    for stage in range(4):
        for clip in (1e9, 0.1):
            for split in SPLITS[here]:
                found["linear", stage, clip, tuple(split)] = first_step(stage, split, clip)
        for precision, factor in (("fp32", float("nan")), ("bf16", float("inf"))):
            found["skip", stage, precision] = skipped_steps(stage, precision, factor)  # type: ignore[arg-type]
        for offload in (False, True):
            found["generated", stage, offload] = generated(stage, offload=offload)
        for precision in ("fp32", "bf16"):
            running = made(curved(), stage, precision)  # type: ignore[arg-type]
            running.save(out / f"{here}", f"{stage}-{precision}-unborn")
            curve(running, 3)
            running.save(out / f"{here}", f"{stage}-{precision}")
            found["curve", stage, precision] = curve(running, 3), running.learning_rate
            for count in (1, 2):
                if (out / f"{count}").exists():
                    found["resumed", stage, precision, count] = resumed(out / f"{count}", stage, precision)
    if ranks.is_main():
        torch.save(found, out / f"found-{here}.pt")


def resumed(folder: Path, stage: int, precision: Any) -> Any:
    """Three more steps after a resume; and whether a checkpoint from before the first step can be resumed too."""
    loaded = made(curved(), stage, precision)
    loaded.load(folder, f"{stage}-{precision}")
    rest = curve(loaded, 3), loaded.learning_rate
    unborn = made(curved(), stage, precision)
    unborn.load(folder, f"{stage}-{precision}-unborn")
    curve(unborn, 3)
    return *rest, curve(unborn, 3)
