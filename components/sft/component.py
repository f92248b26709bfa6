"""sft: supervised fine-tuning on the reference solutions."""

from kfp import dsl

from stepcoder import images


@dsl.component(base_image=images.TRAINER, install_kfp_package=False)
def sft(
    dataset: dsl.Input[dsl.Dataset],
    base_model: str,
    base_model_digest: str,
    settings: dict,
    checkpoints: str,
    policy: dsl.Output[dsl.Model],
    history: dsl.Output[dsl.Artifact],
    nodes: int = 0,
    gpus_per_node: int = 1,
    gpu_type: str = "nvidia.com/gpu",
    cpu_per_node: str = "",
    memory_per_node: str = "",
    queue: str = "",
):
    """Trains the base model on the reference solutions; the result is the reference of all PPO stages.

    Args:
        dataset: Folder from verify-dataset.
        base_model: Hugging Face id, checkpoint folder or s3:// address.
        base_model_digest: Digest from resolve-inputs; a changed model misses the cache by it.
        settings: Settings of the step; the table below lists them.
        checkpoints: Folder or s3:// address under which the step keeps checkpoints to resume from; empty for none.
        policy: Hugging Face checkpoint with stepcoder.json.
        history: Curves and validation results of the training so far.
        nodes: Machines that train together as a TrainJob of Kubeflow Trainer; 0 trains in this pod.
        gpus_per_node: GPUs of each machine of the TrainJob, one rank a GPU; 0 trains on its processors.
        gpu_type: Resource name of the GPUs.
        cpu_per_node: Processors of each machine of the TrainJob; empty for as many as this pod has.
        memory_per_node: Memory of each machine of the TrainJob; empty for as much as this pod has.
        queue: Kueue queue (LocalQueue) in which the TrainJob waits; empty for none.
    """
    from stepcoder.platform import history as records
    from stepcoder.platform import trainjob
    from stepcoder.platform.config import parse
    from stepcoder.platform.entry import running
    from stepcoder.sft import SftConfig, train

    with running("sft"):
        # Other machines have the artifacts by address alone, and publish them themselves.
        place = "uri" if nodes else "path"
        inputs = {"dataset": getattr(dataset, place), "base_model": base_model, "out": getattr(policy, place)}
        config = parse(SftConfig, settings, where="sft", checkpoints=checkpoints or None, **inputs)
        if nodes:
            machines = trainjob.Machines(nodes, gpus_per_node, gpu_type, cpu_per_node, memory_per_node, queue)
            trainjob.train("sft", None, config, machines)
        else:
            train(config)
        records.carry(None, getattr(policy, place), history.path)
        policy.metadata["base_model_digest"] = base_model_digest
