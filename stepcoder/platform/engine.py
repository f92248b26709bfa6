"""DeepSpeed as the training engine: one optimiser step over any number of micro-batches, on any number of ranks.

Losses that come here are sums already divided by the tokens of the whole optimiser step on all ranks, so the engine's
own averaging over accumulation steps and ranks is undone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stepcoder.errors import StepCoderError

Schedule = Callable[[int], float]
"""Optimiser step (from 0) to a factor on the learning rate."""


def start() -> None:
    """Joins the process group; a process that nobody launched as a rank becomes the only one."""
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "0" if os.environ["WORLD_SIZE"] == "1" else "29500")
    # Its shared-memory all-reduce is compiled at start (a minute, needs a compiler) and gains nothing here.
    __compatible_ops__["deepspeed_shm_comm"] = False
    if not torch.distributed.is_initialized():
        deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)


def warm_up_then_linear(warm_up: int, total: int) -> Schedule:
    """Linear from 0 over `warm_up` steps, then linear to zero at `total`."""
    return lambda step: min((step + 1) / max(1, warm_up), max(0.0, (total - step) / max(1, total - warm_up)), 1.0)


def warm_up_then_inverse_root(warm_up: int) -> Schedule:
    """Linear over `warm_up` steps, then `sqrt(warm_up / step)`."""
    return lambda step: min((step + 1) / max(1, warm_up), math.sqrt(max(1, warm_up) / (step + 1)))


@contextmanager
def whole(network: nn.Module) -> Iterator[None]:
    """Inside, every weight of a network is whole: ZeRO stage 3 otherwise leaves pieces that must not be saved."""
    pieces = [weight for weight in network.parameters() if hasattr(weight, "ds_id")]
    if not pieces:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(pieces):
        yield


class Engine:
    """A network, its optimiser and its schedule."""

    def __init__(
        self,
        network: nn.Module,
        *,
        learning_rate: float,
        schedule: Schedule,
        epsilon: float,
        zero_stage: int,
        precision: Literal["fp32", "bf16"],
        max_gradient_norm: float,
        weight_decay: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        import deepspeed

        if gradient_checkpointing:
            network.gradient_checkpointing_enable()  # type: ignore[operator]
        network.train()
        # A plain torch optimiser does the step then, and the engine does not tell the gradient's norm.
        self._plain = zero_stage == 0 and precision == "fp32"
        # torch's own AdamW: DeepSpeed's is compiled at start, which needs a compiler and a minute.
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=learning_rate, betas=(0.9, 0.95), eps=epsilon, weight_decay=weight_decay
        )
        self.engine: Any
        self.engine, *_ = deepspeed.initialize(
            model=network,
            optimizer=optimiser,
            lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimiser, schedule),
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": max_gradient_norm,
                "zero_optimization": {"stage": zero_stage},
                "zero_allow_untested_optimizer": True,
                "bf16": {"enabled": precision == "bf16"},
                "steps_per_print": 10**9,
            },
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's forward pass, through the engine's hooks."""
        return self.engine(*args, **kwargs)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next optimiser step."""
        return float(self.engine.get_lr()[0])

    def step(self, losses: Sequence[Callable[[], Tensor]]) -> float:
        """One optimiser step over micro-batches.

        Args:
            losses: for each micro-batch a function that computes its share of the step's loss: the sum over its tokens
                divided by the tokens of the whole step on all ranks. All ranks give the same number of functions.

        Returns:
            The gradient's norm before clipping, over all ranks.

        Raises:
            StepCoderError: the norm is infinite or not a number; what comes after could only be noise.
        """
        for position, loss in enumerate(losses):
            self.engine.set_gradient_accumulation_boundary(position == len(losses) - 1)
            # Ranks are averaged by the engine, and the shares have to be summed.
            self.engine.backward(loss() * self.engine.world_size, scale_wrt_gas=False)
        if self._plain:
            gradients = [weight.grad for weight in self.engine.module.parameters() if weight.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients).item()
            self.engine.step()
        else:
            self.engine.step()
            norm = self.engine.get_global_grad_norm()
        if norm is None or not math.isfinite(norm):
            raise StepCoderError(f"training diverged: the gradient's norm is {norm}; lower the learning rate")
        return float(norm)

    def save(self, folder: Path, name: str) -> None:
        """Writes weights, optimiser and schedule below `folder / name`."""
        self.engine.save_checkpoint(str(folder), tag=name, save_latest=False)

    def load(self, folder: Path, name: str) -> None:
        """Reads what `save` wrote.

        Raises:
            StepCoderError: the optimiser or the schedule cannot be restored; a fresh start would be a silent loss.
        """
        try:
            found, _ = self.engine.load_checkpoint(str(folder), tag=name)
        except Exception as error:  # What torch raises for a damaged file depends on where the damage is.
            what = f"{type(error).__name__}: {error}"
            raise StepCoderError(
                f"{folder}: the checkpoint is damaged ({what}); remove it to go on without it"
            ) from error
        if found is None:
            raise StepCoderError(f"{folder / name}: the checkpoint lacks the optimiser's or the schedule's state")
