"""DeepSpeed as the training engine: one optimiser step over any number of micro-batches, on any number of ranks.

Losses that come here are sums already divided by the tokens of the whole optimiser step on all ranks, so the engine's
own averaging over accumulation steps and ranks is undone. A step whose gradient is not finite, on whatever rank, is
skipped on all of them: ZeRO finds out by the norm over all ranks, which it needs anyway.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from stepcoder.errors import StepCoderError
from stepcoder.platform import ranks
from stepcoder.platform.logs import get_logger
from stepcoder.platform.plain_adamw import PlainAdamW
from stepcoder.platform.universal import as_universal

MOST_SKIPPED = 20
"""Optimiser steps in a row that may be skipped before training counts as diverged."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""`mallopt`'s names for them, from malloc.h."""

log = get_logger("engine")

Schedule = Callable[[int], float]
"""Optimiser step (from 0) to a factor on the learning rate."""


def start(timeout: float = ranks.WATCH_SECONDS) -> None:
    """Joins the process group; a process that nobody launched as a rank becomes the only one.

    Args:
        timeout: seconds that a rank may stay where `ranks.at` last saw it before the watchdog ends the training.
    """
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    _keep_freed_memory()
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "0" if os.environ["WORLD_SIZE"] == "1" else "29500")
    # Its shared-memory all-reduce is compiled at start (a minute, needs a compiler) and gains nothing here.
    __compatible_ops__["deepspeed_shm_comm"] = False
    # Every rank would tell of every detail; what matters of it is told here.
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    if not torch.distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        deepspeed.init_distributed(dist_backend=backend, timeout=ranks.patience(timeout), verbose=False)
    if ranks.count() > 1 and torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank())
    ranks.start(timeout)


def _keep_freed_memory() -> None:
    """Lets the C library keep what tensors give back, for the next ones.

    It would return every large block to the kernel at once, and each page of the next block is then a fault: a sixth
    of the time of a small model's step on a CPU.
    """
    if torch.cuda.is_available():
        return
    with contextlib.suppress(OSError, AttributeError):  # Another C library than glibc.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def warm_up_then_linear(warm_up: int, total: int) -> Schedule:
    """Linear from 0 over `warm_up` steps, then linear to zero at `total`."""
    return lambda step: min((step + 1) / max(1, warm_up), max(0.0, (total - step) / max(1, total - warm_up)), 1.0)


def warm_up_then_inverse_root(warm_up: int) -> Schedule:
    """Linear over `warm_up` steps, then `sqrt(warm_up / step)`."""
    return lambda step: min((step + 1) / max(1, warm_up), math.sqrt(max(1, warm_up) / (step + 1)))


@contextmanager
def whole(network: nn.Module) -> Iterator[None]:
    """Inside, every weight of a network is whole: ZeRO stage 3 otherwise leaves pieces that must not be saved.

    All ranks enter it together, and leave it together.
    """
    pieces: list[Any] = [weight for weight in network.parameters() if hasattr(weight, "ds_id")]
    # Nested in itself it does nothing: DeepSpeed does not gather what is gathered.
    if not pieces or all(weight.ds_status.name == "AVAILABLE" for weight in pieces):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(pieces):
        yield


class Step(NamedTuple):
    """What came of one optimiser step."""

    norm: float
    """The gradient's norm before clipping, over all ranks; not finite when the step was skipped."""
    skipped: bool


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
        offload: bool = False,
    ) -> None:
        """Takes a network over; from here on its weights are this engine's.

        Args:
            network: its parameters are trained, but for those that need no gradient.
            learning_rate: before the schedule.
            schedule: factor on the learning rate by optimiser step.
            epsilon: Adam's.
            zero_stage: what is spread over the ranks: 0 nothing, 1 the optimiser's state, 2 gradients too, 3 weights
                too.
            precision: of the weights; with bf16 the optimiser keeps them in float32 too, and sums the gradients of
                micro-batches so. Those of ranks are summed in bf16.
            max_gradient_norm: larger gradients are scaled down to it.
            weight_decay: AdamW's.
            gradient_checkpointing: recompute activations in the backward pass.
            offload: keep the optimiser's state, and in stage 3 the weights, in the machine's memory rather than the
                accelerator's, which is stage 1 at least; without an accelerator it gains nothing.
        """
        import deepspeed

        if gradient_checkpointing:
            network.gradient_checkpointing_enable()  # type: ignore[operator]
        network.train()
        # Float32 sums of bf16 gradients begin with stage 1, and without pages of memory statistics with stage 2.
        stage = max(zero_stage, 2 if precision == "bf16" else int(offload))
        kind = PlainAdamW if stage == 0 else torch.optim.AdamW
        # torch's own AdamW: DeepSpeed's is compiled at start, which needs a compiler and a minute.
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        optimiser = kind(
            trained, lr=learning_rate, betas=(0.9, 0.95), eps=epsilon, weight_decay=weight_decay, fused=True
        )
        if isinstance(optimiser, PlainAdamW):
            optimiser.max_norm = max_gradient_norm
        self._skipped_in_a_row = 0
        self._stage = stage
        self.engine: Any
        self.engine, *_ = deepspeed.initialize(
            model=network,
            optimizer=optimiser,
            lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimiser, schedule),
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": max_gradient_norm if stage else 0.0,
                "zero_optimization": _zero(stage, offload),
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
                "bf16": {"enabled": precision == "bf16", "check_grad_overflow": True},
                "data_types": {"grad_accum_dtype": "fp32"},
                "steps_per_print": 10**9,
            },
        )
        if stage == 0 and ranks.count() == 1:
            self.engine.enable_backward_allreduce = False  # It would copy all gradients to itself.
        self._begin_state(optimiser)

    def _begin_state(self, optimiser: torch.optim.Optimizer) -> None:
        """Gives Adam its moments before the first step: a checkpoint without them loads with no other number of ranks.

        A critic's warm-up writes such checkpoints of the policy.
        """
        if self._stage == 3:
            weights = self.engine.optimizer.fp32_partitioned_groups_flat
        else:
            weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        for weight in weights:
            moments = {key: torch.zeros_like(weight) for key in ("exp_avg", "exp_avg_sq")}
            optimiser.state[weight] = {"step": torch.zeros((), device=weight.device), **moments}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's forward pass, through the engine's hooks."""
        return self.engine(*args, **kwargs)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next optimiser step."""
        return float(self.engine.get_lr()[0])

    def step(self, losses: Sequence[Callable[[], Tensor]]) -> Step:
        """One optimiser step over micro-batches.

        Args:
            losses: for each micro-batch a function that computes its share of the step's loss: the sum over its tokens
                divided by the tokens of the whole step on all ranks. All ranks give the same number of functions.

        Raises:
            StepCoderError: too many steps in a row were skipped because the gradient was infinite or not a number.
        """
        for position, loss in enumerate(losses):
            ranks.detail(f"micro-batch {position + 1} of {len(losses)}")
            self.engine.set_gradient_accumulation_boundary(position == len(losses) - 1)
            # Ranks are averaged by the engine, and the shares have to be summed.
            self.engine.backward(loss() * self.engine.world_size, scale_wrt_gas=False)
        ranks.detail("optimiser step")
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm())
        skipped = not self.engine.was_step_applied()
        if not skipped:
            self._skipped_in_a_row = 0
            return Step(norm, skipped)
        self._skipped_in_a_row += 1
        log.warning("optimiser step skipped", gradient_norm=norm, in_a_row=self._skipped_in_a_row)
        if self._skipped_in_a_row >= MOST_SKIPPED:
            raise StepCoderError(
                f"training diverged: the gradient was not finite in {MOST_SKIPPED} optimiser steps in a row; lower the "
                "learning rate"
            )
        return Step(norm, skipped)

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Inside, each rank may call the network itself as often as it likes, whatever the ZeRO stage.

        In stage 3 every forward pass is otherwise a meeting of all ranks, in which weights are gathered layer by
        layer; here they are gathered once and DeepSpeed's hooks are off. All ranks enter it together, and leave it
        together; no optimiser step inside.
        """
        if self._stage < 3:
            yield
            return
        from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

        offload = self.engine.optimizer.parameter_offload
        # A forward pass without gradient leaves weights marked as in use.
        offload.partition_all_parameters()
        with whole(self.engine.module):
            offload._remove_module_hooks()
            offload.forward_hooks, offload.backward_hooks = [], []
            try:
                yield
            finally:
                offload.setup_zero_stage3_hooks()
                FWD_MODULE_STACK.pop()  # It is there from the first time.

    def save(self, folder: Path, name: str) -> None:
        """Writes weights, optimiser and schedule below `folder / name`; all ranks call it, each writes its part."""
        # The state that lets another number of ranks load it: see `universal.py`.
        client_state: dict[str, Any] = {"universal_checkpoint_info": {}}
        self.engine.save_checkpoint(str(folder), tag=name, save_latest=False, client_state=client_state)

    def load(self, folder: Path, name: str) -> None:
        """Reads what `save` wrote, with this or another number of ranks; all ranks call it.

        Raises:
            StepCoderError: the optimiser or the schedule cannot be restored; a fresh start would be a silent loss.
        """
        parts = len(list((folder / name).glob("*_optim_states.pt")))
        with ExitStack() as stack:
            try:
                if parts not in (0, ranks.count()):
                    log.info("checkpoint is converted", ranks=parts, to=ranks.count())
                    folder = stack.enter_context(as_universal(folder, name))
                    self.engine._config.load_universal_checkpoint = True
                found, _ = self.engine.load_checkpoint(str(folder), tag=name)
                # A universal checkpoint gives all parts one and the same counter, which each part would count up, and
                # in the machine's memory, where the optimiser does not look for it.
                for weight, moments in self.engine.basic_optimizer.state.items():
                    moments["step"] = moments["step"].to(weight.device, copy=True)
            except Exception as error:  # What torch raises for a damaged file depends on where the damage is.
                what = f"{type(error).__name__}: {error}"
                raise StepCoderError(
                    f"{folder}: the checkpoint is damaged ({what}); remove it to go on without it"
                ) from error
            finally:
                self.engine._config.load_universal_checkpoint = False
        if found is None:
            raise StepCoderError(f"{folder / name}: the checkpoint lacks the optimiser's or the schedule's state")


def _zero(stage: int, offload: bool) -> dict[str, Any]:
    to_memory = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    settings: dict[str, Any] = {"stage": stage}
    if offload:
        settings["offload_optimizer"] = to_memory
        if stage == 3:
            settings["offload_param"] = to_memory
    return settings
