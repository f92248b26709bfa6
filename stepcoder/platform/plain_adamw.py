"""AdamW for a training without ZeRO, which gets no optimiser of DeepSpeed's around it."""

from __future__ import annotations

import math

import torch


class PlainAdamW(torch.optim.AdamW):
    """AdamW without ZeRO, that clips, and skips a gradient that is not finite, as DeepSpeed's own optimisers do.

    Every rank has the same gradient when `step` is called, so no rank has to ask another.
    """

    max_norm = math.inf
    overflow = False
    """What DeepSpeed asks for to count a skipped step and to hold the schedule."""
    _global_grad_norm = 0.0
    """What DeepSpeed tells as the gradient's norm."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; none where the gradient is not finite."""
        weights = [weight for group in self.param_groups for weight in group["params"] if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in weights])
        self._global_grad_norm = norm.item()
        self.overflow = not math.isfinite(self._global_grad_norm)
        if not self.overflow:
            torch.nn.utils.clip_grads_with_norm_(weights, self.max_norm, norm)
            super().step(closure)
