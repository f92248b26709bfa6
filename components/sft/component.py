"""sft: supervised fine-tuning on the reference solutions."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.TRAINER, install_kfp_package=False)
def sft(
    dataset: dsl.Input[dsl.Dataset],
    base_model: str,
    base_model_digest: str,
    settings: dict,
    checkpoints: str,
    policy: dsl.Output[dsl.Model],
    history: dsl.Output[dsl.Artifact],
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
    """
    from stepcoder.platform import history as records
    from stepcoder.platform.config import parse
    from stepcoder.platform.entry import running
    from stepcoder.sft import SftConfig, train

    with running("sft"):
        inputs = {"dataset": dataset.path, "base_model": base_model, "out": policy.path}
        train(parse(SftConfig, settings, where="sft", checkpoints=checkpoints or None, **inputs))
        records.carry(None, policy.path, history.path)
        policy.metadata["base_model_digest"] = base_model_digest
