"""From sampled ids to what the loss sees: which row scores which token, at which temperature, with which mask."""

from __future__ import annotations

import json
import math
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stepcoder.masks import executed_bytes, policy_loss_mask
from stepcoder.model.batch import Packed, pack
from stepcoder.model.generation import Request, TransformersGenerator
from stepcoder.model.policy import Policy
from stepcoder.model.prompt import program_of
from stepcoder.model.settings import Sampling
from stepcoder.model.tokens import bytes_of, text_of
from stepcoder.ppo import PpoConfig, objective
from stepcoder.ppo.experience import Scores, assemble, score
from stepcoder.problems import CallTest, Problem
from stepcoder.rollouts import Rollout, Sample
from stepcoder.sandbox import Outcome, Span, Statement, Verdict, job_of, open_sandbox
from tests.training.architectures import made
from tests.training.update_steps import config

CPU = torch.device("cpu")


# --- Rows and temperature ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.8, 1.7])
def test_behaviour_old_and_new_log_probs_and_entropy_are_at_the_sampling_temperature_by_numpy(
    temperature: float,
) -> None:
    model = made("llama")
    plain = made("llama")
    tokenizer: Any = SimpleNamespace(pad_token_id=0, eos_token_id=1)
    policy = Policy(model)
    sampling = Sampling(temperature=temperature, top_p=1.0, max_new_tokens=6)
    (response,) = TransformersGenerator(model, tokenizer, 1).generate([Request([4, 0, 1], 1, seed=4)], sampling)
    roll_out = Rollout(lambda _: None, (4, 0, 1), tuple(response.ids), (), Future())  # type: ignore[arg-type,return-value]

    def networks(packed: Packed) -> tuple[Tensor, Tensor | None]:
        found: tuple[Tensor, Tensor | None] = policy(packed, temperature, entropy=True)
        return found

    (scores,) = score([roll_out], networks, networks, lambda packed: packed.rows.float(), budget=100)
    with torch.no_grad():
        logits = plain(input_ids=torch.tensor([[4, 0, 1, *response.ids]])).logits[0].double().numpy()
    for t, id_ in enumerate(response.ids):
        z = logits[2 + t] / temperature  # Row 2 is that of the prompt's last token.
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        assert response.log_probs[t] == pytest.approx(math.log(p[id_]), abs=1e-5)
        assert scores.log_probs[t].item() == pytest.approx(math.log(p[id_]), abs=1e-5)
        assert scores.reference_log_probs[t].item() == pytest.approx(math.log(p[id_]), abs=1e-5)
        assert scores.entropy[t].item() == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)
    assert {scores.log_probs.dtype, scores.entropy.dtype, scores.reference_log_probs.dtype} == {torch.float32}


def test_a_bf16_policy_scores_in_float32() -> None:
    policy = Policy(made("llama").to(torch.bfloat16))
    log_probs, entropy = policy(pack([([1, 2], [[3, 4, 5], [6]])], CPU), 0.8, entropy=True)
    assert entropy is not None
    assert (log_probs.dtype, entropy.dtype) == (torch.float32, torch.float32)
    # bf16 would hold at most 8 bits: neighbours differ by 2^-7 at this size.
    assert (log_probs != log_probs.to(torch.bfloat16).float()).any()


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.lists(st.integers(1, 9), min_size=1, max_size=4)), min_size=1, max_size=5),
    st.integers(1, 60),
)
def test_scores_are_in_the_order_of_the_roll_outs_whatever_the_budget(
    groups: list[tuple[int, list[int]]], budget: int
) -> None:
    # Each network tells which token it was asked about, so a mix-up would show.
    roll_outs: list[Rollout] = []
    for width, lengths in groups:  # Of one width are the same prompts, neighbours or not.
        for length in lengths:
            index = len(roll_outs) + 1
            prompt, response = tuple(range(width)), tuple(range(100 * index, 100 * index + length))
            roll_outs.append(Rollout(lambda _: None, prompt, response, (), Future()))  # type: ignore[arg-type,return-value]
    passes: list[tuple[int, int]] = []

    def told(packed: Packed) -> tuple[Tensor, Tensor]:
        passes.append((len(packed.input_ids), int((packed.targets % 100 == 0).sum())))
        return packed.targets.float(), packed.input_ids[packed.rows].float()

    def reference(packed: Packed) -> tuple[Tensor, None]:
        return packed.targets.float(), None

    found = score(roll_outs, told, reference, lambda packed: packed.position_ids[packed.rows] + 1.0, budget)
    assert len(found) == len(roll_outs)
    assert all(tokens <= budget or samples == 1 for tokens, samples in passes)
    # What travels to other ranks are a response's own numbers, not those of its micro-batch.
    assert all(one.values.untyped_storage().nbytes() == 4 * len(one.values) for one in found)
    for one, roll_out in zip(found, roll_outs, strict=True):
        whole = [*roll_out.prompt_ids, *roll_out.response_ids]
        assert one.log_probs.tolist() == one.reference_log_probs.tolist() == list(roll_out.response_ids)
        assert one.entropy.tolist() == whole[len(roll_out.prompt_ids) - 1 : -1]
        assert one.values.tolist() == list(range(len(roll_out.prompt_ids), len(whole)))


def test_roll_outs_of_a_prompt_are_scored_in_one_pass_that_reads_it_once() -> None:
    roll_outs = [
        Rollout(lambda _: None, prompt, response, (), Future())  # type: ignore[arg-type,return-value]
        for prompt, response in [((1, 2, 3), (4, 5)), ((1, 2, 3), (6,)), ((1, 2, 3), (7, 8, 9)), ((1, 2), (5, 5))]
    ]
    seen: list[list[int]] = []

    def told(packed: Packed) -> tuple[Tensor, Tensor]:
        seen.append(packed.input_ids.tolist())
        return packed.targets.float(), packed.targets.float()

    score(roll_outs, told, told, lambda packed: packed.targets.float(), budget=100)
    # Shorter ones first; of each response all but its last token.
    assert seen == [[1, 2, 5, 1, 2, 3, 4, 7, 8]] * 2
    with pytest.raises(AssertionError):  # A policy that was not asked for the entropy.
        score(roll_outs, lambda packed: (told(packed)[0], None), told, lambda packed: packed.targets.float(), 100)


@pytest.mark.parametrize("top_p", [0.9, 0.999, 1.1, 0])
def test_a_nucleus_below_1_is_refused_with_what_to_do_instead(top_p: float) -> None:
    with pytest.raises(ValueError, match=r"top_p\s.*another distribution.*leave it at 1 and lower the temperature"):
        config(top_p=top_p)
    assert config(top_p=1.0, temperature=0.6).sampling == Sampling(temperature=0.6, top_p=1.0, max_new_tokens=1024)


@pytest.mark.parametrize("name", ["top_k", "repetition_penalty", "min_p", "typical_p", "no_repeat_ngram_size"])
def test_what_would_change_the_sampling_distribution_is_no_setting(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        config(**{name: 1})


# --- Masks from sampled bytes -----------------------------------------------------------------------------------------


def judged(program: str) -> Verdict:
    problem = Problem(
        id="p", statement="", starter="def f(n):\n", solution="", entry_point="f", tests=(CallTest.of((3,), 4),)
    )
    with open_sandbox(slots=1) as sandbox:
        (verdict,) = sandbox.judge([job_of(problem, program)])
    return verdict


OPENED = "def f(n):  # \N{GREEK SMALL LETTER LAMDA}\n"
_REST = "    if n > 9:\n        s = 5\n    return n + 1\n"
WRITTEN = {
    "characters of several bytes": ('    s = "äß漢🙂"; t = 1\n' + _REST.replace("5", "'漢'"), "s = '漢'\n"),
    "a byte-order mark in a string": (f'    s = "\ufeff"; t = 2\n{_REST}', "s = 5\n"),
    "lines that end as on Windows": (f"    s = 1\n{_REST}".replace("\n", "\r\n"), "s = 5\r\n"),
    "a form feed and a lone carriage return": (f"    s = 1\n\f{_REST}".replace("\n", "\r", 3), "s = 5\r"),
    "bytes that are no text": (f'    s = "\udc80"; t = 2\n{_REST}', "s = 5\n"),
}


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
@pytest.mark.parametrize("case", WRITTEN)
def test_the_mask_follows_the_bytes_of_the_sampled_ids_wherever_they_are_cut(case: str, cut: int) -> None:
    written, unexecuted = WRITTEN[case]
    data = written.encode("utf-8", "surrogateescape") + b"```\ntext"
    table = [data[begin : begin + cut] for begin in range(0, len(data), cut)] + [b""]
    ids = list(range(len(table)))  # The last one is the end of text.
    completion = text_of(bytes_of(ids, table))
    program = program_of(OPENED, completion)
    verdict = judged(program)
    assert verdict.passed
    sample = Sample("p", 0, OPENED, completion, program, verdict, (1,), tuple(ids), (0.0,) * len(ids), truncated=False)
    zeros = torch.zeros(len(ids))
    experience = assemble([sample], [1.0], [Scores(zeros, zeros, zeros, zeros)], table, config(), beta=0.1)
    # By eye: the only line that did not run, from its indentation to its end.
    end = data.index(unexecuted.encode(), data.index(b"n > 9")) + len(unexecuted.encode())
    begin = data.index(b":", data.index(b"n > 9")) + 1
    begin += len(data[begin:]) - len(data[begin:].lstrip(b"\r\n"))
    expected = [
        not (begin <= place * cut and min(place * cut + cut, len(data)) <= end) for place in range(len(table) - 1)
    ]
    assert experience.policy_mask[0].tolist() == [*expected, True]
    assert not all(expected) or cut == 5


def test_a_byte_order_mark_in_code_does_not_compile_and_keeps_the_whole_response() -> None:
    program = OPENED + "\ufeff    return n + 1\n"
    verdict = judged(program)
    assert verdict.outcome is Outcome.COMPILE_ERROR
    assert not any(executed_bytes(program.encode(), verdict.statements))
    assert policy_loss_mask([3, 17, 0], len(OPENED.encode()), bytearray(len(program.encode()))) == [True] * 3


# --- Rewards, advantages, whitening -----------------------------------------------------------------------------------


def sample_of(length: int, number: int = 0) -> Sample:
    ids = tuple(range(length))
    return Sample("p", number, "", "", "", Verdict("p", Outcome.PASS, ()), (1,), ids, (0.0,) * length, truncated=False)


def test_returns_come_from_advantages_before_whitening_and_the_score_is_on_the_last_token_of_each() -> None:
    rng = np.random.default_rng(3)
    lengths = [4, 1, 7]
    numbers = {name: [rng.normal(size=n) for n in lengths] for name in ("log_probs", "reference", "values")}
    rewards = [1.0, -0.3, -1.0]
    scores = [
        Scores(*(torch.tensor(numbers[name][i]) for name in ("log_probs", "log_probs", "reference", "values")))
        for i in range(3)
    ]
    settings_ = config(gamma=1.0, gae_lambda=0.95, use_execution_mask=False)
    found = assemble([sample_of(n, i) for i, n in enumerate(lengths)], rewards, scores, [], settings_, beta=0.2)
    expected = []
    for i, n in enumerate(lengths):
        r = -0.2 * (numbers["log_probs"][i] - numbers["reference"][i])
        r[-1] += rewards[i]
        v = np.append(numbers["values"][i], 0.0)
        delta = r + v[1:] - v[:-1]
        expected.append([sum(0.95 ** (j - t) * delta[j] for j in range(t, n)) for t in range(n)])
    flat = np.concatenate(expected)
    for i, n in enumerate(lengths):
        np.testing.assert_allclose(found.returns[i, :n], np.array(expected[i]) + numbers["values"][i], atol=1e-5)
        white = (np.array(expected[i]) - flat.mean()) / flat.std()
        np.testing.assert_allclose(found.advantages[i, :n], white, atol=1e-5)
        assert found.advantages[i, n:].abs().sum() == found.returns[i, n:].abs().sum() == 0
        assert not np.allclose(found.returns[i, :n], white + numbers["values"][i], atol=0.01)


def test_gae_at_lambda_095_by_hand_with_anything_in_the_padding() -> None:
    # gamma 1: deltas 0.2 - 0.5, 0 + 0.1 - 0.2, 1 - 0.1 = -0.3, -0.1, 0.9.
    # A_2 = 0.9, A_1 = -0.1 + 0.95 * 0.9 = 0.755, A_0 = -0.3 + 0.95 * 0.755 = 0.41725.
    for bad in (math.nan, math.inf, -math.inf, 1e38):
        rewards = torch.tensor([[0.0, 0.0, 1.0, bad, bad]])
        values = torch.tensor([[0.5, 0.2, 0.1, bad, bad]])
        mask = torch.tensor([[True, True, True, False, False]])
        advantages, returns = objective.gae(rewards, values, mask, gamma=1.0, lam=0.95)
        assert advantages[0].tolist() == pytest.approx([0.41725, 0.755, 0.9, 0, 0])
        assert returns[0].tolist() == pytest.approx([0.91725, 0.955, 1.0, 0, 0])
        assert objective.whiten(torch.where(mask, advantages, bad), mask).isfinite().all()


def test_a_step_of_one_token_has_no_advantage_and_no_nan() -> None:
    one = torch.tensor([0.5])
    found = assemble([sample_of(1)], [1.0], [Scores(one, one, one, one)], [b""], config(), beta=0.1)
    assert found.advantages.tolist() == [[0.0]]
    assert found.returns.tolist() == [[1.0]]


def test_the_score_is_on_the_last_response_token_even_when_it_was_not_executed() -> None:
    # All tokens but the last are executed; its reward reaches the first through GAE.
    spans = (Statement(Span(1, 0, 1, 1), True), Statement(Span(2, 0, 2, 1), False))
    verdict = Verdict("p", Outcome.WRONG_ANSWER, (), spans)
    sample = Sample("p", 0, "", "a\nb", "a\nb", verdict, (1,), (0, 1, 2), (0.0,) * 3, truncated=True)
    zeros = torch.zeros(3)
    found = assemble(
        [sample], [-0.3], [Scores(zeros, zeros, zeros, zeros)], [b"a", b"\n", b"b"], config(gae_lambda=1.0), beta=0.1
    )
    assert found.policy_mask.tolist() == [[True, True, False]]
    assert found.rewards[0].tolist() == pytest.approx([0, 0, -0.3])
    assert found.returns[0].tolist() == pytest.approx([-0.3] * 3)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.floats(0, 0.5), st.integers(0, 999))
def test_rewards_of_a_response_add_up_to_its_score_less_the_kl_of_all_its_tokens(
    lengths: list[int], beta: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    log_ratio = torch.where(mask, torch.randn(mask.shape, generator=generator), torch.nan)
    scores = torch.randn(len(lengths), generator=generator)
    rewards = objective.token_rewards(scores, log_ratio, mask, beta=beta)
    torch.testing.assert_close(rewards.sum(1), scores - beta * log_ratio.nansum(1), rtol=1e-5, atol=1e-5)
    assert (rewards[~mask] == 0).all()


def test_lower_and_upper_clip_are_separate_bounds() -> None:
    ratio = torch.tensor([0.69, 0.71, 1.09, 1.11])
    for sign in (1.0, -1.0):
        _, clipped = objective.policy_loss(
            ratio.log(), torch.zeros(4), torch.full((4,), sign), torch.ones(4, dtype=torch.bool),
            clip_low=0.3, clip_high=0.1, denominator=4,
        )  # fmt: skip
        assert clipped.item() == 2
    loss, _ = objective.policy_loss(
        ratio.log(), torch.zeros(4), torch.tensor([-1.0, -1.0, 1.0, 1.0]), torch.ones(4, dtype=torch.bool),
        clip_low=0.3, clip_high=0.1, denominator=1,
    )  # fmt: skip
    assert loss.item() == pytest.approx(0.7 + 0.71 - 1.09 - 1.1)


def test_a_mad_token_gives_a_finite_loss_and_a_finite_gradient() -> None:
    new = torch.tensor([500.0, -500.0, 0.0], requires_grad=True)
    for sign in (1.0, -1.0):
        loss, _ = objective.policy_loss(
            new, torch.zeros(3), torch.full((3,), sign), torch.ones(3, dtype=torch.bool),
            clip_low=0.2, clip_high=0.2, denominator=3,
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(loss, new)
        assert loss.isfinite()
        assert gradient.tolist() == pytest.approx([0, 0, -sign / 3])


def test_the_settings_of_the_paper_are_the_defaults() -> None:
    settings_ = PpoConfig(dataset="", policy="", reference="", out="", out_critic="", out_curriculum="")
    told = json.loads(settings_.model_dump_json())
    expected = {
        "learning_rate": 5e-7, "critic_learning_rate": 1.5e-6, "samples_per_problem": 16, "temperature": 0.8,
        "top_p": 1.0, "kl_beta": 0.05, "clip_low": 0.2, "clip_high": 0.2, "value_clip": 0.2, "gamma": 1.0,
        "gae_lambda": 0.95, "ppo_epochs": 1, "max_new_tokens": 1024, "max_gradient_norm": 1.0, "scale_rewards": False,
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected
