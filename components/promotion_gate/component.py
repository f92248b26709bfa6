"""promotion-gate: decides whether the candidate becomes the champion."""

from typing import NamedTuple

from kfp import dsl

from stepcoder import images


@dsl.component(base_image=images.TOOLS, install_kfp_package=False)
def promotion_gate(
    evaluation: dsl.Input[dsl.Artifact],
    settings: dict,
    decision: dsl.Output[dsl.Artifact],
) -> NamedTuple("Outputs", [("promote", bool), ("why", str)]):
    """Compares the candidate with the champion on the same test problems by a paired bootstrap.

    Args:
        evaluation: Folder from evaluate.
        settings: Settings of the step; the table below lists them.
        decision: Folder with decision.json: the decision and everything that it rests on.

    Returns:
        promote: Whether the candidate beats the champion beyond the margin.
        why: The decision's reason in one sentence.
    """
    from stepcoder.platform.config import parse
    from stepcoder.platform.entry import running
    from stepcoder.registry import GateConfig, gate

    with running("promotion-gate"):
        made = gate(parse(GateConfig, settings, where="gate", evaluation=evaluation.path, out=decision.path))
    return (made.promote, made.why)
