"""Settings of one PPO stage. Imports no torch, so they can be checked anywhere."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from stepcoder.model.settings import Sampling, TrainingConfig
from stepcoder.problems.conditionals import Kind


class PpoConfig(TrainingConfig):
    """One stage of PPO: roll-outs from each problem's start point, rewards from its tests, updates by executed code."""

    policy: str
    """Folder or `s3://` address of the policy to start from."""
    reference: str
    """Folder or `s3://` address of the policy that the KL penalty is measured from: the SFT policy, in all stages."""
    critic: str | None = None
    """Folder or `s3://` address of the critic of the stage before. Empty: a new one from the reference."""
    curriculum: str | None = None
    """Folder or `s3://` address with `curriculum.json` of the stage before. Empty: every problem at its top level."""
    out_critic: str
    """Folder or `s3://` address of the trained critic."""
    out_curriculum: str
    """Folder or `s3://` address for `curriculum.json`."""
    stage: int = Field(1, ge=1)
    """Number of this stage, from 1."""
    stages: int = Field(1, ge=1)
    """Number of all stages of the pipeline; the last of several is from scratch for all problems."""

    steps: int = Field(100, ge=1)
    """PPO steps: roll-outs, then an update."""
    problems_per_step: int = Field(64, ge=1)
    """Problems a step."""
    samples_per_problem: int = Field(16, ge=1)
    """Roll-outs a problem in a step."""
    temperature: float = Field(0.8, gt=0)
    """Temperature of roll-outs and of their scored log-probs."""
    top_p: float = 1.0
    """Nucleus of roll-outs: only 1, the full one, since the scored log-probs know no other."""

    learning_rate: float = Field(5e-7, gt=0)
    """Peak learning rate of the policy."""
    critic_learning_rate: float = Field(1.5e-6, gt=0)
    """Peak learning rate of the critic."""
    warmup_steps: int = Field(10, ge=0)
    """Optimiser steps of linear warm-up, then inverse square root."""
    critic_warmup_steps: int = Field(0, ge=0)
    """PPO steps at the start of a stage with a new critic in which only the critic learns."""
    ppo_epochs: int = Field(1, ge=1)
    """Passes over a step's roll-outs."""
    old_log_probs: Literal["recomputed", "sampled"] = "recomputed"
    """What ratios are measured from: log-probs `recomputed` before the update by the code that trains, or those that
    were `sampled` with the tokens, which saves a forward pass; in fp32 the two differ by rounding."""
    minibatches: int = Field(4, ge=1)
    """Optimiser steps a pass."""

    kl_beta: float = Field(0.05, ge=0)
    """Weight of the per-token KL penalty towards the reference."""
    kl_target: float | None = Field(None, gt=0)
    """Mean KL a token that an adaptive `kl_beta` steers to. Empty: `kl_beta` stays."""
    kl_horizon: int = Field(10000, ge=1)
    """Samples over which the adaptive `kl_beta` reacts: more than a fifth of a step's."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    """Ratios below `1 - clip_low` are clipped."""
    clip_high: float = Field(0.2, gt=0)
    """Ratios above `1 + clip_high` are clipped."""
    value_clip: float = Field(0.2, gt=0)
    """Values may move this far from those at sampling time before they are clipped."""
    value_loss_weight: float = Field(1.0, ge=0)
    """Weight of the value loss."""
    gamma: float = Field(1.0, ge=0, le=1)
    """Discount a token."""
    gae_lambda: float = Field(0.95, ge=0, le=1)
    """Lambda of the generalised advantage estimate."""
    scale_rewards: bool = False
    """Divide rewards by their running standard deviation (the mean stays)."""

    use_curriculum: bool = True
    """CCCS: start from each problem's level. Off: every problem from scratch."""
    curriculum_alpha: float = Field(0.5, gt=0, le=1)
    """Weight of the newest step in a problem's moving pass rate."""
    curriculum_threshold: float = Field(0.6, ge=0, le=1)
    """Moving pass rate above which a problem goes one level down."""
    conditional_kinds: frozenset[Kind] = frozenset(("if", "for", "while"))
    """Statements that count as conditional."""

    use_execution_mask: bool = True
    """FGO: only executed code enters the policy loss. Off: all of the response."""
    when_nothing_ran: Literal["all", "skip"] = "all"
    """A response of which nothing ran: `all` of it enters the policy loss, or it is skipped."""
    mask_keeps_tail: bool = True
    """Whether the closing fence, what follows and the end of text stay in the policy loss."""
    mask_value_loss: bool = False
    """Whether the execution mask applies to the value loss too."""
    policy_denominator: Literal["executed", "response"] = "executed"
    """What the policy loss is divided by: executed tokens of the whole optimiser step, or all response tokens."""

    @field_validator("top_p")
    @classmethod
    def _full_nucleus(cls, value: float) -> float:
        if value != 1:
            raise ValueError(
                "roll-outs are drawn from the full distribution: with a nucleus below 1 the scored log-probs would "
                "belong to another distribution than the samples; leave it at 1 and lower the temperature instead"
            )
        return value

    @model_validator(mode="after")
    def _stage_is_one_of_them(self) -> Self:
        if self.stage > self.stages:
            raise ValueError(f"stage {self.stage} of {self.stages}: stages are numbered from 1 to {self.stages}")
        return self

    @model_validator(mode="after")
    def _adaptive_kl_weight_cannot_stay_at_0(self) -> Self:
        if self.kl_target is None:
            return self
        if self.kl_beta == 0:
            raise ValueError("kl_beta is 0, and with a kl_target it changes by factors alone: start above 0")
        samples = self.problems_per_step * self.samples_per_problem
        if 5 * self.kl_horizon <= samples:  # A step takes at most a fifth of the weight a horizon of samples.
            raise ValueError(
                f"kl_horizon is {self.kl_horizon}, and a step has {samples} samples: one step with a small KL would "
                f"set kl_beta to 0 for good; set kl_horizon to more than {samples // 5}, or leave kl_target empty"
            )
        return self

    @property
    def sampling(self) -> Sampling:
        """How roll-outs are sampled."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_new_tokens=self.max_new_tokens)
