"""The chunked LM head against the plain formula: time and peak memory of forward and backward. JSON comes out.

python -m benchmarks.chunked_head [--rounds 15] [--out FILE]

Both give log-probs, entropy, and the gradients of hidden states and weights; they step in turns in one process and one
thread. Ratios are ours over plain, medians over rounds. Peaks are the process's own, over what it held before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from benchmarks.ppo_step.worker import memory
from stepcoder.model.head import ScoringHead

TEMPERATURE = 0.8
SHAPES = {
    "32k vocabulary, 8 × 512 tokens, width 256": (4096, 256, 32000),
    "32k vocabulary, 1 × 512 tokens, width 1024": (512, 1024, 32000),
    "2k vocabulary, 8 × 96 tokens, width 256 (fits into one chunk)": (768, 256, 2048),
}
"""Rows, width, vocabulary."""


def plain(head: nn.Linear, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs and entropy by the logits of all rows at once."""
    scores = torch.log_softmax(head(hidden).float() / TEMPERATURE, -1)
    with torch.no_grad():
        entropy = -(scores.exp() * scores).sum(-1)
    return scores.gather(-1, targets.unsqueeze(-1)).squeeze(-1), entropy


def measured(score: Callable[[], tuple[Tensor, Any]], weights: Tensor) -> dict[str, float]:
    """CPU seconds and peak MiB of a forward and backward pass."""
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    held, begin = memory("VmRSS"), time.process_time()
    log_probs, _ = score()
    (log_probs * weights).sum().backward()
    return {"seconds": time.process_time() - begin, "mib": memory("VmHWM") - held}


def compare(rows: int, width: int, vocabulary: int, rounds: int) -> dict[str, Any]:
    """Rounds in turns, and the medians of their ratios."""
    torch.manual_seed(0)
    head = nn.Linear(width, vocabulary, bias=False)
    hidden = torch.randn(rows, width, requires_grad=True)
    targets, weights = torch.randint(vocabulary, (rows,)), torch.randn(rows)
    ours = ScoringHead(head, 64)
    sides: dict[str, Callable[[], tuple[Tensor, Any]]] = {
        "chunked": lambda: ours(hidden, targets, TEMPERATURE, entropy=True),
        "plain": lambda: plain(head, hidden, targets),
    }
    found: list[dict[str, dict[str, float]]] = []
    for number in range(-1, rounds):
        row = {}
        for name in sorted(sides, reverse=bool(number % 2)):
            head.weight.grad = hidden.grad = None
            row[name] = measured(sides[name], weights)
        if number >= 0:
            found.append(row)
    return {
        "time": statistics.median(row["chunked"]["seconds"] / row["plain"]["seconds"] for row in found),
        "memory": statistics.median(row["chunked"]["mib"] for row in found)
        / max(1.0, statistics.median(row["plain"]["mib"] for row in found)),
        "rounds": found,
    }


def main() -> None:
    """Prints a line a shape, and writes or prints the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = {}
    for name, shape in SHAPES.items():
        report[name] = compare(*shape, options.rounds)
        print(f"{name}: time {report[name]['time']:.2f}, memory {report[name]['memory']:.2f}", file=sys.stderr)
    text = json.dumps({"torch": torch.__version__, "temperature": TEMPERATURE, "shapes": report}, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
