"""Packed sequences give what each sequence gives by itself, whatever stands beside it, and in whatever order."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stepcoder.errors import DataError
from stepcoder.model.batch import pack
from stepcoder.model.critic import Critic
from stepcoder.model.policy import Policy
from tests.training.architectures import READ, REFUSED, SIZE, made

CPU = torch.device("cpu")
TEMPERATURE = 0.7
ids = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=9)
"""Any ids: those of padding and end of text too."""


@cache
def plain(name: str) -> Any:
    """The model as `transformers` makes it: it never sees a packed sequence."""
    return made(name)


@cache
def policy(name: str) -> Policy:
    return Policy(made(name), head_chunk_mib=1e-3)


def alone(model: Any, prompt: list[int], response: list[int]) -> tuple[Tensor, Tensor]:
    """Log-probs and entropy by the plain formula, one sequence a pass; row t - 1 predicts token t."""
    logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0].float() / TEMPERATURE
    rows = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return rows[torch.arange(len(response)), response], -(rows.exp() * rows).sum(-1)


@pytest.mark.parametrize("name", READ)
@settings(max_examples=12, deadline=None)
@given(sequences=st.lists(st.tuples(ids, ids), min_size=1, max_size=5), repeat=st.booleans())
def test_log_probs_and_entropy_of_packed_sequences_are_those_of_each_by_itself(
    name: str, sequences: list[tuple[list[int], list[int]]], repeat: bool
) -> None:
    if repeat:  # Neighbours of equal length are computed in another way than neighbours of different length.
        sequences = [sequence for sequence in sequences for _ in range(2)]
    with torch.no_grad():
        found = policy(name)(pack(*zip(*sequences, strict=True), CPU), TEMPERATURE)
        expected = [alone(plain(name), *sequence) for sequence in sequences]
    for ours, theirs in zip(found, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.cat(theirs), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral"])
def test_the_gradient_of_packed_sequences_is_the_sum_of_each_ones(name: str) -> None:
    sequences = [([1, 2, 3], [4, 5, 6, 7, 8]), ([3], [1]), ([9, 9], [0, 1, 2]), ([8, 2], [0, 5, 2])]
    model, packed = copy.deepcopy(plain(name)), Policy(made(name))
    weights = torch.linspace(-1, 1, 12)
    (torch.cat([alone(model, *sequence)[0] for sequence in sequences]) * weights).sum().backward()
    (packed(pack(*zip(*sequences, strict=True), CPU), TEMPERATURE)[0] * weights).sum().backward()
    expected = dict(model.named_parameters())
    for key, weight in packed.language_model.named_parameters():
        gradient = expected[key].grad
        assert gradient is not None, key
        assert weight.grad is not None, key
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item(), msg=key)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "gpt_neox"])
def test_activations_computed_again_in_the_backward_pass_give_the_same_gradient(name: str) -> None:
    packed = pack([[1, 2, 3], [3], [9, 9]], [[4, 5, 6, 7, 8], [1], [0, 1, 2]], CPU)
    gradients = []
    for again in (False, True):
        network = Policy(made(name)).train()
        if again:
            network.gradient_checkpointing_enable()
            assert network.language_model.is_gradient_checkpointing
        network(packed, TEMPERATURE)[0].sum().backward()
        gradients.append({key: weight.grad for key, weight in network.named_parameters()})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral"])
def test_values_of_packed_sequences_come_from_the_state_before_each_token(name: str) -> None:
    sequences = [([1, 2, 3], [4, 5, 6, 7, 8]), ([3], [1]), ([9, 9], [0, 1, 2]), ([8, 2], [0, 5, 2])]
    critic = Critic(Policy(made(name)).language_model.base_model, 16)
    torch.nn.init.normal_(critic.value_head.weight)
    expected = []
    with torch.no_grad():
        for prompt, response in sequences:
            hidden = plain(name).base_model(input_ids=torch.tensor([prompt + response])).last_hidden_state[0]
            expected.append((hidden @ critic.value_head.weight[0])[len(prompt) - 1 : -1])
        values = critic(pack(*zip(*sequences, strict=True), CPU))
    torch.testing.assert_close(values, torch.cat(expected), rtol=1e-5, atol=2e-5)


def test_a_later_token_changes_no_earlier_value_or_log_prob() -> None:
    critic = Critic(Policy(made("llama")).language_model.base_model, 16)
    torch.nn.init.normal_(critic.value_head.weight)
    with torch.no_grad():
        for network in (lambda packed: policy("llama")(packed)[0], critic):
            one, other = (network(pack([[1, 2]], [[3, 4, last]], CPU)) for last in (5, 6))
            torch.testing.assert_close(one[:2], other[:2], rtol=0, atol=0)
    # The last value does not know the last token either.
    torch.testing.assert_close(one[2], other[2], rtol=0, atol=0)


@pytest.mark.parametrize("spread", [0.3, 0.02])
@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_that_cannot_read_packed_sequences_is_refused_at_any_age(name: str, spread: float) -> None:
    if name == "capped logits":
        spread = 0.3  # Near zero a cap changes nothing.
    # The initialisation's usual 0.02 gives a model that attends to hardly anything.
    with pytest.raises(DataError, match=r"packed"):
        Policy(made(name, initializer_range=spread))


def test_a_window_longer_than_any_sequence_changes_nothing_and_a_shorter_one_does() -> None:
    sequence = pack([[1, 2, 3]], [[4, 5, 6, 7, 8]], CPU)
    with torch.no_grad():
        wide, narrow, none = (Policy(made("mistral", sliding_window=window))(sequence)[0] for window in (64, 4, None))
    torch.testing.assert_close(wide, none, rtol=0, atol=0)
    assert (wide - narrow).abs().max() > 1e-3


@given(st.lists(st.tuples(ids, st.lists(st.integers(0, SIZE - 1), max_size=5)), max_size=6))
def test_rows_are_the_response_tokens_and_none_is_the_first_of_its_sequence(
    sequences: list[tuple[list[int], list[int]]],
) -> None:
    packed = pack([prompt for prompt, _ in sequences], [response for _, response in sequences], CPU)
    assert packed.input_ids[packed.rows].tolist() == [index for _, response in sequences for index in response]
    assert packed.input_ids.tolist() == [index for prompt, response in sequences for index in [*prompt, *response]]
    assert packed.lengths == tuple(len(prompt) + len(response) for prompt, response in sequences)
    assert (packed.position_ids[packed.rows] > 0).all()
    assert packed.position_ids.tolist() == [place for length in packed.lengths for place in range(length)]
