"""From problems to judged programs: prompt, sampled ids, program, verdict. Training and evaluation both start here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from stepcoder.model.generation import Generator, Request, TransformersGenerator
from stepcoder.model.load import check_room, load_policy, load_tokenizer, tell_device
from stepcoder.model.prompt import Template, program_of
from stepcoder.model.seeds import derived_seed
from stepcoder.model.settings import Sampling
from stepcoder.model.tokens import bytes_of, text_of, token_bytes
from stepcoder.platform import ranks
from stepcoder.platform.logs import get_logger
from stepcoder.problems import Problem
from stepcoder.sandbox import Limits, Sandbox, Verdict, job_of

log = get_logger("rollouts")

T = TypeVar("T")


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
    log_probs: tuple[float, ...]
    """Of each response id, as the sampling itself had them."""
    truncated: bool
    """Whether the response met the longest length before its end."""

    @property
    def tokens(self) -> int:
        """Length of the response in tokens."""
        return len(self.response_ids)


@dataclass(frozen=True)
class Rollout:
    """A sampled program that is still being judged."""

    sample: Callable[[Verdict], Sample]
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    verdict: Future[Verdict]

    def judged(self) -> Sample:
        """Waits for the verdict."""
        return self.sample(self.verdict.result())


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

    def roll_outs(
        self, subtasks: Sequence[Subtask], n: int, sampling: Sampling, seed: int, *, trace: bool = True
    ) -> list[Rollout]:
        """Samples this rank's share of the subtasks, and lets each program be judged while others are being sampled.

        Args:
            subtasks: what to write, the same on all ranks; rank `r` of `R` takes every `R`th from the `r`th on.
            n: samples a subtask.
            sampling: temperature, nucleus, longest response.
            seed: the same seed gives the same samples of a subtask, on any number of ranks.
            trace: whether the verdicts tell which statements ran.

        Returns:
            `n` roll-outs a subtask, in the order of the subtasks.
        """
        mine = subtasks[ranks.rank() :: ranks.count()]
        # A problem may come up twice in a step: its second turn draws other samples.
        met: Counter[str] = Counter()
        seeds = []
        for task in subtasks:
            seeds.append(derived_seed(seed, task.problem.id, met[task.problem.id]))
            met[task.problem.id] += 1
        seeds = seeds[ranks.rank() :: ranks.count()]
        requests = [Request(task.prompt_ids, n, own) for task, own in zip(mine, seeds, strict=True)]
        begun: dict[tuple[int, int], Rollout] = {}
        for response in self.generator.generate(requests, sampling):
            ranks.busy()
            task, ids, log_probs = mine[response.request], tuple(response.ids), tuple(response.log_probs)
            completion = text_of(bytes_of(ids, self.table))
            program = program_of(task.opened, completion)
            name = f"{task.problem.id}#{response.number}"
            job = job_of(task.problem, program, limits=self.limits, trace=trace, id=name)
            sample = partial(
                Sample,
                task.problem.id,
                response.number,
                task.opened,
                completion,
                program,
                prompt_ids=task.prompt_ids,
                response_ids=ids,
                log_probs=log_probs,
                truncated=ids[-1] not in self.generator.ends,
            )
            verdict = self.sandbox.submit(job)
            begun[response.request, response.number] = Rollout(sample, task.prompt_ids, ids, log_probs, verdict)
        return [begun[place] for place in sorted(begun)]

    def sample(
        self, subtasks: Sequence[Subtask], n: int, sampling: Sampling, seed: int, *, trace: bool = True
    ) -> list[Sample]:
        """Samples `n` judged programs for each subtask on all ranks together; see `roll_outs`.

        Returns:
            `n` samples a subtask, in the order of the subtasks, the same on every rank. A sample that the judge failed
            on has the outcome `infra_error`.
        """
        mine = [roll_out.judged() for roll_out in self.roll_outs(subtasks, n, sampling, seed, trace=trace)]
        samples = in_order(mine, n)
        if failed := sum(not sample.verdict.judged for sample in samples):
            log.warning("the judge failed on samples; they are left out", samples=failed, of=len(samples))
        return samples


def in_order(mine: Sequence[T], n: int) -> list[T]:
    """What all ranks have of `n` roll-outs a subtask, in the order of the subtasks."""
    everyone = ranks.gathered(list(mine))
    rounds = zip_longest(*([each[begin : begin + n] for begin in range(0, len(each), n)] for each in everyone))
    return [item for turn in rounds for group in turn if group is not None for item in group]


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
    samples = sampler.sample(fitting, n, sampling, seed, trace=False)
    judged = [sample for sample in samples if sample.verdict.judged]
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
    """Loads a policy in the number format that it was saved in, and samples `n` judged programs a problem from scratch.

    A problem whose starter does not fit into the prompt gives no sample; the caller counts it as not passed.

    Raises:
        DataError: the model cannot be loaded, or cannot read packed sequences.
    """
    address = str(model_folder)
    tokenizer = load_tokenizer(address)
    tell_device()
    policy = load_policy(address, precision=None)
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
