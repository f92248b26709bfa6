"""resolve-inputs: checks what the run needs and names it by digests."""

from typing import NamedTuple

from kfp import dsl

from stepcoder import images


@dsl.component(base_image=images.TOOLS, install_kfp_package=False)
def resolve_inputs(
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
    warm_start: bool,
) -> NamedTuple(
    "Outputs",
    [
        ("problems_digest", str),
        ("base_model_uri", str),
        ("base_model_digest", str),
        ("champion_uri", str),
        ("champion_digest", str),
        ("start_model", str),
        ("start_model_digest", str),
    ],
):
    """Checks inputs, settings and every service of the run before anything is spent, and turns inputs into digests.

    Tried are: credentials, buckets (those that are written to by writing), the model registry, access to the base
    model, the sandboxes of the settings, and the form of the notification's address.
    Never cached: the digests it gives are what makes a changed file at an unchanged address miss the cache later on.

    Args:
        problems: File of problem records, a path or an s3:// address.
        problem_format: Format of the records (apps_plus, leetcode, humaneval or mbpp).
        base_model: Hugging Face id (ID@COMMIT for one commit), checkpoint folder or s3:// address.
        model_name: Name in the MLflow model registry.
        champion_alias: Alias of the best registered version.
        verification: Settings of verify-dataset, checked here only.
        sft: Settings of sft, checked here only.
        ppo: Settings of ppo-stage, checked here only.
        evaluation: Settings of evaluate, checked here only.
        gate: Settings of promotion-gate, checked here only.
        checkpoints: Folder or s3:// address where trainings keep checkpoints, which is tried here; empty for none.
        measurements: Folder or s3:// address where evaluations keep measurements, which is tried here; empty for none.
        warm_start: Whether training starts from the champion, where there is one, instead of the base model.

    Returns:
        problems_digest: SHA-256 of the problem records.
        base_model_uri: Where the base model is; of a Hugging Face id with the commit, so that all steps load the same.
        base_model_digest: SHA-256 of the checkpoint, or the commit of a Hugging Face id.
        champion_uri: Where the champion's weights are; empty when there is none.
        champion_digest: Digest of the champion's weights; empty when there is none.
        start_model: Address of the model that sft starts from.
        start_model_digest: Digest of that model.
    """
    from stepcoder.platform.entry import running
    from stepcoder.preflight import preflight

    with running("resolve-inputs"):
        settings = {"verification": verification, "sft": sft, "ppo": ppo, "evaluation": evaluation, "gate": gate}
        resolved = preflight(
            {
                "problems": problems,
                "problem_format": problem_format,
                "base_model": base_model,
                "model_name": model_name,
                "champion_alias": champion_alias,
                "checkpoints": checkpoints,
                "measurements": measurements,
                "warm_start": warm_start,
            },
            settings,
        )
    return (
        resolved.problems_digest,
        resolved.base_model_uri,
        resolved.base_model_digest,
        resolved.champion_uri,
        resolved.champion_digest,
        resolved.start_model,
        resolved.start_model_digest,
    )
