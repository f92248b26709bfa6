"""The settings of an evaluation."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from stepcoder.platform.config import StepConfig
from stepcoder.sandbox.address import default_address


class EvaluationConfig(StepConfig):
    """What to measure, on what, and how."""

    dataset: str
    """Folder of the verified dataset; its `test.jsonl` is used. A path or an `s3://` address."""
    candidate: str
    """The policy in question: a checkpoint folder or an `s3://` address."""
    out: str
    """Where `metrics.json`, `samples.jsonl` and `report.html` go: a path or an `s3://` address."""
    base: str | None = None
    """The model before any training: a Hugging Face id, a checkpoint folder or an `s3://` address; empty for none."""
    sft: str | None = None
    """The policy after supervised fine-tuning; empty for none."""
    champion: str | None = None
    """The best policy so far; empty when there is none yet."""
    base_digest: str | None = None
    """Digest of the base model where it is known: with an earlier measurement its weights are not fetched."""
    champion_digest: str | None = None
    """Digest of the champion where it is known: with an earlier measurement its weights are not fetched."""
    history: tuple[str, ...] = ()
    """Policy folders of the training steps in order (SFT, then every PPO stage), for the curves of the report."""
    measured: str | None = None
    """Where measurements are kept for later evaluations: a path or an `s3://` address; empty to sample always."""
    problems: int | None = Field(default=None, ge=1)
    """Measure at most this many test problems, chosen by a hash of their id; default all."""
    samples: int = Field(default=10, ge=1)
    """Samples a problem."""
    ks: tuple[int, ...] = (1, 5, 10)
    """Sizes for pass@k; those above `samples` are left out. pass@1 is always measured."""
    temperature: float = Field(default=0.2, gt=0)
    """Sampling temperature."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus: share of the probability that is sampled from."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest response, in tokens."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    """Longest prompt in tokens. Longer statements are cut at their left end."""
    sampling_batch: int = Field(default=64, ge=1)
    """Sequences that are generated together: more is faster and takes more memory."""
    seed: int = Field(default=1, ge=0)
    """Seed of the sampling and of the bootstrap."""
    resamples: int = Field(default=10_000, ge=100)
    """Bootstrap resamples of the problems."""
    confidence: float = Field(default=0.95, gt=0, lt=1)
    """Share of the resampled means inside an interval."""
    sandbox: str = Field(default_factory=default_address)
    """Where programs run: `local`; `unsafe`, the same where the kernel cannot isolate; `docker`; or the address of a
    service: `http://HOST:PORT`, `https://HOST`, `http+unix:///PATH/TO/SOCKET`. Not given: `$STEPCODER_SANDBOX`,
    else `local`."""
    sandbox_slots: int | None = Field(default=None, ge=1)
    """Programs judged at the same time. Empty: one a core."""
    cpu_seconds: float = Field(default=3.0, gt=0)
    """CPU seconds a test."""
    memory_mib: int = Field(default=512, ge=16)
    """Address space of a program in MiB."""
    shown: int = Field(default=3, ge=0)
    """Sampled programs in the report for each model and outcome."""

    @field_validator("base", "sft", "champion", "base_digest", "champion_digest", "measured", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        # Kubeflow has no optional text: an absent one arrives empty.
        return None if value == "" else value

    @model_validator(mode="after")
    def _ks_are_sizes(self) -> Self:
        if any(k < 1 for k in self.ks):
            raise ValueError("ks: every size for pass@k must be at least 1")
        return self

    def measured_by(self) -> dict[str, float | int]:
        """The settings that a measurement depends on, besides the checkpoint and the problems.

        Not the number of sequences at once, which changes them by rounding at most.
        """
        names = ("samples", "temperature", "top_p", "max_prompt_tokens", "max_new_tokens", "seed")
        return self.model_dump(include={*names, "cpu_seconds", "memory_mib"})

    @property
    def sizes(self) -> list[int]:
        """The sizes for pass@k that the number of samples allows, ascending, 1 included."""
        return sorted({1, *(k for k in self.ks if k <= self.samples)})
