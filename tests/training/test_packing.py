"""Packed sequences give what each sequence gives by itself, whatever stands beside it or shares its prompt.

A prompt with several responses stands in a row once. Nobody may notice: log-probs, entropy, values and every gradient
are those of each prompt and response read alone by the model as `transformers` makes it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stepcoder.errors import DataError
from stepcoder.model.attention import NAME, Layout, Shape, packed_attention
from stepcoder.model.batch import Group, Packed, pack
from stepcoder.model.critic import Critic
from stepcoder.model.policy import Policy, states
from tests.training.architectures import READ, REFUSED, SIZE, double, made

CPU = torch.device("cpu")
TEMPERATURE = 0.7
ONE_BY_ONE: list[Group] = [([1, 2, 3], [[4, 5, 6, 7, 8]]), ([3], [[1]]), ([9, 9], [[0, 1, 2]]), ([8, 2], [[0, 5, 2]])]
SHARED: list[Group] = [
    ([1, 2, 3], [[4, 5, 6, 7, 8], [4, 5], [9]]),
    ([3], [[1], [2]]),
    ([9, 9, 5, 6, 7, 1], [[0, 1, 2]]),
    ([8, 2], [[0, 5, 2], [7, 7, 7], [0, 5, 3], [1, 0]]),
    ([2, 8], [[1, 5, 2], [7, 1, 7], [3, 3, 3], [6, 6]]),
]
"""Ragged and equal lengths, single tokens, a single response, and neighbours of one shape."""

ids = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=9)
"""Any ids: those of padding and end of text too."""


@st.composite
def several(draw: st.DrawFn) -> list[list[int]]:
    """Responses of one prompt: of any lengths, of one length, or of a single token each."""
    most = draw(st.integers(1, 5))
    kind = draw(st.sampled_from(["ragged", "equal", "single tokens"]))
    length = {"ragged": None, "equal": draw(st.integers(1, 9)), "single tokens": 1}[kind]
    one = ids if length is None else st.lists(st.integers(0, SIZE - 1), min_size=length, max_size=length)
    return draw(st.lists(one, min_size=1, max_size=most))


@st.composite
def mixes(draw: st.DrawFn) -> list[Group]:
    """Groups; neighbours of one shape are computed in another way than others, so some come twice."""
    groups: list[Group] = draw(st.lists(st.tuples(ids, several()), min_size=1, max_size=4))
    return [group for group in groups for _ in range(draw(st.integers(1, 2)))]


def flat(groups: Sequence[Group]) -> list[tuple[list[int], list[int]]]:
    """Each response with its prompt, in the order of packing."""
    return [(list(prompt), list(response)) for prompt, responses in groups for response in responses]


@cache
def plain(name: str) -> Any:
    """The model as `transformers` makes it: it never sees a packed sequence."""
    return made(name)


@cache
def policy(name: str) -> Policy:
    return Policy(made(name), head_chunk_mib=1e-3)


def critic(name: str) -> Critic:
    found = Critic(Policy(made(name)).language_model.base_model, 16)
    nn.init.normal_(found.value_head.weight, generator=torch.Generator().manual_seed(3))
    return found


def alone(model: Any, prompt: list[int], response: list[int]) -> tuple[Tensor, Tensor]:
    """Log-probs and entropy by the plain formula, one sequence a pass; row t - 1 predicts token t."""
    logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0] / TEMPERATURE
    rows = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return rows[torch.arange(len(response)), response], -(rows.exp() * rows).sum(-1)


def value_alone(backbone: Any, head: Tensor, prompt: list[int], response: list[int]) -> Tensor:
    hidden = backbone(input_ids=torch.tensor([prompt + response]), use_cache=False).last_hidden_state[0]
    values: Tensor = (hidden @ head[0])[len(prompt) - 1 : -1]
    return values


def assert_same_gradients(ours: nn.Module, theirs: nn.Module, tolerance: float) -> None:
    """Of each weight, within a share of its largest entry, or of a tenth of the largest of all.

    Some gradients are nothing but cancellation, such as that of a bias of the keys; these keep their terms' rounding.
    """
    expected = dict(theirs.named_parameters())
    largest = max(weight.grad.abs().max().item() for weight in expected.values() if weight.grad is not None)
    for key, weight in ours.named_parameters():
        gradient = expected[key].grad
        if gradient is None:  # The LM head does not belong to the critic.
            assert weight.grad is None, key
            continue
        assert weight.grad is not None, key
        bound = tolerance * max(gradient.abs().max().item(), 0.1 * largest)
        torch.testing.assert_close(weight.grad, gradient, rtol=0, atol=bound, msg=key)


@pytest.mark.parametrize("name", READ)
@settings(max_examples=20, deadline=None)
@given(groups=mixes())
@example(groups=ONE_BY_ONE)
@example(groups=SHARED)
def test_log_probs_and_entropy_of_packed_sequences_are_those_of_each_by_itself(name: str, groups: list[Group]) -> None:
    with torch.no_grad():
        found = policy(name)(pack(groups, CPU), TEMPERATURE, entropy=True)
        expected = [alone(plain(name), *sequence) for sequence in flat(groups)]
        unasked, nothing = policy(name)(pack(groups, CPU), TEMPERATURE)
    for ours, theirs in zip(found, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.cat(theirs), rtol=1e-5, atol=2e-5)
    assert nothing is None
    assert torch.equal(unasked, found[0])


SHARING = ["llama", "qwen2", "gpt2", "gpt_neox", "mistral"]
"""Grouped queries, learned positions, and a window of 4 tokens that prompt and response outgrow."""


@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointing"])
@pytest.mark.parametrize("name", SHARING)
@settings(max_examples=8, deadline=None)
@given(groups=mixes(), seed=st.integers(0, 999))
@example(groups=ONE_BY_ONE, seed=0)
@example(groups=SHARED, seed=0)
def test_every_gradient_of_packed_sequences_is_the_sum_of_each_ones(
    name: str, again: bool, groups: list[Group], seed: int
) -> None:
    count = sum(len(response) for _, response in flat(groups))
    weights = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    model, network = double(copy.deepcopy(plain(name))).train(), double(Policy(made(name), 1e-3)).train()
    if again:
        network.gradient_checkpointing_enable()
        assert network.language_model.is_gradient_checkpointing
    (torch.cat([alone(model, *sequence)[0] for sequence in flat(groups)]) * weights).sum().backward()
    # Past the scoring head, which is in float32 whatever the weights are: here all is float64.
    packed = pack(groups, CPU)
    logits = network.language_model.get_output_embeddings()(states(network.language_model.base_model, packed))
    logs = (logits / TEMPERATURE).log_softmax(-1).gather(1, packed.targets.unsqueeze(1)).squeeze(1)
    (logs * weights).sum().backward()
    assert_same_gradients(network.language_model, model, 1e-9)


@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointing"])
@pytest.mark.parametrize("groups", [ONE_BY_ONE, SHARED], ids=["one by one", "shared"])
@pytest.mark.parametrize("name", SHARING)
def test_every_gradient_through_the_scoring_head_too(name: str, groups: list[Group], again: bool) -> None:
    weights = torch.linspace(-1, 1, sum(len(response) for _, response in flat(groups)))
    for chunk in (1e-3, 64):  # Probabilities computed again, and kept.
        model, network = copy.deepcopy(plain(name)).train(), Policy(made(name), chunk).train()
        if again:
            network.gradient_checkpointing_enable()
        (torch.cat([alone(model, *sequence)[0] for sequence in flat(groups)]) * weights).sum().backward()
        (network(pack(groups, CPU), TEMPERATURE)[0] * weights).sum().backward()
        assert_same_gradients(network.language_model, model, 1e-5)


@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointing"])
@pytest.mark.parametrize("name", SHARING)
@settings(max_examples=8, deadline=None)
@given(groups=mixes(), seed=st.integers(0, 999))
@example(groups=ONE_BY_ONE, seed=0)
@example(groups=SHARED, seed=0)
def test_values_come_from_the_state_before_each_token_and_so_do_their_gradients(
    name: str, again: bool, groups: list[Group], seed: int
) -> None:
    model, network = double(copy.deepcopy(plain(name)).base_model).train(), double(critic(name)).train()
    if again:
        network.gradient_checkpointing_enable()
        assert network.backbone.is_gradient_checkpointing
    head = network.value_head.weight.detach().clone().requires_grad_()
    expected = torch.cat([value_alone(model, head, *sequence) for sequence in flat(groups)])
    # Numbers that float32 holds: values are told in float32, and their gradient is too.
    weights = torch.randn(len(expected), generator=torch.Generator().manual_seed(seed)).double()
    values = network(pack(groups, CPU))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), expected, rtol=1e-6, atol=1e-6)
    (expected * weights).sum().backward()
    (values * weights).sum().backward()
    assert_same_gradients(network.backbone, model, 1e-9)
    assert head.grad is not None
    torch.testing.assert_close(network.value_head.weight.grad, head.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "gpt_neox"])
def test_activations_computed_again_in_the_backward_pass_give_the_same_gradient(name: str) -> None:
    packed = pack(SHARED, CPU)
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


# --- Who sees whom ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHARING)
@settings(max_examples=12, deadline=None)
@given(groups=mixes(), other=ids, data=st.data())
def test_another_response_changes_nothing_for_those_beside_it(
    name: str, groups: list[Group], other: list[int], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(flat(groups)) - 1))
    if data.draw(st.booleans()):  # Of the same length, so that even its place in the batch is the same.
        other = (other * 9)[: len(flat(groups)[place][1])]
    numbered = iter(range(len(flat(groups))))
    changed = [(prompt, [other if next(numbered) == place else one for one in rs]) for prompt, rs in groups]
    values = critic(name)
    with torch.no_grad():
        for network in (lambda packed: policy(name)(packed, TEMPERATURE)[0], values):
            parts = [
                torch.split(network(pack(of, CPU)), [len(response) for _, response in flat(of)])
                for of in (groups, changed)
            ]
            for index, (before, after) in enumerate(zip(*parts, strict=True)):
                if index != place:
                    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SHARING)
@settings(max_examples=12, deadline=None)
@given(groups=mixes())
@example(groups=SHARED)
def test_a_token_hears_of_its_prompt_and_its_own_past_and_of_nothing_else_at_all(
    name: str, groups: list[Group]
) -> None:
    # By the gradient of a response's last log-prob in the embeddings: what cannot be heard of has exactly none.
    network, packed = Policy(made(name)), pack(groups, CPU)
    seen: list[Tensor] = []
    network.language_model.get_input_embeddings().register_forward_hook(
        lambda _, args, output: seen.append(output) or output
    )
    log_probs, _ = network(packed, TEMPERATURE)
    (embedded,) = seen
    begin = end = 0
    for prompt, responses in groups:
        own_prompt = range(begin, begin + len(prompt))
        begin += len(prompt)
        for response in responses:
            own = range(begin, begin + len(response) - 1)
            begin += len(response) - 1
            end += len(response)
            (gradient,) = torch.autograd.grad(log_probs[end - 1], embedded, retain_graph=True)
            heard = {place for place, row in enumerate(gradient[0]) if row.abs().sum() > 0}
            assert heard <= {*own_prompt, *own}
            if name != "mistral":  # Two layers of a window of 4 tokens do not reach back to the beginning.
                assert heard == {*own_prompt, *own}


def test_a_later_token_changes_no_earlier_value_or_log_prob() -> None:
    with torch.no_grad():
        for network in (lambda packed: policy("llama")(packed)[0], critic("llama")):
            one, other = (network(pack([([1, 2], [[3, 4, last], [5, last]])], CPU)) for last in (5, 6))
            torch.testing.assert_close(one[:2], other[:2], rtol=0, atol=0)
            torch.testing.assert_close(one[3], other[3], rtol=0, atol=0)
    # The last value does not know the last token either.
    torch.testing.assert_close(one[[2, 4]], other[[2, 4]], rtol=0, atol=0)


def test_a_window_longer_than_any_sequence_changes_nothing_and_a_shorter_one_does() -> None:
    for groups in ([([1, 2, 3], [[4, 5, 6, 7, 8]])], [([1, 2, 3], [[4, 5, 6, 7, 8], [8, 7, 6]])]):
        with torch.no_grad():
            wide, narrow, none = (
                Policy(made("mistral", sliding_window=window))(pack(groups, CPU))[0] for window in (64, 4, None)
            )
        torch.testing.assert_close(wide, none, rtol=0, atol=0)
        assert (wide - narrow).abs().max() > 1e-3


# --- What a variable-length kernel is told ----------------------------------------------------------------------------


def by_spans(query: Tensor, key: Tensor, value: Tensor, layout: Layout, window: int | None) -> Tensor:
    """Attention from the spans alone, query by query; the last query of a sequence sees its last key."""
    spans = layout.spans
    k, v = (one[0].repeat_interleave(query.shape[1] // one.shape[1], 0)[:, spans.tokens] for one in (key, value))
    out = torch.full_like(query[0], torch.nan)
    queries, keys = spans.queries.tolist(), spans.keys.tolist()
    for number in range(len(queries) - 1):
        for place in range(queries[number], queries[number + 1]):
            last = keys[number + 1] - (queries[number + 1] - 1 - place)
            first = keys[number] if window is None else max(keys[number], last - window)
            scores = torch.einsum("hd,hkd->hk", query[0, :, place], k[:, first:last]) * query.shape[3] ** -0.5
            out[:, place] = torch.einsum("hk,hkd->hd", scores.softmax(1), v[:, first:last])
    return out.transpose(0, 1).unsqueeze(0)


shapes = st.lists(
    st.tuples(st.integers(1, 7), st.lists(st.integers(0, 6), min_size=1, max_size=4).map(tuple)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(given_=shapes, repeat=st.booleans(), window=st.none() | st.integers(1, 14), seed=st.integers(0, 999))
@example(given_=[(3, (0, 0)), (1, (0,)), (2, (4, 4, 0, 4))], repeat=True, window=None, seed=0)
def test_spans_describe_the_same_attention(given_: list[Shape], repeat: bool, window: int | None, seed: int) -> None:
    layout = Layout.of([shape for shape in given_ for _ in range(1 + repeat)])
    length = sum(prompt + sum(responses) for prompt, responses in layout.shapes)
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(1, heads, length, 3, generator=generator, dtype=torch.float64) for heads in (4, 2, 2)
    )
    out, _ = packed_attention(nn.Identity(), query, key, value, None, layout=layout, sliding_window=window)
    torch.testing.assert_close(out, by_spans(query, key, value, layout, window), rtol=0, atol=1e-12)
    spans = layout.spans
    # No sequence is empty, every token asks once, and the longest ones are told as they are.
    for begins, longest, whole in (
        (spans.queries, spans.longest_query, length),
        (spans.keys, spans.longest_key, len(spans.tokens)),
    ):
        assert begins.dtype == torch.int32
        assert (begins[0], begins[-1]) == (0, whole)
        assert begins.diff().min() > 0
        assert begins.diff().max() == longest


# --- What cannot be, and ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.3, 0.02])
@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_that_cannot_read_packed_sequences_is_refused_at_any_age(name: str, spread: float) -> None:
    if name == "capped logits":
        spread = 0.3  # Near zero a cap changes nothing.
    # The initialisation's usual 0.02 gives a model that attends to hardly anything.
    model = made(name, initializer_range=spread)
    for _ in range(2):  # A refusal leaves the model as it was.
        with pytest.raises(DataError, match=r"packed"):
            Policy(model)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
def test_rounding_in_bf16_is_no_reason_to_refuse_a_deep_model(name: str) -> None:
    # Sampling rounds scores where the model's own kernel does not.
    more = {"layer_types": ["sliding_attention", "full_attention"] * 8} if name == "gemma3" else {}
    model = made(name, hidden_size=64, num_hidden_layers=16, initializer_range=0.125, **more).bfloat16()
    assert Policy(model).language_model.config._attn_implementation == NAME


def test_a_wrong_neighbour_is_seen_in_bf16_too() -> None:
    with pytest.raises(DataError, match=r"packed"):
        Policy(made("two attentions a layer", initializer_range=0.3).bfloat16())


@given(mixes() | st.just([]))
def test_a_prompt_stands_once_and_rows_are_the_states_before_the_response_tokens(groups: list[Group]) -> None:
    packed = pack(groups, CPU)
    assert packed.targets.tolist() == [index for _, response in flat(groups) for index in response]
    assert packed.input_ids.tolist() == [
        index for prompt, responses in groups for part in (prompt, *(one[:-1] for one in responses)) for index in part
    ]
    assert packed.position_ids.tolist() == [
        place
        for prompt, responses in groups
        for part in (
            range(len(prompt)),
            *(range(len(prompt), len(prompt) + len(response) - 1) for response in responses),
        )
        for place in part
    ]
    # The token and the position before each response token, read off the sequence by itself.
    before = [
        (place, [*prompt, *response][place])
        for prompt, response in flat(groups)
        for place in range(len(prompt) - 1, len(prompt) + len(response) - 1)
    ]
    assert list(
        zip(*(part[packed.rows].tolist() for part in (packed.position_ids, packed.input_ids)), strict=True)
    ) == (before)
    assert sum(prompt + sum(rs) for prompt, rs in packed.layout.shapes) == len(packed.input_ids)
    assert whole(packed) == [[*prompt, *response[:-1]] for prompt, response in flat(groups)]


def whole(packed: Packed) -> list[list[int]]:
    """The sequences that attention sees by the spans: of a prompt with several responses each response's keys."""
    if not packed.layout.shapes:
        return []
    found, number = [], 0
    keys = packed.layout.spans.keys.tolist()
    for _, responses in packed.layout.shapes:
        prompt = packed.input_ids[packed.layout.spans.tokens[keys[number] : keys[number + 1]]].tolist()
        number += 1
        if not responses:
            found.append(prompt)
        for response in responses:
            if response:
                found.append(packed.input_ids[packed.layout.spans.tokens[keys[number] : keys[number + 1]]].tolist())
                number += 1
            else:
                found.append(prompt)
    return found
