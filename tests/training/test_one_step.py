"""One whole PPO step, from logits to updated weights, against plain NumPy: no torch and no autograd on that side.

The language model is a real Llama without layers: embedding, RMS norm, LM head. It is a bigram model, so its gradients
fit on a page. With `s` the token before action `y`, `x = E[s]`, `n = x / rms(x)`, `h = g n`, `z = W h`, and
`p = softmax(z / T)`:

- `log pi = z_y / T - log sum exp(z / T)`, so `d log pi / dz = (onehot(y) - p) / T`;
- `dW += dz h^T`, `dh = W^T dz`, `dg += dh n`, `dn = dh g`;
- `n = x r` with `r = (mean(x^2) + eps)^(-1/2)`, so `dx = r (dn - n mean(dn n))`, added to row `s` of `E`.

The critic is the same with `V = a . h` in the place of the logits: `da += dV h`, `dh = dV a`.

Losses: `-min(rho A, clip(rho) A)` has the slope `-rho A` in `log pi` where the plain term is the smaller one or equal,
else 0; `max((V - R)^2, (V_clip - R)^2) / 2` has `V - R` where `V` is within the clip or the plain square is the larger
one, else 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stepcoder.model.critic import Critic
from stepcoder.model.policy import Policy
from stepcoder.model.seeds import permutation
from stepcoder.platform import engine
from stepcoder.ppo import PpoConfig
from stepcoder.ppo.experience import assemble, score
from stepcoder.ppo.update import update
from stepcoder.rollouts import Rollout, Sample
from stepcoder.sandbox import Outcome, Span, Statement, Verdict

Array = np.ndarray[Any, np.dtype[np.float64]]
Weights = dict[str, Array]

PADDING, END, LINE = 0, 1, 10
TABLE = [b"", b"", *(bytes([letter]) for letter in b"abcdefgh"), b"\n"]
SEED = 4


@dataclass
class Case:
    """A roll-out, and which of its tokens enter the policy loss by reading the program."""

    prompt: list[int]
    response: list[int]
    lines: list[bool]
    """Whether each line of the program was executed; none: it did not compile."""
    reward: float
    mask: list[int]
    statements: list[Statement] = field(default_factory=list)


CASES = [
    # ab\ncd and the end: the second line did not run, the end of text stays.
    Case([3, 4], [2, 3, LINE, 4, 5, END], [True, False], -0.3, [1, 1, 1, 0, 0, 1]),
    # Cut off at the longest length: no end of text.
    Case([4], [5, 6, 7], [True], 1.0, [1, 1, 1]),
    # Nothing but the end of text.
    Case([9, 8, 7], [END], [], -1.0, [1]),
    # Only the line in the middle ran.
    Case([2], [2, 2, LINE, 3, 3, LINE, 4, END], [False, True, False], -0.3, [0, 0, 0, 1, 1, 1, 0, 1]),
    # Ids of padding and end of text inside prompt and response are ids like others.
    Case([END, PADDING, 9], [PADDING, 4, END], [True], 1.0, [1, 1, 1]),
    # Nothing ran: all of it stays.
    Case([3, 3], [6, END], [False], -0.6, [1, 1]),
    # The last token was not executed, and nothing is behind it.
    Case([7, 2], [8, LINE, 9], [True, False], -0.6, [1, 1, 0]),
    # The same prompt twice more: all three share its tokens, and a mini-batch ends between them.
    Case([7, 2], [3, END], [True], 1.0, [1, 1]),
    Case([7, 2], [8, LINE, 4, END], [False, True], -0.3, [0, 0, 1, 1]),
    # The first prompt again, but not beside its first sample: a prompt of its own. Its own neighbour is alike.
    Case([3, 4], [5], [True], 1.0, [1]),
    Case([3, 4], [6, 6, END], [True], -1.0, [1, 1, 1]),
]
PROMPTS = [[0], [1], [2], [3], [4], [5], [6, 7, 8], [9, 10]]
"""Neighbours among the cases with the same prompt, by eye."""

SETTINGS: dict[str, Any] = {
    "dataset": "", "policy": "", "reference": "", "out": "", "out_critic": "", "out_curriculum": "",
    "ppo_epochs": 2, "minibatches": 2, "temperature": 0.8, "kl_beta": 0.3, "clip_low": 0.05, "clip_high": 0.08,
    "value_clip": 0.02, "gamma": 0.97, "gae_lambda": 0.9, "value_loss_weight": 0.7, "micro_batch_tokens": 12,
}  # fmt: skip
RATE, CRITIC_RATE, WARM_UP, LIMIT = 2e-2, 1e-2, 2, 0.3


# --- The step in NumPy ------------------------------------------------------------------------------------------------


def states(weights: Weights, before: int) -> tuple[Array, Array, float]:
    x = weights["embed"][before]
    r = 1 / np.sqrt((x * x).mean() + 1e-6)
    return weights["norm"] * x * r, x * r, r


def log_probs_of(weights: Weights, before: int, temperature: float) -> Array:
    scaled = weights["head"] @ states(weights, before)[0] / temperature
    scaled = scaled - scaled.max()
    out: Array = scaled - np.log(np.exp(scaled).sum())
    return out


def backward(weights: Weights, gradient: Weights, before: int, to_head: Array) -> None:
    """Adds what one row gives, from the gradient of the head's outputs: logits of the policy, value of the critic."""
    h, n, r = states(weights, before)
    gradient["head"] += np.outer(to_head, h)
    dh = weights["head"].T @ to_head
    gradient["norm"] += dh * n
    dn = dh * weights["norm"]
    gradient["embed"][before] += r * (dn - n * (dn * n).mean())


class Adam:
    def __init__(self, weights: Weights, rate: float, epsilon: float) -> None:
        self.weights, self.rate, self.epsilon, self.taken = weights, rate, epsilon, 0
        self.first = {name: np.zeros_like(value) for name, value in weights.items()}
        self.second = {name: np.zeros_like(value) for name, value in weights.items()}
        self.clipped = 0

    def step(self, gradient: Weights) -> None:
        norm = np.sqrt(sum((value * value).sum() for value in gradient.values()))
        factor = min(1.0, LIMIT / (norm + 1e-6))
        self.clipped += factor < 1
        self.taken += 1
        warm_up = min(self.taken / WARM_UP, np.sqrt(WARM_UP / self.taken))
        for name, value in gradient.items():
            g = value * factor
            self.first[name] = 0.9 * self.first[name] + 0.1 * g
            self.second[name] = 0.95 * self.second[name] + 0.05 * g * g
            unbiased = self.first[name] / (1 - 0.9**self.taken)
            spread = np.sqrt(self.second[name] / (1 - 0.95**self.taken))
            self.weights[name] -= self.rate * warm_up * unbiased / (spread + self.epsilon)


@dataclass
class Plain:
    """What the NumPy side knows of one sample."""

    before: list[int]
    ids: list[int]
    mask: Array
    old: Array
    old_values: Array
    advantages: Array
    returns: Array


def numpy_step(policy: Weights, reference: Weights, critic: Weights, config: PpoConfig) -> dict[str, Any]:
    t_ = config.temperature
    plain = []
    entropies = []
    for case in CASES:
        before = [*case.prompt, *case.response][len(case.prompt) - 1 : -1]
        table = [log_probs_of(policy, b, t_) for b in before]
        entropies += [-(np.exp(row) * row).sum() for row in table]
        old = np.array([row[y] for row, y in zip(table, case.response, strict=True)])
        theirs = np.array([log_probs_of(reference, b, t_)[y] for b, y in zip(before, case.response, strict=True)])
        values = np.array([(critic["head"] @ states(critic, b)[0])[0] for b in before])
        rewards = -config.kl_beta * (old - theirs)
        rewards[-1] += case.reward
        advantages = np.zeros_like(values)
        for i in range(len(values)):  # The sum form, not the recursion.
            for j in range(i, len(values)):
                following = values[j + 1] if j + 1 < len(values) else 0.0
                delta = rewards[j] + config.gamma * following - values[j]
                advantages[i] += (config.gamma * config.gae_lambda) ** (j - i) * delta
        mask = np.array(case.mask if config.use_execution_mask else [1] * len(old), dtype=float)
        plain.append(Plain(before, case.response, mask, old, values, advantages, advantages + values))
    everything = np.concatenate([one.advantages for one in plain])
    for one in plain:
        one.advantages = (one.advantages - everything.mean()) / np.sqrt(everything.var() + 1e-8)
    adams = Adam(policy, RATE, 1e-6), Adam(critic, CRITIC_RATE, 1e-8)
    clipped = values_clipped = 0
    parted = False
    for epoch in range(config.ppo_epochs):
        # Samples of a prompt stay together: prompts have an order, and it is cut by numbers of samples.
        order = [sample for turn in permutation(len(PROMPTS), "mini-batches", SEED, epoch) for sample in PROMPTS[turn]]
        size = -(-len(plain) // config.minibatches)
        parted |= any({order[size - 1], order[size]} <= set(prompt) for prompt in PROMPTS)
        for begin in range(0, len(plain), size):
            batch = [plain[i] for i in order[begin : begin + size]]
            executed = sum(one.mask.sum() for one in batch)
            responses = sum(len(one.ids) for one in batch)
            gradient = {name: np.zeros_like(value) for name, value in policy.items()}
            to_critic = {name: np.zeros_like(value) for name, value in critic.items()}
            for one in batch:
                for i, (before, y) in enumerate(zip(one.before, one.ids, strict=True)):
                    logs = log_probs_of(policy, before, t_)
                    ratio, a = np.exp(logs[y] - one.old[i]), one.advantages[i]
                    bounded = min(max(ratio, 1 - config.clip_low), 1 + config.clip_high)
                    slope = -ratio * a if ratio * a <= bounded * a else 0.0
                    clipped += slope == 0 and one.mask[i] == 1
                    slope *= one.mask[i] / (executed if config.policy_denominator == "executed" else responses)
                    onehot = np.eye(len(logs))[y]
                    backward(policy, gradient, before, slope * (onehot - np.exp(logs)) / t_)

                    v, old, target = (critic["head"] @ states(critic, before)[0])[0], one.old_values[i], one.returns[i]
                    near = min(max(v, old - config.value_clip), old + config.value_clip)
                    slope = v - target if (v - target) ** 2 >= (near - target) ** 2 else 0.0
                    values_clipped += slope == 0
                    masked = config.mask_value_loss
                    slope *= config.value_loss_weight * (one.mask[i] / executed if masked else 1 / responses)
                    backward(critic, to_critic, before, np.array([slope]))
            adams[0].step(gradient)
            adams[1].step(to_critic)
    counts = {"ratio": clipped, "value": values_clipped, "policy": adams[0].clipped, "critic": adams[1].clipped}
    return {"clipped": counts, "entropy": np.array(entropies), "parted": parted}


# --- The step of this project -----------------------------------------------------------------------------------------


def bigram(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(TABLE), hidden_size=4, intermediate_size=4, num_hidden_layers=0, num_attention_heads=1,
            rms_norm_eps=1e-6, tie_word_embeddings=False, initializer_range=0.7, pad_token_id=PADDING,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.model.norm.weight.uniform_(0.5, 1.5)
        model.model.embed_tokens.weight[PADDING].normal_()
    # torch gives the row of the padding id no gradient; these sequences hold no padding, and the id is one of many.
    model.model.embed_tokens.padding_idx = None
    return model.eval()


def weights_of(model: Any, head: torch.Tensor) -> Weights:
    found = {"embed": model.embed_tokens.weight, "norm": model.norm.weight, "head": head}
    return {name: value.detach().double().numpy().copy() for name, value in found.items()}


def statements(case: Case) -> tuple[Statement, ...]:
    program = b"".join(TABLE[index] for index in case.response)
    parts = program.split(b"\n")
    return tuple(
        Statement(Span(number, 0, number, len(parts[number - 1])), ran) for number, ran in enumerate(case.lines, 1)
    )


def sample_of(case: Case, index: int) -> Sample:
    text = b"".join(TABLE[index] for index in case.response).decode()
    verdict = Verdict("p", Outcome.WRONG_ANSWER, (), statements(case))
    # The sampling's own log-probs are not part of the objective: nonsense must not matter.
    behaviour = (-99.0,) * len(case.response)
    return Sample(
        "p", index, "", text, text, verdict, tuple(case.prompt), tuple(case.response), behaviour, truncated=False
    )


def networks() -> Iterator[Any]:
    yield Policy(bigram(1), head_chunk_mib=1e-4)  # Chunks of one row.
    yield Policy(bigram(2))
    critic = Critic(bigram(3).model, 4)
    torch.nn.init.normal_(critic.value_head.weight)
    yield critic


def own_step(policy: Policy, reference: Policy, critic: Critic, config: PpoConfig, stage: int) -> dict[str, Any]:
    engine.start()
    usual = {"precision": "fp32", "max_gradient_norm": LIMIT, "zero_stage": stage}
    schedule = engine.warm_up_then_inverse_root(WARM_UP)
    engines = [
        engine.Engine(network, learning_rate=rate, epsilon=epsilon, schedule=schedule, **usual)  # type: ignore[arg-type]
        for network, rate, epsilon in ((policy, RATE, 1e-6), (critic, CRITIC_RATE, 1e-8))
    ]
    nobody: Future[Verdict] = Future()
    roll_outs = [Rollout(lambda _: None, tuple(c.prompt), tuple(c.response), (), nobody) for c in CASES]  # type: ignore[arg-type,return-value]
    scores = score(
        roll_outs,
        partial(engines[0], temperature=config.temperature, entropy=True),
        lambda packed: reference(packed, config.temperature),
        engines[1],
        budget=9,
    )
    samples = [sample_of(case, index) for index, case in enumerate(CASES)]
    rewards: Sequence[float] = [case.reward for case in CASES]
    experience = assemble(samples, rewards, scores, TABLE, config, beta=config.kl_beta)
    metrics = update(experience, engines[0], engines[1], config, SEED)
    return {**metrics, "experience": experience}


CONFIGS = [
    ({"use_execution_mask": True}, 0),
    ({"use_execution_mask": True}, 2),
    ({"use_execution_mask": False}, 0),
    ({"use_execution_mask": True, "policy_denominator": "response", "mask_value_loss": True}, 0),
]


@pytest.mark.parametrize(("more", "stage"), CONFIGS)
def test_a_step_from_logits_to_weights_is_that_of_plain_numpy(more: dict[str, Any], stage: int) -> None:
    config = PpoConfig(**SETTINGS, **more)
    policy, reference, critic = networks()
    theirs = [
        weights_of(policy.language_model.model, policy.language_model.lm_head.weight),
        weights_of(reference.language_model.model, reference.language_model.lm_head.weight),
        weights_of(critic.backbone, critic.value_head.weight),
    ]
    before = [{name: value.copy() for name, value in weights.items()} for weights in theirs]
    told = numpy_step(*theirs, config)
    own = own_step(policy, reference, critic, config, stage)

    # The case is one: everything that clips did, on some tokens and steps and not on all.
    assert min(told["clipped"].values()) > 0
    # And some mini-batch ended between samples of a prompt.
    assert told["parted"]
    for ours, expected, start in (
        (weights_of(policy.language_model.model, policy.language_model.lm_head.weight), theirs[0], before[0]),
        (weights_of(critic.backbone, critic.value_head.weight), theirs[2], before[2]),
    ):
        for name in expected:
            assert np.abs(expected[name] - start[name]).max() > 1e-2, name
            np.testing.assert_allclose(ours[name], expected[name], rtol=0, atol=1e-6, err_msg=name)
    mask = own["experience"].response_mask
    np.testing.assert_allclose(own["experience"].entropy[mask].numpy(), told["entropy"], atol=1e-6)
    assert own["ratio_deviation"] < 1e-6
    if config.use_execution_mask:
        rows = [
            row[: len(case.mask)].int().tolist() for row, case in zip(own["experience"].policy_mask, CASES, strict=True)
        ]
        assert rows == [case.mask for case in CASES]
