"""How the samples of an optimiser step are shared out among ranks and micro-batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stepcoder.model.batch import micro_batches, shared_out
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


def test_groups_by_hand() -> None:
    # Shorter ones first: 2, 3, 5 fill 10; 7 and 30 stand alone.
    assert micro_batches([7, 3, 30, 2, 5], 10) == [[3, 1, 4], [0], [2]]
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
