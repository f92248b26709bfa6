"""A pipeline and its versions on Kubeflow: the same content is uploaded once."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml

from pipelines.declared import Schedule
from pipelines.kubeflow import ConflictError, Kubeflow, equals
from stepcoder import __version__
from stepcoder.errors import StepCoderError


def uploaded(kubeflow: Kubeflow, schedule: Schedule) -> tuple[str, str]:
    """Ids of the pipeline and of its version with this content; uploaded if they are not there."""
    models, name = kubeflow.client.api_models, schedule.compiled.name
    scope = {"namespace": kubeflow.namespace} if kubeflow.namespace else {}

    def look_pipeline() -> str | None:
        found = kubeflow.pages(
            kubeflow.client.pipelines.pipeline_service_list_pipelines,
            "pipelines",
            filter=equals(display_name=name),
            **scope,
        )
        return next((str(pipeline.pipeline_id) for pipeline in found), None)

    def make_pipeline() -> str | None:
        body = models.V2beta1Pipeline(name=name, display_name=name, namespace=kubeflow.namespace)
        try:
            made = kubeflow.call(kubeflow.client.pipelines.pipeline_service_create_pipeline, body)
        except ConflictError:
            return look_pipeline()
        return str(made.pipeline_id)

    pipeline_id = kubeflow.once(look_pipeline, make_pipeline)

    def look_version() -> str | None:
        found = kubeflow.pages(
            kubeflow.client.pipelines.pipeline_service_list_pipeline_versions,
            "pipeline_versions",
            pipeline_id=pipeline_id,
            filter=equals(display_name=schedule.version),
        )
        return next((str(version.pipeline_version_id) for version in found), None)

    def make_version() -> str | None:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / f"{name}.yaml"
            content = schedule.content
            documents = (
                [content["pipeline_spec"], content["platform_spec"]] if "pipeline_spec" in content else [content]
            )
            path.write_text(yaml.dump_all(documents, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)))
            try:
                made = kubeflow.call(
                    kubeflow.client.pipeline_uploads.upload_pipeline_version,
                    str(path),
                    name=schedule.version,
                    display_name=schedule.version,
                    pipelineid=pipeline_id,
                    description=f"{schedule.compiled.path.name}, uploaded by stepcoder {__version__}",
                )
            except ConflictError:
                return look_version()
        return str(made.pipeline_version_id)

    version_id = kubeflow.once(look_version, make_version)
    if pipeline_id is None or version_id is None:
        raise StepCoderError(f"{kubeflow.host}: {name} {schedule.version} exists, and yet is not listed")
    return pipeline_id, version_id
