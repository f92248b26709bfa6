"""The evaluation step: measure every model on the same test problems, compare them, write the report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stepcoder
from stepcoder.errors import DataError
from stepcoder.evaluation.config import EvaluationConfig
from stepcoder.evaluation.history import History, read_history
from stepcoder.evaluation.measured import measurement_key, problems_digest, read_measurement, write_measurement
from stepcoder.evaluation.metrics import (
    MODELS,
    DatasetFacts,
    Metrics,
    ModelMetrics,
    compare,
    count_by_difficulty,
    flat,
    measure,
)
from stepcoder.evaluation.report import render
from stepcoder.evaluation.samples import JudgedSample, write_samples
from stepcoder.platform import hub, storage
from stepcoder.platform.config import write_resolved
from stepcoder.platform.logs import get_logger
from stepcoder.platform.tracking import Tracker
from stepcoder.platform.tracking.unsent import METRICS_NAME, UNSENT_NAME, send_all
from stepcoder.problems import load_problems
from stepcoder.problems.problem import Problem

if TYPE_CHECKING:
    from stepcoder.rollouts import Sample

log = get_logger("evaluate")

Sampler = Callable[[EvaluationConfig, str, Sequence[Problem]], "list[Sample]"]
"""Samples and judges programs of one checkpoint for some problems."""


def evaluate(config: EvaluationConfig, sampler: Sampler | None = None) -> Metrics:
    """Measures base, SFT policy, candidate and champion on the test problems and writes the evaluation's folder.

    What was measured before under the same digests and settings is read from `config.measured`. Every finished
    model is kept there at once, so an evaluation that was stopped goes on with the next model.

    Args:
        config: the settings.
        sampler: takes the place of sampling by `stepcoder.rollouts`.

    Raises:
        DataError: the dataset has no test problems, or a model cannot be found.
        StepCoderError: an object store failed, the disk is full, or sampling failed.
    """
    addresses = {name: address for name in MODELS if (address := getattr(config, name)) is not None}
    dataset = storage.fetch(config.dataset)
    problems = _test_problems(dataset, config)
    history = read_history(config.history)
    for text in history.missing:
        log.warning("left out of the report", reason=text)

    send_all(config.history)
    with storage.staged(config.out) as folder:
        with Tracker.start("evaluate", folder) as tracker:
            tracker.params(config.model_dump())
            samples: dict[str, list[JudgedSample]] = {}
            models: dict[str, ModelMetrics] = {}
            by_key: dict[str, list[JudgedSample]] = {}
            for name, address in addresses.items():
                samples[name], models[name] = _measured_model(
                    config, name, address, problems, by_key, sampler or sample_and_judge
                )
            metrics = Metrics(
                code_version=stepcoder.__version__,
                dataset=DatasetFacts(
                    address=config.dataset,
                    digest=storage.digest(dataset),
                    problems_digest=problems_digest(problems),
                    problems=len(problems),
                    by_difficulty=count_by_difficulty(problems),
                ),
                **config.model_dump(
                    include={"samples", "temperature", "top_p", "max_new_tokens", "seed", "resamples", "confidence"}
                ),
                models=models,
                comparisons=compare(models, resamples=config.resamples, confidence=config.confidence, seed=config.seed),
            )
            tracker.metrics(flat(metrics), step=0)
            tracker.tags({"stepcoder.dataset_digest": metrics.dataset.digest})
            _write(folder, config, metrics, problems, samples, history)
            tracker.artifact(folder / "metrics.json")
            tracker.artifact(folder / "report.html")
        if not (folder / UNSENT_NAME).exists():
            # metrics.json has these figures; they are needed line by line only to send them later.
            (folder / METRICS_NAME).unlink()
    log.info("evaluation written", out=config.out)
    return metrics


def sample_and_judge(config: EvaluationConfig, checkpoint: str, problems: Sequence[Problem]) -> list[Sample]:
    """Samples with the checkpoint and judges the programs: the one part that needs torch."""
    from stepcoder.model.settings import Sampling
    from stepcoder.rollouts import sample_programs
    from stepcoder.sandbox import Limits, open_sandbox

    sampling = Sampling(temperature=config.temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens)
    with open_sandbox(config.sandbox, config.sandbox_slots) as sandbox:
        return sample_programs(
            checkpoint,
            problems,
            n=config.samples,
            sampling=sampling,
            sandbox=sandbox,
            seed=config.seed,
            batch_size=config.sampling_batch,
            max_prompt_tokens=config.max_prompt_tokens,
            limits=Limits(cpu_seconds=config.cpu_seconds, memory_mib=config.memory_mib),
        )


def _test_problems(dataset: Path, config: EvaluationConfig) -> list[Problem]:
    path = dataset / "test.jsonl"
    if not path.is_file():
        raise DataError(f"{config.dataset}: has no test.jsonl; give the folder that `stepcoder verify` wrote")
    problems = load_problems(path)
    if not problems:
        raise DataError(
            f"{config.dataset}/test.jsonl: holds no problems, so nothing can be measured; "
            "verify more records or raise the share of the test split"
        )
    if config.problems is not None and config.problems < len(problems):
        # By a hash: the first of a file are often of one kind.
        chosen = sorted(problems, key=lambda problem: hashlib.sha256(problem.id.encode()).digest())
        kept = {problem.id for problem in chosen[: config.problems]}
        problems = [problem for problem in problems if problem.id in kept]
    return problems


def _measured_model(
    config: EvaluationConfig,
    name: str,
    address: str,
    problems: Sequence[Problem],
    by_key: dict[str, list[JudgedSample]],
    sampler: Sampler,
) -> tuple[list[JudgedSample], ModelMetrics]:
    """One model's samples and figures: from this run, from an earlier one, or by sampling."""
    digest = {"base": config.base_digest, "champion": config.champion_digest}.get(name)
    measured = config.measured
    if digest is None and name == "base" and hub.is_id(address):
        # The hub's content may change under one id, so nothing may be reused without a digest.
        digest, measured = address, None
    if digest is None:
        digest = storage.digest(storage.fetch(address))
    settings: dict[str, Any] = {
        "code_version": stepcoder.__version__,
        "model": digest,
        "problems": problems_digest(problems),
        **config.measured_by(),
    }
    key = measurement_key(settings)
    found = by_key.get(key)
    if found is None and measured is not None:
        found = read_measurement(measured, key)
    reused = found is not None
    if found is None:
        log.info("sampling", model=name, problems=len(problems), samples=config.samples)
        here = address if hub.is_id(address) else str(storage.fetch(address))
        found = [JudgedSample.of(sample) for sample in sampler(config, here, problems)]
        if measured is not None and all(sample.judged for sample in found):
            # What the judge failed on would otherwise be held against this checkpoint for good.
            write_measurement(measured, key, settings, found)
    by_key[key] = found
    figures = measure(
        problems,
        found,
        config.sizes,
        per_problem=config.samples,
        address=address,
        digest=digest,
        reused=reused,
        resamples=config.resamples,
        confidence=config.confidence,
        seed=config.seed,
    )
    log.info("measured", model=name, reused=reused, infra_errors=figures.infra_errors, **_pass_at_1(figures))
    return found, figures


def _pass_at_1(figures: ModelMetrics) -> dict[str, float]:
    figure = figures.overall.pass_at_k["1"]
    return {} if figure is None else {"pass_at_1": figure.value, "low": figure.low, "high": figure.high}


def _write(
    folder: Path,
    config: EvaluationConfig,
    metrics: Metrics,
    problems: Sequence[Problem],
    samples: dict[str, list[JudgedSample]],
    history: History,
) -> None:
    lines = (({"model": name}, sample) for name, drawn in samples.items() for sample in drawn)
    write_samples(folder / "samples.jsonl", lines)
    storage.write_text(folder / "metrics.json", metrics.model_dump_json(indent=1) + "\n")
    storage.write_text(folder / "report.html", render(metrics, problems, samples, history, shown=config.shown))
    write_resolved(config, folder)
