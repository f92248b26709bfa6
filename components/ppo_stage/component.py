"""ppo-stage: one stage of PPO with the completion curriculum and execution masks."""

from typing import NamedTuple

from kfp import dsl

from stepcoder import images


@dsl.component(base_image=images.TRAINER, install_kfp_package=False)
def ppo_stage(
    dataset: dsl.Input[dsl.Dataset],
    policy_in: dsl.Input[dsl.Model],
    reference: dsl.Input[dsl.Model],
    history_in: dsl.Input[dsl.Artifact],
    stage: int,
    stages: int,
    settings: dict,
    checkpoints: str,
    policy: dsl.Output[dsl.Model],
    critic: dsl.Output[dsl.Model],
    curriculum: dsl.Output[dsl.Artifact],
    history: dsl.Output[dsl.Artifact],
    critic_in: dsl.Input[dsl.Model] = None,
    curriculum_in: dsl.Input[dsl.Artifact] = None,
    nodes: int = 0,
    gpus_per_node: int = 1,
    gpu_type: str = "nvidia.com/gpu",
    cpu_per_node: str = "",
    memory_per_node: str = "",
    queue: str = "",
) -> NamedTuple("Outputs", [("policy_uri", str)]):
    """Trains the policy by the rewards of unit tests, with every problem's level capped by the stage.

    Args:
        dataset: Folder from verify-dataset.
        policy_in: Policy of the stage before; the SFT policy in stage 1.
        reference: SFT policy, from which the KL penalty is measured in all stages.
        history_in: Training record so far.
        stage: Number of this stage, from 1.
        stages: Number of all stages.
        settings: Settings of the step; the table below lists them.
        checkpoints: Folder or s3:// address under which the step keeps checkpoints to resume from; empty for none.
        policy: Hugging Face checkpoint with stepcoder.json.
        critic: Critic for the next stage.
        curriculum: Level and moving pass rate of every problem, for the next stage.
        history: Training record including this stage.
        critic_in: Critic of the stage before; none in stage 1.
        curriculum_in: Curriculum of the stage before; none in stage 1.
        nodes: Machines that train together as a TrainJob of Kubeflow Trainer; 0 trains in this pod.
        gpus_per_node: GPUs of each machine of the TrainJob, one rank a GPU; 0 trains on its processors.
        gpu_type: Resource name of the GPUs.
        cpu_per_node: Processors of each machine of the TrainJob; empty for as many as this pod has.
        memory_per_node: Memory of each machine of the TrainJob; empty for as much as this pod has.
        queue: Kueue queue (LocalQueue) in which the TrainJob waits; empty for none.

    Returns:
        policy_uri: Address of the policy, for steps that need no download.
    """
    from stepcoder.platform import history as records
    from stepcoder.platform import trainjob
    from stepcoder.platform.config import parse
    from stepcoder.platform.entry import running
    from stepcoder.ppo import PpoConfig, train

    with running(f"ppo-stage-{stage}"):
        # Other machines have the artifacts by address alone, and publish them themselves.
        place = "uri" if nodes else "path"
        inputs = {
            "dataset": getattr(dataset, place),
            "policy": getattr(policy_in, place),
            "reference": getattr(reference, place),
            "critic": getattr(critic_in, place) if critic_in else None,
            "curriculum": getattr(curriculum_in, place) if curriculum_in else None,
            "stage": stage,
            "stages": stages,
            "checkpoints": checkpoints or None,
            "out": getattr(policy, place),
            "out_critic": getattr(critic, place),
            "out_curriculum": getattr(curriculum, place),
        }
        config = parse(PpoConfig, settings, where="ppo", **inputs)
        if nodes:
            machines = trainjob.Machines(nodes, gpus_per_node, gpu_type, cpu_per_node, memory_per_node, queue)
            trainjob.train("ppo", stage, config, machines)
        else:
            train(config)
        records.carry(history_in.path, getattr(policy, place), history.path)
    return (policy.uri,)
