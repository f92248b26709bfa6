"""The LM head in chunks against the plain formula: log-probs, entropy and every gradient.

Tolerances. A product of `d` terms in float32 errs by at most about `d u` of `sum |h_i w_i|`, with `u = 2^-24`; the
entropy and the normaliser add a sum of `V` terms. With `d <= 16`, `V <= 50` and logits up to 100 an absolute 2e-4 is
above the worst case and far below any mistake. In bf16 the logits themselves are rounded to 8 bits, `2^-9` of their
size, by this head as by the model's own: the plain formula takes the rounded logits, and what is left is the rounding
of the gradients, `2^-8` of the largest term for each chunk.

Where all rows fit into one chunk the probabilities are kept, else backward computes them again: both are tested.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stepcoder.model.head import ScoringHead


def inputs(tokens: int, width: int, size: int, seed: int, dtype: torch.dtype, *, bias: bool) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(width, size, bias=bias)
    with torch.no_grad():
        for weight in head.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    hidden = torch.randn(tokens, width, generator=generator).mul(2)
    targets = torch.randint(0, size, (tokens,), generator=generator)
    weights = torch.randn(tokens, generator=generator)
    return head.to(dtype), hidden.to(dtype).requires_grad_(), targets, weights


def chunks_of(rows: int, size: int) -> float:
    """The memory in MiB that gives chunks of so many rows: two float32 buffers."""
    return rows * size * 8 / 2**20


def plain(head: nn.Linear, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    logs = (head(hidden).float() / temperature).log_softmax(-1)
    return logs.gather(1, targets.unsqueeze(1)).squeeze(1), -(logs.exp() * logs).sum(-1)


def gradients(scored: Tensor, weights: Tensor, head: nn.Linear, hidden: Tensor) -> list[Tensor]:
    for tensor in (hidden, *head.parameters()):
        tensor.grad = None
    (scored * weights).sum().backward()
    found = [tensor.grad for tensor in (hidden, *head.parameters())]
    assert all(gradient is not None for gradient in found)
    return [gradient.clone() for gradient in found if gradient is not None]


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 20), width=st.integers(1, 16), size=st.integers(2, 50), rows=st.integers(1, 25),
    temperature=st.floats(0.3, 2), seed=st.integers(0, 2**32), bias=st.booleans(),
)  # fmt: skip
@example(tokens=20, width=16, size=50, rows=1, temperature=0.8, seed=1, bias=True)  # A row a chunk.
@example(tokens=20, width=16, size=50, rows=19, temperature=0.8, seed=1, bias=True)  # One row too many to be kept.
@example(tokens=20, width=16, size=50, rows=20, temperature=0.8, seed=1, bias=True)  # Just kept.
@example(tokens=20, width=16, size=50, rows=25, temperature=0.8, seed=1, bias=False)  # Kept in a larger chunk.
def test_any_chunk_size_gives_the_plain_formula_and_its_gradients(
    tokens: int, width: int, size: int, rows: int, temperature: float, seed: int, bias: bool
) -> None:
    head, hidden, targets, weights = inputs(tokens, width, size, seed, torch.float32, bias=bias)
    own = ScoringHead(head, chunks_of(rows, size) * 1.0001)
    found = own(hidden, targets, temperature, entropy=True)
    expected = plain(head, hidden, targets, temperature)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours is not None
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)
    assert found[1] is not None
    assert not found[1].requires_grad
    ours = gradients(found[0], weights, head, hidden)
    theirs = gradients(expected[0], weights, head, hidden)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=0, atol=2e-4)
    # Without the entropy everything else is the same, bit by bit.
    unasked, nothing = own(hidden, targets, temperature)
    assert nothing is None
    assert torch.equal(unasked, found[0])
    assert all(map(torch.equal, gradients(unasked, weights, head, hidden), ours))


@pytest.mark.parametrize(("rows", "again"), [(5, 0), (9, 0), (4, 2), (2, 3), (1, 5)])
@pytest.mark.parametrize("entropy", [False, True])
def test_probabilities_are_kept_where_all_rows_fit_into_one_chunk_and_else_computed_again(
    rows: int, again: int, entropy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stepcoder.model import head as module

    calls: list[int] = []
    once = module._Buffers.logits
    monkeypatch.setattr(module._Buffers, "logits", lambda *args: calls.append(len(args[1])) or once(*args))
    head, hidden, targets, weights = inputs(5, 6, 9, 1, torch.float32, bias=True)
    log_probs, _ = ScoringHead(head, chunks_of(rows, 9) * 1.0001)(hidden, targets, 0.8, entropy=entropy)
    forward = list(calls)
    assert sum(forward) == 5
    assert max(forward) == min(rows, 5)
    log_probs.mul(weights).sum().backward(retain_graph=True)
    assert len(calls) - len(forward) == again
    # What is kept is not used up: a second backward pass gives the same once more.
    first = [tensor.grad.clone() for tensor in (hidden, *head.parameters()) if tensor.grad is not None]
    log_probs.mul(weights).sum().backward()
    second = [tensor.grad for tensor in (hidden, *head.parameters()) if tensor.grad is not None]
    assert len(first) == len(second) == 3
    for one, two in zip(first, second, strict=True):
        torch.testing.assert_close(two, 2 * one, rtol=0, atol=0)


@pytest.mark.parametrize("rows", [2, 5])
def test_by_numpy_in_double_precision(rows: int) -> None:
    head, hidden, targets, _ = inputs(5, 6, 9, 1, torch.float32, bias=True)
    log_probs, entropy = ScoringHead(head, chunks_of(rows, 9))(hidden, targets, 0.8, entropy=True)
    assert entropy is not None
    assert head.bias is not None
    weight, bias, states = (value.detach().double().numpy() for value in (head.weight, head.bias, hidden))
    for row, target in enumerate(targets.tolist()):
        logits = (weight @ states[row] + bias) / 0.8
        p = np.exp(logits) / np.exp(logits).sum()
        assert log_probs[row].item() == pytest.approx(np.log(p[target]), abs=1e-5)
        assert entropy[row].item() == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 20), seed=st.integers(0, 2**32), bias=st.booleans(), temperature=st.floats(0.5, 1.5))
@example(rows=16, seed=1, bias=True, temperature=0.8)
@example(rows=17, seed=1, bias=True, temperature=0.8)
def test_bf16_scores_in_float32_and_sums_the_weights_gradient_over_chunks_in_float32(
    rows: int, seed: int, bias: bool, temperature: float
) -> None:
    head, hidden, targets, weights = inputs(17, 16, 50, seed, torch.bfloat16, bias=bias)
    own = ScoringHead(head, chunks_of(rows, 50) * 1.0001)
    found = own(hidden, targets, temperature, entropy=True)
    # The same rounded product; the bias is added in float32 here, and in bf16 by the model's own head.
    logits = (hidden.detach() @ head.weight.detach().T).float()
    logits = (logits if head.bias is None else logits + head.bias.detach().float()) / temperature
    logs = logits.log_softmax(-1)
    torch.testing.assert_close(found[0], logs.gather(1, targets.unsqueeze(1)).squeeze(1), rtol=0, atol=2e-4)
    assert found[1] is not None
    torch.testing.assert_close(found[1], -(logs.exp() * logs).sum(-1), rtol=0, atol=2e-4)
    slopes = (nn.functional.one_hot(targets, 50) - logs.exp()) * (weights / temperature).unsqueeze(1)
    exact = [slopes @ head.weight.detach().float(), slopes.T @ hidden.detach().float()]
    # Slopes, partial products and the result are each rounded to 8 bits. A slope near zero is a difference of
    # probabilities, which err by as much as the logits' rounding in float32: 2^-23 of at most 100.
    errors = 3 * 2**-8 * slopes.abs() + 100 * 2**-23 * (weights / temperature).abs().unsqueeze(1)
    bounds = [errors @ head.weight.detach().float().abs(), errors.T @ hidden.detach().float().abs()]
    ours = gradients(found[0], weights, head, hidden)
    for our, their, bound in zip(ours[:2], exact, bounds, strict=True):
        assert ((our.float() - their).abs() <= bound).all()


def test_the_chunks_are_as_large_as_the_setting_says_and_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    from stepcoder.model import head as module

    seen: list[int] = []
    monkeypatch.setattr(module, "_parts", lambda count, rows: seen.append(rows) or [slice(0, count)][: count and 1])
    head, hidden, targets, _ = inputs(4, 3, 1000, 0, torch.float32, bias=False)
    with torch.no_grad():
        for chunk in (1.0, 1e-9):
            ScoringHead(head, chunk)(hidden[:1], targets[:1], 1.0)
    assert seen == [131, 1]  # 2^20 bytes / (2 buffers * 4 bytes * 1000).


@pytest.mark.parametrize("rows", [2, 6])
def test_frozen_weights_get_no_gradient_and_the_states_do(rows: int) -> None:
    head, hidden, targets, weights = inputs(6, 5, 11, 2, torch.float32, bias=True)
    (expected, *_) = gradients(plain(head, hidden, targets, 0.8)[0], weights, head, hidden)
    head.requires_grad_(False)
    head.zero_grad()
    hidden.grad = None
    (ScoringHead(head, chunks_of(rows, 11))(hidden, targets, 0.8)[0] * weights).sum().backward()
    torch.testing.assert_close(hidden.grad, expected, rtol=0, atol=2e-4)
    assert head.weight.grad is None
    assert head.bias is None or head.bias.grad is None


@pytest.mark.parametrize("chunk", [1, 1e-9], ids=["kept", "computed again"])
def test_an_impossible_looking_token_stays_finite_and_no_row_gives_nothing(chunk: float) -> None:
    head = nn.Linear(1, 3, bias=False)
    head.weight.data = torch.tensor([[0.0], [300.0], [-300.0]])
    hidden = torch.ones(2, 1, requires_grad=True)
    log_probs, entropy = ScoringHead(head, chunk)(hidden, torch.tensor([2, 2]), 1.0, entropy=True)
    log_probs.sum().backward()
    assert entropy is not None
    assert log_probs.tolist() == [-600.0] * 2
    assert entropy.tolist() == [0.0] * 2
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[-600.0]] * 2
    states = torch.ones(0, 1, requires_grad=True)
    for entropy_too in (False, True):
        none, _ = ScoringHead(head, chunk)(states, torch.tensor([], dtype=torch.long), 1.0, entropy=entropy_too)
        assert none.shape == (0,)
        none.sum().backward()
