"""From problems to judged programs: prompt, sampled ids, program, verdict. Training and evaluation both start here."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from stepcoder.model.generation import Generator, TransformersGenerator
from stepcoder.model.load import check_room, load_policy, load_tokenizer
from stepcoder.model.prompt import Template, program_of
from stepcoder.model.settings import Sampling
from stepcoder.model.tokens import bytes_of, text_of, token_bytes
from stepcoder.platform.logs import get_logger
from stepcoder.problems import Problem
from stepcoder.sandbox import Limits, Outcome, Sandbox, Verdict, job_of

log = get_logger("rollouts")


@dataclass(frozen=True)
class Subtask:
    """A problem from one start point: what the policy is asked to write."""

    problem: Problem
    opened: str
    """Code that the prompt holds already."""
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One sampled and judged program."""

    problem_id: str
    index: int
    """Number of this sample among those of its problem, from 0."""
    opened: str
    """Code that was given."""
    completion: str
    """All that was sampled, as text: code, closing fence and what follows."""
    program: str
    """What was judged: opened code and completion up to the closing fence."""
    verdict: Verdict
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    """Ids as sampled, end of text included."""
    truncated: bool
    """Whether the response met the longest length before its end."""

    @property
    def tokens(self) -> int:
        """Length of the response in tokens."""
        return len(self.response_ids)


class Sampler:
    """Samples programs with one generator and judges each as soon as it is there."""

    def __init__(
        self, generator: Generator, template: Template, sandbox: Sandbox, limits: Limits, table: list[bytes]
    ) -> None:
        self.generator = generator
        self.template = template
        self.sandbox = sandbox
        self.limits = limits
        self.table = table

    def subtask(self, problem: Problem, opened: str, longest_prompt: int) -> Subtask | None:
        """The prompt for a problem with opened code; `None` when the opened code does not fit."""
        ids = self.template.prompt(problem, opened, longest_prompt)
        return None if ids is None else Subtask(problem, opened, tuple(ids))

    def sample(
        self, subtasks: Sequence[Subtask], n: int, sampling: Sampling, seed: int, *, trace: bool = True
    ) -> list[Sample]:
        """Samples `n` programs for each subtask and judges them.

        Args:
            subtasks: what to write.
            n: samples a subtask.
            sampling: temperature, nucleus, longest response.
            seed: the same seed and subtasks give the same samples.
            trace: whether the verdicts tell which statements ran.

        Returns:
            `n` samples a subtask, in the order of the subtasks. A sample that the judge failed on has the outcome
            `infra_error`.
        """
        prompts = [subtask.prompt_ids for subtask in subtasks for _ in range(n)]
        responses = self.generator.generate(prompts, sampling, seed)
        pending: list[tuple[Subtask, int, list[int], str, str, Future[Verdict]]] = []
        for position, ids in enumerate(responses):
            subtask = subtasks[position // n]
            completion = text_of(bytes_of(ids, self.table))
            program = program_of(subtask.opened, completion)
            job = job_of(
                subtask.problem, program, limits=self.limits, trace=trace, id=f"{subtask.problem.id}#{position % n}"
            )
            pending.append((subtask, position % n, ids, completion, program, self.sandbox.submit(job)))
        samples = [
            Sample(
                problem_id=subtask.problem.id,
                index=index,
                opened=subtask.opened,
                completion=completion,
                program=program,
                verdict=verdict.result(),
                prompt_ids=subtask.prompt_ids,
                response_ids=tuple(ids),
                truncated=ids[-1] not in self.generator.ends,
            )
            for subtask, index, ids, completion, program, verdict in pending
        ]
        if failed := sum(sample.verdict.outcome is Outcome.INFRA_ERROR for sample in samples):
            log.warning("the judge failed on samples; they are left out", samples=failed, of=len(samples))
        return samples


@dataclass(frozen=True)
class PassRate:
    """pass@1 of a policy on some problems: the mean over problems of the share of samples that pass."""

    pass_at_1: float | None
    """`None` when no problem was measured."""
    problems: int
    samples: int
    left_out: int
    """Problems whose opened code does not fit into the prompt; they count as not passed."""


def pass_rate(
    sampler: Sampler, problems: Sequence[Problem], *, n: int, sampling: Sampling, longest_prompt: int, seed: int
) -> PassRate:
    """Measures pass@1 from scratch (starter code only)."""
    subtasks = [sampler.subtask(problem, problem.starter, longest_prompt) for problem in problems]
    fitting = [subtask for subtask in subtasks if subtask is not None]
    judged = [
        sample
        for sample in sampler.sample(fitting, n, sampling, seed, trace=False)
        if sample.verdict.outcome is not Outcome.INFRA_ERROR
    ]
    shares: dict[str, list[bool]] = {}
    for sample in judged:
        shares.setdefault(sample.problem_id, []).append(sample.verdict.passed)
    left_out = len(subtasks) - len(fitting)
    total = len(shares) + left_out
    mean = sum(sum(passed) / len(passed) for passed in shares.values()) / total if total else None
    return PassRate(mean, total, len(judged), left_out)


def sample_programs(
    model_folder: Path | str,
    problems: Sequence[Problem],
    *,
    n: int,
    sampling: Sampling,
    sandbox: Sandbox,
    seed: int,
    batch_size: int,
    max_prompt_tokens: int = 1024,
    limits: Limits | None = None,
) -> list[Sample]:
    """Loads a policy and samples `n` judged programs a problem, from scratch.

    A problem whose starter does not fit into the prompt gives no sample; the caller counts it as not passed.
    """
    address = str(model_folder)
    tokenizer = load_tokenizer(address)
    policy = load_policy(address)
    check_room(policy, tokenizer, max_prompt_tokens + sampling.max_new_tokens)
    sampler = Sampler(
        TransformersGenerator(policy, tokenizer, batch_size),
        Template.of(tokenizer),
        sandbox,
        limits or Limits(),
        token_bytes(tokenizer),
    )
    subtasks = [sampler.subtask(problem, problem.starter, max_prompt_tokens) for problem in problems]
    return sampler.sample([subtask for subtask in subtasks if subtask is not None], n, sampling, seed)
