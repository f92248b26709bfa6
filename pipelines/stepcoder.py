"""The pipeline: its steps, what flows between them, and what runs at the end whatever happened."""

from typing import Any

from kfp import dsl

from components.evaluate.component import evaluate
from components.notify.component import notify
from components.ppo_stage.component import ppo_stage
from components.promotion_gate.component import promotion_gate
from components.register_model.component import register_model
from components.resolve_inputs.component import resolve_inputs
from components.sft.component import sft as sft_step
from components.verify_dataset.component import verify_dataset
from pipelines.pods import PODS, Pod, furnish

DEFAULT_STAGES = 3


def build(
    stages: int = DEFAULT_STAGES,
    *,
    name: str = "stepcoder",
    pods: dict[str, Pod] = PODS,
    settings: dict[str, dict[str, Any]] | None = None,
    retry: bool = True,
) -> Any:
    """Composes the pipeline with its PPO stages unrolled: Kubeflow has no loop that carries an artifact along.

    Args:
        stages: Number of PPO stages, at least 1.
        name: Name of the pipeline.
        pods: What each step's pod gets.
        settings: Defaults of the settings parameters `verification`, `sft`, `ppo`, `evaluation`, `gate`.
        retry: Whether failed steps are tried again; not where a person watches.

    Raises:
        ValueError: fewer than one stage.
    """
    if stages < 1:
        raise ValueError(f"the pipeline needs at least 1 PPO stage, not {stages}")
    defaults = {step: (settings or {}).get(step, {}) for step in ("verification", "sft", "ppo", "evaluation", "gate")}

    def placed(task: dsl.PipelineTask, pod: str, shown: str | None = None) -> dsl.PipelineTask:
        return furnish(task, pods, pod, retry=retry).set_display_name(shown or pod)

    @dsl.pipeline(name=f"{name}-train", description="All steps but the notification.")
    def train(
        problems: str,
        problem_format: str,
        base_model: str,
        model_name: str,
        champion_alias: str,
        verification: dict,
        sft: dict,
        ppo: dict,
        evaluation: dict,
        gate: dict,
        checkpoints: str,
        measurements: str,
    ):
        inputs = placed(
            resolve_inputs(
                problems=problems,
                problem_format=problem_format,
                base_model=base_model,
                model_name=model_name,
                champion_alias=champion_alias,
                verification=verification,
                sft=sft,
                ppo=ppo,
                evaluation=evaluation,
                gate=gate,
            ),
            "resolve-inputs",
        )
        dataset = placed(
            verify_dataset(
                problems=problems,
                problem_format=problem_format,
                problems_digest=inputs.outputs["problems_digest"],
                settings=verification,
            ),
            "verify-dataset",
        ).outputs["dataset"]
        reference = placed(
            sft_step(
                dataset=dataset,
                base_model=base_model,
                base_model_digest=inputs.outputs["base_model_digest"],
                settings=sft,
                checkpoints=checkpoints,
            ),
            "sft",
        )
        last, carried = reference, {}
        for stage in range(1, stages + 1):
            last = placed(
                ppo_stage(
                    dataset=dataset,
                    policy_in=last.outputs["policy"],
                    reference=reference.outputs["policy"],
                    history_in=last.outputs["history"],
                    stage=stage,
                    stages=stages,
                    settings=ppo,
                    checkpoints=checkpoints,
                    **carried,
                ),
                "ppo-stage",
                f"ppo-stage-{stage}",
            )
            carried = {"critic_in": last.outputs["critic"], "curriculum_in": last.outputs["curriculum"]}
        measured = placed(
            evaluate(
                dataset=dataset,
                base_model=base_model,
                base_model_digest=inputs.outputs["base_model_digest"],
                sft_policy=reference.outputs["policy"],
                candidate=last.outputs["policy"],
                champion_uri=inputs.outputs["champion_uri"],
                champion_digest=inputs.outputs["champion_digest"],
                history=last.outputs["history"],
                settings=evaluation,
                measurements=measurements,
            ),
            "evaluate",
        )
        decision = placed(
            promotion_gate(evaluation=measured.outputs["evaluation"], settings=gate),
            "promotion-gate",
        )
        placed(
            register_model(
                policy_uri=last.outputs["policy_uri"],
                model_name=model_name,
                champion_alias=champion_alias,
                promote=decision.outputs["promote"],
                why=decision.outputs["why"],
                problems_digest=inputs.outputs["problems_digest"],
                base_model_digest=inputs.outputs["base_model_digest"],
                decision=decision.outputs["decision"],
            ),
            "register-model",
        )

    @dsl.pipeline(name=name, description="Reinforcement learning from unit tests: SFT, then PPO with a curriculum.")
    def whole(
        problems: str,
        base_model: str,
        problem_format: str = "apps_plus",
        model_name: str = "stepcoder",
        champion_alias: str = "champion",
        verification: dict = defaults["verification"],
        sft: dict = defaults["sft"],
        ppo: dict = defaults["ppo"],
        evaluation: dict = defaults["evaluation"],
        gate: dict = defaults["gate"],
        checkpoints: str = "",
        measurements: str = "",
    ):
        end = placed(notify(pipeline=name), "notify")
        with dsl.ExitHandler(end, name="run"):
            train(
                problems=problems,
                problem_format=problem_format,
                base_model=base_model,
                model_name=model_name,
                champion_alias=champion_alias,
                verification=verification,
                sft=sft,
                ppo=ppo,
                evaluation=evaluation,
                gate=gate,
                checkpoints=checkpoints,
                measurements=measurements,
            )

    return whole
