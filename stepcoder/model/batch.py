"""From sequences of ids to micro-batches without padding: sequences stand one behind the other in a single row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """Prompts and responses of one micro-batch, one behind the other."""

    input_ids: Int[Tensor, " length"]
    position_ids: Int[Tensor, " length"]
    """From 0 in each sequence."""
    lengths: tuple[int, ...]
    """Tokens of each sequence; they sum up to `length`."""
    rows: Int[Tensor, " tokens"]
    """Indices into `length` of the response tokens, sequence after sequence; none is the first of its sequence."""


def pack(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: torch.device) -> Packed:
    """Joins each prompt with its response, and all of them into one row.

    Args:
        prompts: ids of each prompt; none is empty.
        responses: ids of each response.
        device: where the tensors go.
    """
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    lengths = []
    for prompt, response in zip(prompts, responses, strict=True):
        length = len(prompt) + len(response)
        rows.extend(range(len(ids) + len(prompt), len(ids) + length))
        ids.extend(prompt)
        ids.extend(response)
        positions.extend(range(length))
        lengths.append(length)
    whole = torch.tensor([ids, positions], dtype=torch.long).to(device)
    return Packed(whole[0], whole[1], tuple(lengths), torch.tensor(rows, dtype=torch.long).to(device))


def micro_batches(lengths: Sequence[int], budget: int, count: int = 0) -> list[list[int]]:
    """Groups sequences of similar length so that the tokens of each group stay within a budget.

    Args:
        lengths: tokens of each sequence.
        budget: most tokens of a group; a longer sequence is a group of its own.
        count: fewest groups. Large groups are halved to get there; what is still missing are empty groups.

    Returns:
        Indices of the sequences in each group, shorter ones first; each index occurs once.
    """
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if not groups or lengths[index] > room:
            groups.append([])
            room = budget
        groups[-1].append(index)
        room -= lengths[index]
    while len(groups) < count:
        place = max(range(len(groups)), key=lambda place: len(groups[place]), default=None)
        if place is None or len(groups[place]) < 2:
            groups.append([])
        else:
            group = groups[place]
            groups[place : place + 1] = [group[: len(group) // 2], group[len(group) // 2 :]]
    return groups


def shared_out(lengths: Sequence[int], budget: int, ranks: int) -> list[list[list[int]]]:
    """Micro-batches of every rank: about as many tokens each, and the same number of micro-batches.

    Every rank computes this from the same lengths, so nothing has to be agreed on.

    Args:
        lengths: tokens of each sequence of the whole optimiser step.
        budget: most tokens of a micro-batch.
        ranks: number of ranks.

    Returns:
        For each rank its groups of indices; a group is empty where a rank has fewer sequences than others have groups.
    """
    loads = [0] * ranks
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        rank = loads.index(min(loads))
        shares[rank].append(index)
        loads[rank] += lengths[index]
    most = max(len(micro_batches([lengths[i] for i in share], budget)) for share in shares)
    return [
        [[share[i] for i in group] for group in micro_batches([lengths[i] for i in share], budget, most)]
        for share in shares
    ]
