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
from pipelines.new_data import when_new
from pipelines.pods import PODS, SECRET, Platform, Pod, furnish
from stepcoder import images

DEFAULT_STAGES = 3


def build(
    stages: int = DEFAULT_STAGES,
    *,
    name: str = "stepcoder",
    pods: dict[str, Pod] = PODS,
    settings: dict[str, dict[str, Any]] | None = None,
    gpus: int = 1,
    cluster: bool = True,
    retraining: bool = False,
) -> Any:
    """Composes the pipeline with its PPO stages unrolled: Kubeflow has no loop that carries an artifact along.

    Args:
        stages: Number of PPO stages, at least 1.
        name: Name of the pipeline.
        pods: What each step's pod gets.
        settings: Defaults of the settings parameters `verification`, `sft`, `ppo`, `evaluation`, `gate`.
        gpus: Default of the parameters `training_gpus` and `evaluation_gpus`.
        cluster: Whether Kubeflow is to run it; kfp.local tries no step again and takes no image from a parameter.
        retraining: Whether it trains on new data only, and starts from the champion: `pipelines.retraining`.

    Raises:
        ValueError: fewer than one stage.
    """
    if stages < 1:
        raise ValueError(f"the pipeline needs at least 1 PPO stage, not {stages}")
    defaults = {step: (settings or {}).get(step, {}) for step in ("verification", "sft", "ppo", "evaluation", "gate")}

    def placed(task: dsl.PipelineTask, platform: Platform, step: str, shown: str | None = None) -> dsl.PipelineTask:
        return furnish(task, step, pods[step], platform, cluster=cluster).set_display_name(shown or step)

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
        nodes: int,
        gpus_per_node: int,
        cpu_per_node: str,
        memory_per_node: str,
        queue: str,
        gpu_type: str,
        training_gpus: str,
        evaluation_gpus: str,
        node_selector: dict,
        tolerations: list,
        secret: str,
        trainer_image: str,
        tools_image: str,
    ):
        platform = Platform(
            secret=secret,
            gpu_type=gpu_type,
            training_gpus=training_gpus,
            evaluation_gpus=evaluation_gpus,
            node_selector=node_selector,
            tolerations=tolerations,
            trainer_image=trainer_image,
            tools_image=tools_image,
        )
        train_job = {
            "nodes": nodes,
            "gpus_per_node": gpus_per_node,
            "gpu_type": gpu_type,
            "cpu_per_node": cpu_per_node,
            "memory_per_node": memory_per_node,
            "queue": queue,
        }
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
                checkpoints=checkpoints,
                measurements=measurements,
                warm_start=retraining,
            ),
            platform,
            "resolve-inputs",
        )
        dataset = placed(
            verify_dataset(
                problems=problems,
                problem_format=problem_format,
                problems_digest=inputs.outputs["problems_digest"],
                settings=verification,
            ),
            platform,
            "verify-dataset",
        ).outputs["dataset"]
        reference = placed(
            sft_step(
                dataset=dataset,
                base_model=inputs.outputs["start_model"],
                base_model_digest=inputs.outputs["start_model_digest"],
                settings=sft,
                checkpoints=checkpoints,
                **train_job,
            ),
            platform,
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
                    **train_job,
                    **carried,
                ),
                platform,
                "ppo-stage",
                f"ppo-stage-{stage}",
            )
            carried = {"critic_in": last.outputs["critic"], "curriculum_in": last.outputs["curriculum"]}
        measured = placed(
            evaluate(
                dataset=dataset,
                base_model=inputs.outputs["base_model_uri"],
                base_model_digest=inputs.outputs["base_model_digest"],
                sft_policy=reference.outputs["policy"],
                candidate=last.outputs["policy"],
                champion_uri=inputs.outputs["champion_uri"],
                champion_digest=inputs.outputs["champion_digest"],
                history=last.outputs["history"],
                settings=evaluation,
                measurements=measurements,
            ),
            platform,
            "evaluate",
        )
        decision = placed(
            promotion_gate(evaluation=measured.outputs["evaluation"], settings=gate),
            platform,
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
                base_model_digest=inputs.outputs["start_model_digest"],
                decision=decision.outputs["decision"],
            ),
            platform,
            "register-model",
        )

    steps = when_new(train, name=name, placed=placed) if retraining else train

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
        nodes: int = 0,
        gpus_per_node: int = 1,
        cpu_per_node: str = "",
        memory_per_node: str = "",
        queue: str = "",
        gpu_type: str = "nvidia.com/gpu",
        training_gpus: str = str(gpus),
        evaluation_gpus: str = str(gpus),
        node_selector: dict = {},  # noqa: B006 # Kubeflow reads the default, nobody changes it.
        tolerations: list = [],  # noqa: B006
        secret: str = SECRET,
        trainer_image: str = images.TRAINER,
        tools_image: str = images.TOOLS,
    ):
        """Reinforcement learning from unit tests: SFT, then PPO with a curriculum.

        Args:
            problems: File of problem records, an s3:// address.
            base_model: Hugging Face id (ID@COMMIT for one commit) or s3:// address of a checkpoint folder.
            problem_format: Format of the records (apps_plus, leetcode, humaneval or mbpp).
            model_name: Name in the MLflow model registry.
            champion_alias: Alias of the best registered version.
            verification: Settings of verify-dataset.
            sft: Settings of sft.
            ppo: Settings of every ppo-stage.
            evaluation: Settings of evaluate.
            gate: Settings of promotion-gate.
            checkpoints: s3:// folder where trainings keep checkpoints to resume from; empty for none.
            measurements: s3:// folder where measurements are kept for later runs; empty for none.
            nodes: 0 trains in the step's own pod; any other number hands the training to a TrainJob of so many nodes.
            gpus_per_node: GPUs of each node of a TrainJob.
            cpu_per_node: Processors of each node of a TrainJob; empty for as many as the step's pod has.
            memory_per_node: Memory of each node of a TrainJob; empty for as much as the step's pod has.
            queue: Kueue LocalQueue of a TrainJob; empty for none.
            gpu_type: Resource name of the GPUs.
            training_gpus: GPUs of the pods of sft and ppo-stage, as a text; "0" for none.
            evaluation_gpus: GPUs of the pod of evaluate, as a text; "0" for none.
            node_selector: Node labels that the pods of sft, ppo-stage and evaluate ask for.
            tolerations: Tolerations of the pods of sft, ppo-stage and evaluate, as Kubernetes writes them.
            secret: Name of the secret whose keys become environment variables.
            trainer_image: Image of sft, ppo-stage and evaluate.
            tools_image: Image of all other steps.
        """
        end = placed(notify(pipeline=name), Platform(secret=secret, tools_image=tools_image), "notify")
        with dsl.ExitHandler(end, name="run"):
            steps(
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
                nodes=nodes,
                gpus_per_node=gpus_per_node,
                cpu_per_node=cpu_per_node,
                memory_per_node=memory_per_node,
                queue=queue,
                gpu_type=gpu_type,
                training_gpus=training_gpus,
                evaluation_gpus=evaluation_gpus,
                node_selector=node_selector,
                tolerations=tolerations,
                secret=secret,
                trainer_image=trainer_image,
                tools_image=tools_image,
            )

    return whole
