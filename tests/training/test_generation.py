"""Sampling: a response depends on its request alone, and its log-probs are those of the distribution it came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepcoder.model.attention import Layout
from stepcoder.model.batch import pack
from stepcoder.model.decoding import Decoding
from stepcoder.model.generation import Request, Response, TransformersGenerator, draw
from stepcoder.model.policy import Policy
from stepcoder.model.settings import Sampling
from tests.training.architectures import SIZE, made

CPU = torch.device("cpu")
PADDING = END = 3
ENDS = (END, 20, 21, 22, 23, 24)
"""As with many tokenizers, padding is the end of text, and it also stands inside prompts."""
FULL = Sampling(temperature=0.8, top_p=1.0, max_new_tokens=14)
REQUESTS = [
    Request([5, 6, 7, 8, 9, 10, 11, 12, 13], 5, seed=11),
    Request([1], 3, seed=12),
    Request([END, 4, PADDING, 9], 4, seed=13),
    Request([5, 6, 7, 8, 9, 10, 11, 12, 13], 2, seed=14),
    Request([2, 2, 2, 2, 2], 1, seed=15),
]
READ = ["llama", "gpt2", "mistral", "opt", "gemma3", "deepseek_v3"]
"""Rotary and learned positions, windows that prompts and responses outgrow, and a cache of other states than keys."""


@cache
def model(name: str) -> Any:
    return made(name)


@cache
def policy(name: str) -> Policy:
    return Policy(model(name))


def generator(name: str, batch_size: int, ends: Sequence[int] = ENDS) -> TransformersGenerator:
    """Over a model that reads packed sequences too, as in training."""
    language_model = policy(name).language_model
    language_model.generation_config.eos_token_id = list(ends)
    tokenizer: Any = SimpleNamespace(eos_token_id=END)
    return TransformersGenerator(language_model, tokenizer, batch_size)


def by_place(responses: Sequence[Response]) -> dict[tuple[int, int], Response]:
    found = {(response.request, response.number): response for response in responses}
    assert len(found) == len(responses)
    return found


def sampled(name: str, batch_size: int, requests: Sequence[Request] = REQUESTS, sampling: Sampling = FULL) -> Any:
    return by_place(list(generator(name, batch_size).generate(requests, sampling)))


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_log_probs_at_sampling_are_those_that_training_computes(name: str, batch_size: int) -> None:
    # Shared prompts, a cache that grows and shrinks: all of it against one pass over each sequence.
    responses = sampled(name, batch_size)
    assert len(responses) == 15
    assert len({len(response.ids) for response in responses.values()}) > 2  # They end at different times.
    for (request, _), response in responses.items():
        with torch.no_grad():
            scored, _ = policy(name)(pack([(REQUESTS[request].prompt_ids, [response.ids])], CPU), FULL.temperature)
        torch.testing.assert_close(torch.tensor(response.log_probs), scored, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", READ)
def test_ids_depend_neither_on_the_batch_size_nor_on_other_requests_or_their_order(name: str) -> None:
    whole = sampled(name, 64)
    for batch_size in (1, 3, 7):
        assert {place: one.ids for place, one in sampled(name, batch_size).items()} == {
            place: one.ids for place, one in whole.items()
        }
    order = [3, 0, 4, 2, 1]
    turned = sampled(name, 4, [REQUESTS[index] for index in order])
    for (request, number), response in turned.items():
        assert response.ids == whole[order[request], number].ids
    for index, request in enumerate(REQUESTS):
        alone = sampled(name, 64, [request])
        assert [one.ids for one in alone.values()] == [alone[0, n].ids for _, n in alone]
        assert all(alone[0, number].ids == whole[index, number].ids for number in range(request.samples))


def test_fewer_samples_of_a_request_are_the_first_ones_and_other_seeds_give_other_samples() -> None:
    whole = sampled("llama", 64)
    prompt = REQUESTS[0].prompt_ids
    few = sampled("llama", 64, [Request(prompt, 2, seed=11)])
    assert [few[0, n].ids for n in range(2)] == [whole[0, n].ids for n in range(2)]
    other = sampled("llama", 64, [Request(prompt, 5, seed=99)])
    assert [other[0, n].ids for n in range(5)] != [whole[0, n].ids for n in range(5)]
    assert len({tuple(whole[0, n].ids) for n in range(5)}) > 1


def test_a_prompts_samples_share_one_prefill_and_give_what_separate_ones_give() -> None:
    rows: list[int] = []
    sampler = generator("llama", 64)
    hook = sampler.model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        shared = by_place(list(sampler.generate(REQUESTS[:1], FULL)))
    finally:
        hook.remove()
    assert rows[:2] == [1, 5]
    separate = by_place(list(generator("llama", 1).generate(REQUESTS[:1], FULL)))
    for place, response in shared.items():
        assert response.ids == separate[place].ids
        assert response.log_probs == pytest.approx(separate[place].log_probs, abs=2e-5)


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_a_prompts_keys_stand_once_for_all_its_samples_and_nothing_stands_twice(name: str) -> None:
    language_model = policy(name).language_model
    heads, size = 2, 4
    decoding = Decoding(language_model, [4, 2], [5, 3], longest=9)
    language_model(
        input_ids=torch.tensor([[5, 6, 7, 8, 9, 4]]),
        position_ids=torch.tensor([[0, 1, 2, 3, 0, 1]]),
        past_key_values=decoding.cache,
        layout=Layout(((4, ()), (2, ()))),
        decoding=decoding,
    )

    def held() -> int:
        """Numbers of all keys and values of a layer, wherever they stand."""
        tensors = [one for layer in decoding.cache.layers for one in (layer.keys, layer.values, *layer.room)]
        tensors += [one for pair in decoding.prompt.values() for one in pair]
        storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() // 4 for one in tensors}
        return sum(storages.values()) // len(decoding.cache.layers)

    language_model(
        input_ids=torch.ones(8, 1, dtype=torch.long),
        position_ids=torch.ones(8, 1, dtype=torch.long),
        past_key_values=decoding.cache,
        decoding=decoding,
    )
    # Two prompts as long as the longer one, and room for eight samples.
    assert held() == 2 * heads * size * (2 * 4 + 8 * 9)
    decoding.keep(torch.tensor([5, 7]))  # Both belong to the second prompt.
    assert held() == 2 * heads * size * (1 * 4 + 2 * 9)


def test_what_has_ended_leaves_the_batch() -> None:
    rows: list[int] = []
    sampler = generator("llama", 64, ends=[END, *range(20, 30)])
    request = [Request([1, 2], 40, seed=1)]
    hook = sampler.model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        responses = list(sampler.generate(request, FULL))
    finally:
        hook.remove()
    assert rows[1:] == sorted(rows[1:], reverse=True)
    for step, count in enumerate(rows[1:], 2):
        going = sum(len(response.ids) >= step for response in responses)
        assert going <= count <= math.ceil(going / 0.75) or count == 40


def test_a_response_ends_at_the_first_end_of_text_or_at_the_longest_length_and_nothing_is_cut() -> None:
    ends = {END, 20, 21}
    responses = list(generator("llama", 8, ends=[20, 21]).generate([Request([4, 20], 40, seed=5)], FULL))
    assert all(index not in ends for response in responses for index in response.ids[:-1])
    whole = [response for response in responses if response.ids[-1] not in ends]
    assert whole
    assert all(len(response.ids) == FULL.max_new_tokens for response in whole)
    assert {response.ids[-1] for response in responses} & ends == ends
    assert all(len(response.ids) == len(response.log_probs) for response in responses)


def test_padding_that_is_no_end_of_text_is_a_token_like_others() -> None:
    language_model = policy("llama").language_model
    language_model.generation_config.eos_token_id = 1
    tokenizer: Any = SimpleNamespace(eos_token_id=1)
    head = language_model.get_output_embeddings().weight
    responses = list(
        TransformersGenerator(language_model, tokenizer, 16).generate([Request([0, 0, 5, 0], 200, seed=2)], FULL)
    )
    assert head.shape[0] == SIZE
    inside = [response for response in responses if 0 in response.ids[:-1]]
    assert inside
    for response in inside[:3]:
        with torch.no_grad():
            scored, _ = policy("llama")(pack([([0, 0, 5, 0], [response.ids])], CPU), FULL.temperature)
        torch.testing.assert_close(torch.tensor(response.log_probs), scored, rtol=0, atol=2e-5)


def test_a_prompt_of_another_length_beside_it_moves_no_position() -> None:
    seen: list[Any] = []
    sampler = generator("gpt2", 64)
    hook = sampler.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["position_ids"].tolist()), with_kwargs=True
    )
    try:
        list(sampler.generate([Request([5, 6], 1, seed=1), Request([7, 8, 9, 4, 6], 1, seed=2)], FULL))
    finally:
        hook.remove()
    assert seen[0] == [[0, 1, 0, 1, 2, 3, 4]]
    assert seen[1] == [[2], [5]]


def test_generation_leaves_training_as_it_was() -> None:
    sampler = generator("llama", 4)
    for training in (True, False):
        sampler.model.train(training)
        list(sampler.generate(REQUESTS[1:2], FULL))
        assert sampler.model.training == training
        next(iter(sampler.generate(REQUESTS[1:2], FULL)))  # Given up half-way.
        assert sampler.model.training == training
    sampler.model.eval()


# --- Drawing one token ------------------------------------------------------------------------------------------------

ALMOST_ONE = 1 - 2**-24


def drawn(
    probabilities: Sequence[float], uniform: float, top_p: float = 1.0, temperature: float = 1.0
) -> tuple[int, float]:
    logits = torch.tensor([probabilities], dtype=torch.float64).log().mul(temperature).float()
    ids, log_probs = draw(logits, torch.tensor([uniform]), Sampling(temperature=temperature, top_p=top_p))
    return int(ids), float(log_probs)


@pytest.mark.parametrize(
    ("uniform", "expected"), [(0.0, 1), (0.2499, 1), (0.2501, 3), (0.7499, 3), (0.7501, 4), (ALMOST_ONE, 4)]
)
def test_a_draw_inverts_the_cumulative_sum_and_never_gives_what_is_impossible(uniform: float, expected: int) -> None:
    # Tokens 0, 2 and 5 have no probability; 1, 3 and 4 have 1/4, 1/2 and 1/4.
    chosen, log_prob = drawn([0, 0.25, 0, 0.5, 0.25, 0], uniform)
    assert chosen == expected
    assert log_prob == pytest.approx(math.log([0, 0.25, 0, 0.5, 0.25][expected]), abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1e-9, 0.01, 0.3, 1.0]), min_size=2, max_size=30).filter(any),
    st.sampled_from([0.0, 2**-24, 0.5, ALMOST_ONE]) | st.floats(0, ALMOST_ONE, width=32),
    st.sampled_from([1.0, 0.9, 0.3, 1e-6]),
    st.sampled_from([1.0, 0.2]),
)
def test_at_every_edge_a_draw_is_a_token_with_probability_and_its_log_prob_is_finite(
    shares: list[float], uniform: float, top_p: float, temperature: float
) -> None:
    probabilities = [share / sum(shares) for share in shares]
    chosen, log_prob = drawn(probabilities, uniform, top_p, temperature)
    assert probabilities[chosen] > 0
    assert math.isfinite(log_prob)
    if top_p == 1:
        assert log_prob == pytest.approx(math.log(probabilities[chosen]), abs=1e-4)


def test_a_number_that_float32_rounds_up_to_one_gives_the_last_possible_token() -> None:
    logits = torch.tensor([[0.25, 0.75, 0.0]]).log()
    for top_p, expected in ((1.0, 1), (0.9, 0)):  # In the nucleus the less probable one is the last.
        ids, log_probs = draw(
            logits, torch.tensor([1 - 1e-12], dtype=torch.float64), Sampling(temperature=1, top_p=top_p)
        )
        assert ids.tolist() == [expected]
        assert log_probs.isfinite().all()


def test_the_nucleus_is_the_smallest_set_with_the_probability_and_is_what_log_probs_refer_to() -> None:
    # 0.5 + 0.3 reach 0.7, so the nucleus is {2, 0}, most probable first: [0, 0.625) gives 2, the rest gives 0.
    shares = [0.3, 0.15, 0.5, 0.05]
    for uniform, expected, probability in ((0.0, 2, 0.625), (0.62, 2, 0.625), (0.63, 0, 0.375), (ALMOST_ONE, 0, 0.375)):
        chosen, log_prob = drawn(shares, uniform, top_p=0.7)
        assert chosen == expected
        assert log_prob == pytest.approx(math.log(probability), abs=1e-6)
    assert drawn(shares, ALMOST_ONE, top_p=0.4)[0] == 2  # The first token alone is enough.
    assert drawn(shares, ALMOST_ONE, top_p=0.4)[1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("top_p", "temperature"), [(1.0, 0.8), (0.7, 0.8), (0.7, 2.0)])
def test_frequencies_are_those_of_the_distribution_at_its_temperature(top_p: float, temperature: float) -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5])
    # On a grid of uniform numbers the counts are the probabilities, to one step of the grid for each token.
    grid = (torch.arange(20000) + 0.5) / 20000
    ids, log_probs = draw(logits.expand(len(grid), -1), grid, Sampling(temperature=temperature, top_p=top_p))
    p = [math.exp(value / temperature) for value in logits.tolist()]
    p = [value / sum(p) for value in p]
    kept, mass = [], 0.0
    for index in sorted(range(5), key=lambda index: -p[index]):
        if mass < top_p:
            kept.append(index)
            mass += p[index]
    for index in range(5):
        expected = p[index] / mass if index in kept else 0.0
        assert (ids == index).float().mean().item() == pytest.approx(expected, abs=1.5e-4)
        if expected:
            assert log_probs[ids == index][0].item() == pytest.approx(math.log(expected), abs=1e-5)


def test_rows_are_drawn_by_themselves_and_bf16_logits_in_float32() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.bfloat16)
    uniform = torch.tensor([0.99, 0.5, 0.4])
    ids, log_probs = draw(logits, uniform, FULL)
    assert log_probs.dtype == torch.float32
    for row in range(3):
        alone = draw(logits[row : row + 1], uniform[row : row + 1], FULL)
        assert (alone[0].item(), alone[1].item()) == (ids[row].item(), log_probs[row].item())
    assert log_probs[2].item() == pytest.approx(-math.log(3), abs=1e-6)
