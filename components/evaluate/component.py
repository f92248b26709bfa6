"""evaluate: all models on the same test problems."""

from kfp import dsl

from stepcoder import images


@dsl.component(base_image=images.TRAINER, install_kfp_package=False)
def evaluate(
    dataset: dsl.Input[dsl.Dataset],
    base_model: str,
    base_model_digest: str,
    sft_policy: dsl.Input[dsl.Model],
    candidate: dsl.Input[dsl.Model],
    champion_uri: str,
    champion_digest: str,
    history: dsl.Input[dsl.Artifact],
    settings: dict,
    measurements: str,
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Samples base, SFT policy, candidate and champion on the test problems and reports what the programs do.

    Args:
        dataset: Folder from verify-dataset.
        base_model: Hugging Face id, checkpoint folder or s3:// address.
        base_model_digest: Digest of the base model.
        sft_policy: Policy after SFT.
        candidate: Policy after the last PPO stage.
        champion_uri: Address of the champion; empty when there is none.
        champion_digest: Digest of the champion.
        history: Training record, for the curves of the report.
        settings: Settings of the step; the table below lists them.
        measurements: Folder or s3:// address where measurements are kept by digest; empty for none.
        evaluation: Folder with metrics.json, samples.jsonl and report.html.
        report: The report, for Kubeflow's page of the run.
        metrics: pass@1 of each model, for Kubeflow's table of runs.
    """
    import shutil
    from pathlib import Path

    from stepcoder.evaluation import EvaluationConfig
    from stepcoder.evaluation import evaluate as measure
    from stepcoder.platform import history as records
    from stepcoder.platform.config import parse
    from stepcoder.platform.entry import running

    with running("evaluate"):
        inputs = {
            "dataset": dataset.path,
            "base": base_model,
            "base_digest": base_model_digest,
            "sft": sft_policy.path,
            "candidate": candidate.path,
            "champion": champion_uri,
            "champion_digest": champion_digest,
            "history": [str(folder) for folder in records.steps(history.path)],
            "measured": measurements,
            "out": evaluation.path,
        }
        measured = measure(parse(EvaluationConfig, settings, where="evaluation", **inputs))
        shutil.copyfile(Path(evaluation.path) / "report.html", report.path)
        for name, model in measured.models.items():
            figure = model.overall.pass_at_k["1"]
            if figure is not None:
                metrics.log_metric(f"{name}_pass_at_1", figure.value)
