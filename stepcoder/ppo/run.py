"""The PPO loop of one pipeline stage, from top to bottom."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from stepcoder import curriculum as cccs
from stepcoder.errors import DataError, StepCoderError
from stepcoder.model import adapters
from stepcoder.model.batch import Packed
from stepcoder.model.critic import Critic, load_critic
from stepcoder.model.load import load_tokenizer, local_model, tell_device
from stepcoder.model.policy import Policy
from stepcoder.model.seeds import derived_seed, permutation
from stepcoder.platform import engine, ranks
from stepcoder.platform.checkpoints import Checkpoints
from stepcoder.platform.logs import Clock, Progress, get_logger
from stepcoder.platform.tracking import METRICS_NAME, Tracker
from stepcoder.ppo.artifacts import (
    CURRICULUM_NAME,
    begin_curriculum,
    identity,
    inherited_beta,
    load_networks,
    save_all,
)
from stepcoder.ppo.config import PpoConfig
from stepcoder.ppo.experience import assemble, score
from stepcoder.ppo.moments import NO_REWARDS_YET, Moments
from stepcoder.ppo.objective import adapted_beta, explained_variance, kl_estimates
from stepcoder.ppo.update import update
from stepcoder.problems import Problem
from stepcoder.rewards import PASS, reward
from stepcoder.rollouts import Sample, Sampler, Subtask, in_order
from stepcoder.validation import (
    Dataset,
    check_places,
    measured_already,
    open_dataset,
    open_sampler,
    output,
    validate,
    write_summary,
)

log = get_logger("ppo")

_RATIO_DEVIATION = {"fp32": 1e-3, "bf16": 0.1}
"""What rounding can make of the first mini-batch's ratio, which is 1; more is a fault."""


def train(config: PpoConfig) -> None:
    """Trains one stage; publishes policy, critic and curriculum.

    Raises:
        DataError: an input or an output place cannot be used.
        StepCoderError: a fault at run time, such as a full disk.
    """
    outputs = ("out", "out_critic", "out_curriculum")
    check_places(config, ("policy", "reference", "critic", "curriculum"), outputs)
    engine.start(config.rank_timeout_seconds)
    tell_device()
    dataset = open_dataset(config.dataset)
    tokenizer = load_tokenizer(config.policy)
    language_model, reference = load_networks(config)
    critic = load_critic(config.critic or config.reference, config.precision)
    if config.lora_rank:
        adapters.add(critic.backbone, config.lora_rank, config.lora_alpha, config.seed)
    stage = _Stage(
        config=config,
        dataset=dataset,
        policy=Policy(language_model, config.head_chunk_mib),
        reference=reference,
        critic=critic,
        curriculum=begin_curriculum(config, dataset.train),
        beta=inherited_beta(config),
    )
    checkpoints = Checkpoints(config.checkpoints, identity(config, dataset), keep=config.keep_checkpoints)
    with (
        output(config.out) as folder,
        output(config.out_critic) as critic_folder,
        output(config.out_curriculum) as curriculum_folder,
        Tracker.start(f"ppo-stage-{config.stage}", folder, checkpoints.place) as tracker,
    ):
        tracker.params(config.model_dump(mode="json"))
        with open_sampler(config, language_model, tokenizer) as sampler:
            before = measured_already(Path(local_model(config.policy)), config, dataset)
            before = before or validate(sampler, config, dataset)
            stage.run(sampler, tracker, checkpoints)
            ranks.at("validation")
            with stage.policy_engine.generating():
                after = validate(sampler, config, dataset)
        if after.pass_at_1 is not None:
            tracker.metrics({"stage": config.stage, "validation_pass_at_1": after.pass_at_1}, step=config.steps)
        ranks.at("publishing")
        save_all(stage, tokenizer, folder, critic_folder, curriculum_folder)
        write_summary(folder, "ppo", config.stage, before, after, config, dataset)
    checkpoints.finish(config.out)


@dataclass
class _Stage:
    """What changes from step to step."""

    config: PpoConfig
    dataset: Dataset
    policy: Policy
    reference: Policy | None
    """`None`: the policy with its adapters off."""
    critic: Critic
    curriculum: cccs.Curriculum
    beta: float
    moments: Moments = NO_REWARDS_YET

    def run(self, sampler: Sampler, tracker: Tracker, checkpoints: Checkpoints) -> None:
        """All PPO steps of the stage."""
        config = self.config
        self.policy_engine = self._engine(self.policy, config.learning_rate, 1e-6)
        self.critic_engine = self._engine(self.critic, config.critic_learning_rate, 1e-8)
        done = self._resume(tracker, checkpoints)
        if all(self._subtask(problem, sampler) is None for problem in self.dataset.train):
            raise DataError(
                f"{config.dataset}: no training problem fits max_prompt_tokens={config.max_prompt_tokens}; raise it"
            )
        with Progress(range(config.steps), f"ppo stage {config.stage}") as bar:
            bar.advance(done)
            for step in range(done, config.steps):
                if subtasks := self._subtasks(step, sampler):
                    metrics = self._step(step, subtasks, sampler)
                    tracker.metrics({"stage": config.stage, **metrics}, step=step + 1)
                    bar.advance(reward=f"{metrics['reward']:.3f}", pass_rate=f"{metrics['pass_rate']:.3f}")
                else:
                    log.warning(
                        "no prompt of this step fits", step=step + 1, max_prompt_tokens=config.max_prompt_tokens
                    )
                    tracker.metrics({"stage": config.stage, "left_out_prompts": self._wanted}, step=step + 1)
                    bar.advance()
                if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
                    checkpoints.save(step + 1, lambda folder: self._checkpoint(folder, tracker))

    def _engine(self, network: Policy | Critic, learning_rate: float, epsilon: float) -> engine.Engine:
        config = self.config
        return engine.Engine(
            network,
            learning_rate=learning_rate,
            schedule=engine.warm_up_then_inverse_root(config.warmup_steps),
            epsilon=epsilon,
            zero_stage=config.zero_stage,
            precision=config.precision,
            max_gradient_norm=config.max_gradient_norm,
            gradient_checkpointing=config.gradient_checkpointing,
            offload=config.offload,
        )

    def _step(self, step: int, subtasks: Sequence[Subtask], sampler: Sampler) -> dict[str, Any]:
        config = self.config
        clock = Clock()
        # 1. Roll-outs from each problem's own start point; a program is judged while others are being sampled.
        ranks.at(f"roll-outs of step {step + 1}")
        seed = derived_seed("ppo", config.seed, config.stage, step)
        with self.policy_engine.generating():
            begun = sampler.roll_outs(subtasks, config.samples_per_problem, config.sampling, seed)
        clock.lap("rollouts")
        # 2. Log-probs and values, while the last programs are being judged. What the judge failed on is left out.
        ranks.at(f"scoring of step {step + 1}")
        scores = score(
            begun,
            partial(self.policy_engine, temperature=config.temperature, entropy=True)
            if config.old_log_probs == "recomputed"
            else None,
            self._reference_scores,
            self.critic_engine,
            config.micro_batch_tokens,
        )
        clock.lap("scoring")
        judged = []
        for roll_out, own in zip(begun, scores, strict=True):
            judged.append((roll_out.judged(), own))
            ranks.busy()
        clock.lap("judging")
        sampled = in_order(judged, config.samples_per_problem)
        scored = [(sample, own, reward(sample.verdict.outcome)) for sample, own in sampled]
        kept = [(sample, own, value) for sample, own, value in scored if value is not None]
        if not kept:
            raise StepCoderError(f"step {step + 1}: the judge failed on all {len(sampled)} samples; see the log above")
        if len(kept) < len(sampled):
            log.warning("the judge failed on samples; they are left out", samples=len(sampled) - len(kept))
        samples, rewards = [sample for sample, _, _ in kept], [value for _, _, value in kept]
        # 3. KL penalty, advantages, returns.
        scaled = rewards
        if config.scale_rewards:
            self.moments = self.moments.updated(rewards)
            scaled = [value / self.moments.deviation for value in rewards]
        experience = assemble(samples, scaled, [own for _, own, _ in kept], sampler.table, config, beta=self.beta)
        # 4. Update of policy and critic.
        ranks.at(f"update of step {step + 1}")
        policy_learns = config.critic is not None or step >= config.critic_warmup_steps
        learning = self.policy_engine if policy_learns else None
        metrics: dict[str, Any] = dict(update(experience, learning, self.critic_engine, config, seed))
        clock.lap("update")
        # 5. Curriculum and KL weight for the next step.
        advanced = self._advance(samples, rewards) if config.use_curriculum else 0
        mask = experience.response_mask
        kl = kl_estimates((experience.log_probs - experience.reference_log_probs)[mask])
        tokens = int(mask.sum())
        if config.old_log_probs == "recomputed":
            mismatch = (experience.behaviour_log_probs - experience.log_probs)[mask].abs()
            metrics |= {"sampling_mismatch": mismatch.mean().item(), "sampling_mismatch_max": mismatch.max().item()}
            if (deviation := metrics.get("ratio_deviation", 0.0)) > _RATIO_DEVIATION[config.precision]:
                log.warning("the first ratio of a step is not 1", step=step + 1, deviation=deviation)
        metrics |= {
            "reward": sum(rewards) / len(rewards),
            "pass_rate": sum(value == PASS for value in rewards) / len(rewards),
            **kl,
            "kl_beta": self.beta,
            "learning_rate": self.policy_engine.learning_rate,
            "entropy": experience.entropy[mask].mean().item(),
            "explained_variance": explained_variance(experience.values[mask], experience.returns[mask]),
            "executed_fraction": experience.policy_mask.sum().item() / tokens,
            "response_length": tokens / len(samples),
            "truncated": sum(sample.truncated for sample in samples) / len(samples),
            "level_mean": sum(now.level for now in self.curriculum.values()) / len(self.curriculum),
            "level_counts": {str(level): n for level, n in cccs.level_counts(self.curriculum).items()},
            "advanced": advanced,
            "left_out_prompts": self._wanted - len(subtasks),
            "left_out_samples": len(sampled) - len(samples),
            **clock.seconds,
            "tokens_per_second": tokens / clock.total,
        }
        if config.kl_target is not None:
            self.beta = adapted_beta(
                self.beta, kl["kl"], target=config.kl_target, samples=len(samples), horizon=config.kl_horizon
            )
        return metrics

    def _reference_scores(self, packed: Packed) -> tuple[Tensor, Tensor | None]:
        temperature = self.config.temperature
        if self.reference is not None:
            return self.reference(packed, temperature)  # type: ignore[no-any-return]
        with adapters.off(self.policy.language_model):
            return self.policy_engine(packed, temperature)  # type: ignore[no-any-return]

    @property
    def _wanted(self) -> int:
        """Problems a step."""
        return min(self.config.problems_per_step, len(self.dataset.train))

    def _subtask(self, problem: Problem, sampler: Sampler) -> Subtask | None:
        """A problem from where it stands in the curriculum; `None` when its opened code does not fit."""
        level = self.curriculum[problem.id].level
        opened = cccs.opened_code(problem, level, self.config.conditional_kinds)
        return sampler.subtask(problem, opened, self.config.max_prompt_tokens)

    def _subtasks(self, step: int, sampler: Sampler) -> list[Subtask]:
        """The next problems in an order that is drawn anew for each pass; what does not fit is left out."""
        config, problems = self.config, self.dataset.train
        chosen: list[Subtask] = []
        positions = range(step * self._wanted, (step + 1) * self._wanted)
        turns = {position // len(problems) for position in positions}
        orders = {turn: permutation(len(problems), "problems", config.seed, config.stage, turn) for turn in turns}
        for position in positions:
            turn, place = divmod(position, len(problems))
            subtask = self._subtask(problems[orders[turn][place]], sampler)
            if subtask is not None:
                chosen.append(subtask)
        return chosen

    def _advance(self, samples: Sequence[Sample], rewards: Sequence[float]) -> int:
        """Moves every problem of the step by its own pass rate; returns how many went one level down."""
        passed: dict[str, list[bool]] = {}
        for sample, value in zip(samples, rewards, strict=True):
            passed.setdefault(sample.problem_id, []).append(value == PASS)
        advanced = 0
        for problem_id, results in passed.items():
            now = self.curriculum[problem_id]
            new = cccs.advance(
                now,
                sum(results) / len(results),
                alpha=self.config.curriculum_alpha,
                threshold=self.config.curriculum_threshold,
            )
            advanced += new.level < now.level
            self.curriculum[problem_id] = new
        return advanced

    def _checkpoint(self, folder: Path, tracker: Tracker) -> None:
        self.policy_engine.save(folder, "policy")
        self.critic_engine.save(folder, "critic")
        if not ranks.is_main():
            return
        cccs.save(self.curriculum, folder / CURRICULUM_NAME)
        state = {"beta": self.beta, "moments": asdict(self.moments)}
        (folder / "state.json").write_text(json.dumps(state))
        shutil.copyfile(tracker.folder / METRICS_NAME, folder / METRICS_NAME)

    def _resume(self, tracker: Tracker, checkpoints: Checkpoints) -> int:
        found = checkpoints.newest()
        if found is None:
            return 0
        done, place = found
        self.policy_engine.load(place, "policy")
        self.critic_engine.load(place, "critic")
        self.curriculum = cccs.load(place / CURRICULUM_NAME)
        state = json.loads((place / "state.json").read_text())
        self.beta, self.moments = state["beta"], Moments(**state["moments"])
        if ranks.is_main():
            tracker.resume(place / METRICS_NAME)
        return done
