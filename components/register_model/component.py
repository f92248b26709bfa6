"""register-model: always a new version; the alias moves only on a win."""

from typing import NamedTuple

from kfp import dsl

from stepcoder import images


@dsl.component(base_image=images.TOOLS, install_kfp_package=False)
def register_model(
    policy_uri: str,
    model_name: str,
    champion_alias: str,
    promote: bool,
    why: str,
    problems_digest: str,
    base_model_digest: str,
    decision: dsl.Input[dsl.Artifact],
) -> NamedTuple("Outputs", [("version", str)]):
    """Registers the candidate in MLflow with its lineage, and moves the alias if the gate says so.

    Args:
        policy_uri: Address of the candidate; a text, because an artifact input would be downloaded whole.
        model_name: Name in the MLflow model registry.
        champion_alias: Alias of the best registered version.
        promote: Decision of the gate.
        why: The decision's reason.
        problems_digest: Digest of the problem records.
        base_model_digest: Digest of the base model.
        decision: Folder from promotion-gate.

    Returns:
        version: The new version's number.
    """
    from stepcoder.platform.config import parse
    from stepcoder.platform.entry import running
    from stepcoder.registry import RegisterConfig, register

    with running("register-model"):
        registration = register(
            parse(
                RegisterConfig,
                {},
                where="inputs",
                policy=policy_uri,
                model_name=model_name,
                champion_alias=champion_alias,
                promote=promote,
                why=why,
                decision=decision.path,
                parents=(f"problems={problems_digest}", f"base_model={base_model_digest}"),
            )
        )
    return (registration.version,)
