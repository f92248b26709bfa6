"""From prompts and responses to micro-batches: nothing is padded, and samples of a prompt share its tokens.

Sequences stand one behind the other in a single row. A prompt that several responses belong to stands there once,
before them; each response sees the prompt and itself. So a prompt with 16 samples costs its tokens once and not 16
times, forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from stepcoder.model.attention import Layout

Group = tuple[Sequence[int], Sequence[Sequence[int]]]
"""Ids of a prompt, and ids of each of its responses."""


@dataclass(frozen=True)
class Packed:
    """Prompts and responses of one micro-batch, one behind the other."""

    input_ids: Int[Tensor, " length"]
    """Of each response all but the last token: nothing comes after it that it could tell something about."""
    position_ids: Int[Tensor, " length"]
    layout: Layout
    rows: Int[Tensor, " tokens"]
    """For each response token, response after response, the index into `length` of the token before it."""
    targets: Int[Tensor, " tokens"]
    """Ids of the response tokens."""


def pack(groups: Sequence[Group], device: torch.device) -> Packed:
    """Packs prompts with their responses.

    Args:
        groups: prompts and responses; none of them is empty.
        device: where the tensors go.
    """
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    shapes = []
    for prompt, responses in groups:
        end_of_prompt = len(ids) + len(prompt) - 1
        ids.extend(prompt)
        positions.extend(range(len(prompt)))
        for response in responses:
            rows.append(end_of_prompt)
            rows.extend(range(len(ids), len(ids) + len(response) - 1))
            ids.extend(response[:-1])
            positions.extend(range(len(prompt), len(prompt) + len(response) - 1))
            targets.extend(response)
        shapes.append((len(prompt), tuple(len(response) - 1 for response in responses)))
    inputs = torch.tensor([ids, positions], dtype=torch.long).to(device)
    scored = torch.tensor([rows, targets], dtype=torch.long).to(device)
    return Packed(inputs[0], inputs[1], Layout.of(shapes), scored[0], scored[1])


def units(prompts: Sequence[Sequence[int]], lengths: Sequence[int], budget: int) -> tuple[list[list[int]], list[int]]:
    """Neighbours with the same prompt, which share its tokens as far as a budget allows.

    Args:
        prompts: of each sample.
        lengths: response tokens of each sample.
        budget: most tokens of a unit; a sample that is longer with its prompt is a unit of its own.

    Returns:
        Indices of the samples of each unit, in order, and the tokens of each unit.
    """
    found: list[list[int]] = []
    tokens: list[int] = []
    for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        if found and tokens[-1] + length <= budget and prompts[found[-1][0]] == prompt:
            found[-1].append(index)
            tokens[-1] += length
        else:
            found.append([index])
            tokens.append(len(prompt) + length)
    return found, tokens


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
