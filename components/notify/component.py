"""notify: tells how the run ended."""

from kfp import dsl

from stepcoder import images


@dsl.component(base_image=images.TOOLS, install_kfp_package=False)
def notify(status: dsl.PipelineTaskFinalStatus, pipeline: str):
    """Logs how the run ended and closes its MLflow run. It runs whatever happened and never fails.

    Args:
        status: Final status of the run, from Kubeflow.
        pipeline: Name of the pipeline, for the message.
    """
    from stepcoder.notify import NotifyConfig
    from stepcoder.notify import notify as tell
    from stepcoder.platform.entry import running

    with running("notify"):
        tell(
            NotifyConfig(
                status=status.state or "UNKNOWN",
                pipeline=pipeline,
                run=status.pipeline_job_resource_name or "",
                error=status.error_message or "",
            )
        )
