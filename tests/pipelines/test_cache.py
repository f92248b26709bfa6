"""A run takes from the cache exactly what has not changed, under kfp.local's cache.

resolve-inputs and verify-dataset are the real steps: what they say about a dataset is what the cache turns on. The
others write empty outputs instead of computing: whether a step is taken from the cache is settled before it starts.
`test_cache_keys.py` asks the same of Kubeflow's own keys.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from kfp import local

from pipelines.stepcoder import build
from stepcoder.platform import tracking
from stepcoder.platform.tracking.model_registry import DIGEST_TAG

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "problems.jsonl"
REAL = {"resolve-inputs", "verify-dataset"}
CACHED = {"verify-dataset", "sft", "ppo-stage"}
VERIFICATION = {"repeats": 1, "validation": 0.2, "test": 0.2}


class Runs:
    """Runs of the pipeline with one stage that share a cache, and what they are given unless a test says otherwise."""

    def __init__(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.folder = folder
        self.caplog = caplog
        self.problems = folder / "problems.jsonl"
        self.model = folder / "model"
        self.counter = 0

    def hits(self, **changes: Any) -> set[str]:
        """Runs the pipeline; the tasks whose earlier result was taken."""
        self.counter += 1
        os.environ["STEPCODER_RUN_ID"] = f"run-{self.counter}"
        values = {
            "problems": str(self.problems),
            "base_model": str(self.model),
            "verification": VERIFICATION,
            "ppo": {"learning_rate": 1e-5, "steps": 7},
        }
        self.caplog.clear()
        with self.caplog.at_level("INFO"):
            light()(**values | changes)
        return set(re.findall(r"Task ([\w-]+) cache hit", self.caplog.text))


@functools.cache
def light() -> Any:
    """The pipeline with empty outputs in place of what all steps but the real ones compute."""
    pipeline = build(1, cluster=False)
    graph = pipeline.component_spec.implementation.graph
    executors = graph.deployment_spec["executors"]
    for label in executors:
        if label.removeprefix("exec-") not in REAL:
            command = executors[label]["container"]["command"]
            command[-1] = emptied(command[-1])
    return pipeline


def emptied(source: str) -> str:
    """A component's source with another body: it writes every output artifact and returns values of the right types."""
    module = ast.parse(source)
    function = next(node for node in module.body if isinstance(node, ast.FunctionDef))
    outputs = [a.arg for a in function.args.args if a.annotation and "Output[" in ast.unparse(a.annotation)]
    kinds = re.findall(r"\('\w+', (\w+)\)", ast.unparse(function.returns)) if function.returns else []
    lines = [f"    open({name}.path, 'w').close()" for name in outputs]
    lines.append(f"    return ({''.join(f'{kind}(), ' for kind in kinds)})" if kinds else "    return None")
    function.body = ast.parse("def body():\n" + "\n".join(lines)).body[0].body  # type: ignore[attr-defined]
    return ast.unparse(module)


def problem_lines(first: int) -> str:
    """Twelve records, from the given one on."""
    lines = EXAMPLES.read_text().splitlines()
    return "\n".join(lines[first : first + 12]) + "\n"


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:kfp", "ignore::RuntimeWarning:kfp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    (folder / "problems.jsonl").write_text(problem_lines(0))
    (folder / "model").mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": 8192}
    (folder / "model" / "config.json").write_text(json.dumps(config))
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    (folder / "model" / "model.safetensors").write_text("weights")
    return folder


@pytest.fixture
def runs(folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Runs:
    """The first test to come pays for the run that fills the cache."""
    pytest.importorskip("mlflow.store.tracking.sqlalchemy_store", reason="the database store needs the full mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    monkeypatch.setenv("STEPCODER_RUN_ID", "")
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / "artifacts"),
        workspace_root=str(folder / "workspace"),
        enable_caching=True,
        cache_root=str(folder / "cache"),
    )
    shared = Runs(folder, caplog)
    if not (folder / "filled").exists():
        assert shared.hits() == set()
        (folder / "filled").touch()
    return shared


def test_the_same_again_takes_all_that_may_be_taken(runs: Runs) -> None:
    os.utime(runs.problems, (1, 1))
    os.utime(runs.model / "model.safetensors", (1, 1))
    reordered = {"steps": 7, "learning_rate": 1e-5}
    placed = {"node_selector": {"gpu": "big"}, "tolerations": [{"key": "gpu"}], "secret": "other"}
    assert runs.hits(ppo=reordered, **placed) == CACHED


def test_a_new_champion_and_other_measuring_train_nothing_anew(runs: Runs) -> None:
    client = tracking.client()
    client.create_registered_model("stepcoder")
    version = client.create_model_version("stepcoder", str(runs.model), tags={DIGEST_TAG: "1"})
    client.set_registered_model_alias("stepcoder", "champion", version.version)
    later = {"evaluation": {"samples": 3}, "gate": {"resamples": 300}, "evaluation_gpus": "2"}
    assert runs.hits(**later, measurements=str(runs.folder / "measurements")) == CACHED


def test_a_changed_dataset_at_the_same_address_is_verified_and_trained_on_anew(runs: Runs) -> None:
    before = runs.problems.read_text()
    runs.problems.write_text(problem_lines(100))
    assert runs.hits() == set()
    runs.problems.write_text(before)
    digests = {json.loads(path.read_text())["digest"] for path in runs.folder.rglob("dataset/card.json")}
    assert len(digests) == 2


def test_a_changed_setting_of_ppo_keeps_the_dataset_and_sft(runs: Runs) -> None:
    assert runs.hits(ppo={"learning_rate": 2e-5, "steps": 7}) == {"verify-dataset", "sft"}
