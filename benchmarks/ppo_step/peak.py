"""The core's matrix peak, and the floating-point operations of an update."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from benchmarks.ppo_step.settings import Setting

if TYPE_CHECKING:
    from torch import Tensor

FORMULA = (
    "epochs * sum over sequences of [ 2 networks * 6 * (4 h^2 + 3 h i) * layers * tokens"
    " + 2 networks * 6 * h * layers * (prompt + response)^2 + 6 * h * vocabulary * response ]:"
    " matrices, causal attention, LM head of the policy; 2 operations a multiply-add, backward twice forward."
    " tokens are prompt + response for TRL; for us a prompt's tokens count once for all of its samples, since they are"
    " computed once. Padding, and head rows that nothing is scored by, are no useful work and do not count"
)


def update_flops(setting: Setting, lengths: Sequence[int], *, shared: bool) -> float:
    """Useful operations of one update; see `FORMULA`.

    Args:
        setting: shapes.
        lengths: tokens of each response.
        shared: whether the samples of a prompt share its tokens.
    """
    hidden, layers = setting.hidden, setting.layers
    matrices = (4 * hidden**2 + 3 * hidden * setting.intermediate) * layers
    prompts = setting.prompts if shared else setting.batch
    tokens = prompts * setting.prompt_tokens + sum(lengths)
    total = 2 * 6.0 * matrices * tokens
    total += prompts * 2 * 6 * hidden * layers * setting.prompt_tokens**2
    for response in lengths:
        seen = (setting.prompt_tokens + response) ** 2 - setting.prompt_tokens**2
        total += 2 * 6 * hidden * layers * seen + 6 * hidden * setting.vocabulary * response
    return setting.epochs * total


def matrix_rates(setting: Setting) -> dict[str, float]:
    """GFLOP/s of single-precision products on this thread; the largest of them is the core's measured peak.

    Large squares by torch's default library and by oneDNN, which differ by processor, and the model's own shapes.
    """
    import torch

    def rate(rows: int, inner: int, columns: int, product: Callable[[Tensor, Tensor], Tensor]) -> float:
        a, b = torch.randn(rows, inner), torch.randn(columns, inner)
        product(a, b)
        work = 2 * rows * inner * columns
        times = max(1, round(1e9 / work))
        best = float("inf")
        for _ in range(4):
            begin = time.process_time()
            for _ in range(times):
                product(a, b)
            best = min(best, (time.process_time() - begin) / times)
        return work / best / 1e9

    def onednn(a: Tensor, b: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        return found

    tokens, hidden, linear = setting.micro_batch_tokens, setting.hidden, torch.nn.functional.linear
    rates = {
        "square_1024": rate(1024, 1024, 1024, linear),
        "attention": rate(tokens, hidden, hidden, linear),
        "up": rate(tokens, hidden, setting.intermediate, linear),
        "down": rate(tokens, setting.intermediate, hidden, linear),
        "head": rate(tokens // 2, hidden, setting.vocabulary, linear),
    }
    if torch.backends.mkldnn.is_available():
        rates["square_1024_onednn"] = rate(1024, 1024, 1024, onednn)
    return rates
