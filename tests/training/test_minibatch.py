"""How the samples of an optimiser step are shared out among ranks and micro-batches."""

from __future__ import annotations

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from stepcoder.model.batch import micro_batches, pack, shared_out, units
from stepcoder.model.seeds import permutation

lengths = st.lists(st.integers(2, 60), max_size=40)
budgets = st.integers(1, 150)


@given(lengths, budgets, st.integers(0, 12))
def test_each_sequence_is_in_one_group_and_no_group_of_several_is_over_the_budget(
    lengths: list[int], budget: int, count: int
) -> None:
    groups = micro_batches(lengths, budget, count)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or sum(lengths[index] for index in group) <= budget for group in groups)
    assert len(groups) >= count
    if len(lengths) >= count:
        assert all(groups)  # Empty groups only where there are too few sequences.


@given(st.lists(st.integers(2, 60), min_size=1, max_size=40), budgets, st.integers(1, 6))
def test_ranks_have_all_sequences_once_the_same_number_of_passes_and_about_as_many_tokens(
    lengths: list[int], budget: int, ranks: int
) -> None:
    shares = shared_out(lengths, budget, ranks)
    assert len(shares) == ranks
    assert sorted(index for groups in shares for group in groups for index in group) == list(range(len(lengths)))
    assert len({len(groups) for groups in shares}) == 1
    for group in (group for groups in shares for group in groups):
        assert len(group) <= 1 or sum(lengths[index] for index in group) <= budget
    loads = [sum(lengths[index] for group in groups for index in group) for groups in shares]
    assert max(loads) - min(loads) <= max(lengths)
    # As few passes as the fullest rank needs: nobody is split further than that.
    needed = max(len(micro_batches([lengths[i] for group in groups for i in group], budget)) for groups in shares)
    assert len(shares[0]) == needed


prompts_of_samples = st.lists(
    st.tuples(
        st.lists(st.integers(0, 1), min_size=1, max_size=9),
        st.lists(st.integers(1, 30), min_size=1, max_size=6),
        st.integers(1, 2),
    ),
    max_size=8,
).map(lambda turns: [(prompt, length) for prompt, lengths, often in turns for length in lengths * often])
"""Prompts and the response lengths of their samples; so few ids that a prompt comes up again."""


@given(prompts_of_samples, budgets)
@example([([1], 5), ([1], 5), ([1], 5)], 11)
@example([([1], 5), ([1, 1], 5), ([1], 5)], 100)
def test_units_are_neighbours_with_the_same_prompt_as_many_as_the_budget_allows(
    samples: list[tuple[list[int], int]], budget: int
) -> None:
    prompts, lengths = [prompt for prompt, _ in samples], [length for _, length in samples]
    together, tokens = units(prompts, lengths, budget)
    assert [index for unit in together for index in unit] == list(range(len(samples)))
    assert len(together) == len(tokens)
    for unit, count in zip(together, tokens, strict=True):
        assert unit
        assert all(prompts[index] == prompts[unit[0]] for index in unit)
        assert count == len(prompts[unit[0]]) + sum(lengths[index] for index in unit)
        assert count <= budget or len(unit) == 1
        # What goes through the network is no more than that.
        packed = pack([(prompts[unit[0]], [[0] * lengths[index] for index in unit])], torch.device("cpu"))
        assert len(packed.input_ids) == count - len(unit)
    for one, two, count in zip(together, together[1:], tokens, strict=False):
        # The next sample has another prompt or no room.
        assert prompts[two[0]] != prompts[one[0]] or count + lengths[two[0]] > budget


@given(prompts_of_samples, budgets, st.integers(1, 4))
def test_micro_batches_of_units_keep_the_budget_unless_one_sample_alone_does_not(
    samples: list[tuple[list[int], int]], budget: int, ranks: int
) -> None:
    together, tokens = units([prompt for prompt, _ in samples], [length for _, length in samples], budget)
    shares = shared_out(tokens, budget, ranks)
    placed = sorted(index for groups in shares for group in groups for unit in group for index in together[unit])
    assert placed == list(range(len(samples)))
    for group in (group for groups in shares for group in groups):
        alone = sum(len(together[unit]) for unit in group) <= 1
        assert alone or sum(tokens[unit] for unit in group) <= budget


def test_groups_by_hand() -> None:
    # Shorter ones first: 2, 3, 5 fill 10; 7 and 30 stand alone.
    assert micro_batches([7, 3, 30, 2, 5], 10) == [[3, 1, 4], [0], [2]]
    # 2 + 3 + 4 fill the budget of 10 up to 1, so the third sample of the prompt stands behind it once more.
    assert units([[7, 7], [7, 7], [7, 7], [8], [7, 7]], [3, 4, 2, 30, 1], 10) == (
        [[0, 1], [2], [3], [4]],
        [9, 4, 31, 3],
    )
    # The longest first, each to the rank with the least: 9 | 8, then 7 to the second, 2 to the first.
    assert shared_out([2, 9, 7, 8], 100, 2) == [[[0, 1]], [[2, 3]]]
    # One sequence for two ranks: the second takes part with an empty group.
    assert shared_out([5], 100, 2) == [[[0]], [[]]]


@given(st.integers(1, 200), st.integers(0, 2**62), st.integers(0, 5))
def test_each_epoch_has_an_order_of_its_own_with_each_sample_once(count: int, seed: int, epoch: int) -> None:
    order = permutation(count, "mini-batches", seed, epoch)
    assert sorted(order) == list(range(count))
    assert order == permutation(count, "mini-batches", seed, epoch)
    if count > 20:
        assert order != permutation(count, "mini-batches", seed, epoch + 1)
