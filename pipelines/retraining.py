"""The retraining pipeline, to be scheduled: new data since the last run, a warm start from the champion, the same gate.

Without new data it ends at once and says so. Without a champion it starts from the base model, as a first run does.
"""

from typing import Any

from pipelines.pods import PODS, Pod
from pipelines.stepcoder import DEFAULT_STAGES, build


def build_retraining(
    stages: int = DEFAULT_STAGES,
    *,
    pods: dict[str, Pod] = PODS,
    settings: dict[str, dict[str, Any]] | None = None,
    cluster: bool = True,
) -> Any:
    """The pipeline of `pipelines.stepcoder` behind check-new-data, with a warm start.

    SFT starts from the champion instead of the base model, and the policy that it gives is the reference of all PPO
    stages, as in every run: a reference that has never seen the new problems would pull the policy away from them. The
    base model stays what it was in the evaluation, so that runs can be compared; the champion is measured again on
    all test problems, new ones included, and is what the candidate has to beat.

    Args:
        stages: Number of PPO stages, at least 1.
        pods: What each step's pod gets.
        settings: Defaults of the settings parameters.
        cluster: Whether Kubeflow is to run it.
    """
    return build(stages, name="stepcoder-retraining", pods=pods, settings=settings, cluster=cluster, retraining=True)
