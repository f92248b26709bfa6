"""Puts a pipeline's steps behind the question whether there is new data."""

import inspect
from collections.abc import Callable
from typing import Any

from kfp import dsl

from components.check_new_data.component import check_new_data
from pipelines.pods import Platform


def when_new(steps: Any, *, name: str, placed: Callable[[dsl.PipelineTask, Platform, str], dsl.PipelineTask]) -> Any:
    """A nested pipeline with the parameters of `steps`, which runs them when there is new data and else nothing.

    Args:
        steps: A nested pipeline, whose parameters include all that are used here.
        name: Name of the whole pipeline.
        placed: Gives a task what the pod of that name is to have.
    """
    signature = inspect.signature(steps.pipeline_func)

    def guarded(*values: Any) -> None:
        inputs = dict(zip(signature.parameters, values, strict=True))
        asked = ("problems", "verification", "model_name")
        platform = Platform(secret=inputs["secret"], tools_image=inputs["tools_image"])
        news = placed(check_new_data(**{key: inputs[key] for key in asked}), platform, "check-new-data")
        # The one form of a condition that holds on a cluster and on one machine: a single output without a name.
        with dsl.If(news.output == True, name="new-data"):  # noqa: E712
            steps(**inputs)

    # The parameters are written down once, in `steps`; kfp reads them from here.
    guarded.__signature__ = signature  # type: ignore[attr-defined]
    guarded.__annotations__ = steps.pipeline_func.__annotations__
    return dsl.pipeline(name=f"{name}-when-new", description="The training, when there is new data.")(guarded)
