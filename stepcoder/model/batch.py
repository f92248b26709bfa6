"""From sequences of ids to padded tensors under a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """Right-padded prompts and responses of one micro-batch."""

    input_ids: Int[Tensor, "batch length"]
    attention_mask: Int[Tensor, "batch length"]
    """From the lengths, never from the ids: a sampled id may equal the padding's."""
    rows: Int[Tensor, " tokens"]
    """Flat indices into `batch * length` of the response tokens, sample after sample."""


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Groups sequences of similar length so that each group, padded, stays within a token budget.

    Args:
        lengths: tokens of each sequence.
        budget: most tokens of a group, padding included; a longer sequence is a group of its own.

    Returns:
        Indices of the sequences in each group; each index occurs once.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if groups and (len(groups[-1]) + 1) * lengths[index] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def collate(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device) -> Sequences:
    """Joins each prompt with its response and pads on the right.

    Args:
        prompts: ids of each prompt; none is empty.
        responses: ids of each response.
        device: where the tensors go.
    """
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    longest = max(lengths)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    rows: list[int] = []
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids[row, : lengths[row]] = torch.tensor([*prompt, *response])
        mask[row, : lengths[row]] = 1
        rows.extend(range(row * longest + len(prompt), row * longest + lengths[row]))
    return Sequences(ids.to(device), mask.to(device), torch.tensor(rows, dtype=torch.long).to(device))
