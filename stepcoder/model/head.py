"""Log-probs and entropy through the LM head in chunks of rows: the logits of a whole batch never exist.

Where all rows fit into one chunk, their probabilities are kept for the backward pass. Where they do not, forward keeps
the hidden states and one number a row, and backward computes each chunk's logits again.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_BUFFERS = 2
"""Float buffers of `(chunk, vocabulary)` that are alive at the same time."""


class ScoringHead(nn.Module):
    """An LM head that gives log-probs of chosen tokens instead of logits; it shares the weights of the model's own.

    The weights are this module's own parameters too, so that ZeRO stage 3 gathers them when it is called.
    """

    def __init__(self, head: nn.Linear, chunk_mib: float) -> None:
        super().__init__()
        self.weight = head.weight
        self.bias: Tensor | None = head.bias
        self.chunk_mib = chunk_mib

    def forward(
        self,
        hidden: Float[Tensor, "tokens hidden"],
        targets: Int[Tensor, " tokens"],
        temperature: float,
        *,
        entropy: bool = False,
    ) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"] | None]:
        """Log-prob of each target and, if wanted, entropy of its distribution, in float32.

        Args:
            hidden: the state before each target.
            targets: token ids.
            temperature: logits are divided by it.
            entropy: whether it is wanted; it has no gradient.
        """
        rows = max(1, int(self.chunk_mib * 2**20 / (4 * _BUFFERS * self.weight.shape[0])))
        scored: tuple[Tensor, Tensor | None] = _Chunked.apply(  # type: ignore[no-untyped-call]
            hidden, self.weight, self.bias, targets, temperature, rows, entropy, torch.is_grad_enabled()
        )
        return scored


class _Chunked(torch.autograd.Function):
    """`log softmax(hidden @ weight^T / temperature)[target]`, and the entropy."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        rows: int,
        with_entropy: bool,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor | None]:
        chosen = torch.empty(len(hidden), device=hidden.device)
        normaliser = torch.empty_like(chosen)
        entropy = torch.empty_like(chosen) if with_entropy else None
        buffers = _Buffers(hidden, weight, rows)
        kept = None
        for part in _parts(len(hidden), rows):
            logits, powers = buffers.logits(hidden[part], weight, bias, temperature)
            torch.gather(logits, 1, targets[part].unsqueeze(1), out=chosen[part].unsqueeze(1))
            largest = logits.amax(1, keepdim=True)
            logits.sub_(largest)
            torch.exp(logits, out=powers)
            total = powers.sum(1)
            if entropy is not None:
                # H = log sum exp(l) - sum p l, with l relative to the largest.
                entropy[part] = total.log() - logits.mul_(powers).sum(1) / total
            normaliser[part] = total.log() + largest.squeeze(1)
            if with_gradient and len(hidden) <= rows:
                kept = powers.div_(total.unsqueeze(1))
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser, kept)
        ctx.temperature, ctx.rows = temperature, rows
        if entropy is not None:
            ctx.mark_non_differentiable(entropy)
        return chosen - normaliser, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, normaliser, kept = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        to_hidden = torch.empty_like(hidden) if needs_hidden else None
        # In float32, so that many chunks add up without rounding in between.
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        to_bias = torch.zeros_like(bias, dtype=torch.float32) if needs_bias else None
        buffers = _Buffers(hidden, weight, ctx.rows) if kept is None else None
        for part in _parts(len(hidden), ctx.rows):
            # d log p_y / d logits = onehot(y) - p, and the logits were divided by the temperature.
            scale = gradient[part].float().unsqueeze(1) / ctx.temperature
            if buffers is None:
                to_logits = kept * -scale
            else:
                logits, _ = buffers.logits(hidden[part], weight, bias, ctx.temperature)
                to_logits = logits.sub_(normaliser[part].unsqueeze(1)).exp_().mul_(-scale)
            to_logits.scatter_add_(1, targets[part].unsqueeze(1), scale)
            if to_bias is not None:
                to_bias += to_logits.sum(0)
            exact = to_logits.to(weight.dtype)
            if to_hidden is not None:
                torch.mm(exact, weight, out=to_hidden[part])
            if to_weight is not None and weight.dtype == torch.float32:
                to_weight.addmm_(exact.T, hidden[part])
            elif to_weight is not None:
                to_weight += exact.T @ hidden[part]
        to_weight = None if to_weight is None else to_weight.to(weight.dtype)
        return to_hidden, to_weight, None if to_bias is None else to_bias.to(bias.dtype), *[None] * 5


class _Buffers:
    """The memory of one pass over all chunks."""

    def __init__(self, hidden: Tensor, weight: Tensor, rows: int) -> None:
        shape = (min(rows, len(hidden)), weight.shape[0])
        self.first = torch.empty(shape, device=hidden.device)
        self.second = torch.empty(shape, device=hidden.device)

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
        """The logits of some rows in float32, divided by the temperature, and a second buffer of their shape."""
        logits, other = self.first[: len(hidden)], self.second[: len(hidden)]
        if weight.dtype == torch.float32:
            torch.addmm(logits, hidden, weight.T, beta=0, alpha=1 / temperature, out=logits)
        elif hidden.is_cuda:
            # Unrounded: between 16 and 32 two neighbours in bf16 differ by 0.125, and ratios of 1 would not be 1.
            torch.mm(hidden, weight.T, out_dtype=torch.float32, out=logits).div_(temperature)
        else:
            logits.copy_(hidden @ weight.T).div_(temperature)
        if bias is not None:
            logits.add_(bias, alpha=1 / temperature)
        return logits, other


def _parts(count: int, rows: int) -> list[slice]:
    return [slice(begin, begin + rows) for begin in range(0, count, rows)]
