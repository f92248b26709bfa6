import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from stepcoder.model.init import InitModelConfig, init_model
from stepcoder.model.load import load_tokenizer
from stepcoder.sft import SftConfig
from stepcoder.sft import train as train_sft
from stepcoder.verification import VerifyConfig, verify
from tests.training.trainings import SMALL

PROBLEMS = Path(__file__).resolve().parents[2] / "examples" / "problems.jsonl"


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few thousand parameters with a tokenizer trained on the shipped problems."""
    folder = tmp_path_factory.mktemp("base") / "model"
    init_model(
        InitModelConfig(problems=str(PROBLEMS), out=str(folder), hidden_size=32, layers=1, heads=2, max_chars=400)
    )
    return folder


@pytest.fixture
def tokenizer(base_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(base_model))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first shipped problems with short solutions, verified."""
    folder = tmp_path_factory.mktemp("data")
    lines = [line for line in PROBLEMS.read_text().splitlines() if len(json.loads(line)["canonical_solution"]) < 200]
    (folder / "some.jsonl").write_text("\n".join(lines[:60]) + "\n")
    out = folder / "dataset"
    verify(VerifyConfig(problems=str(folder / "some.jsonl"), format="apps_plus", out=str(out), repeats=1, workers=1))
    return out


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory, dataset: Path, base_model: Path) -> Path:
    """The base model after a few epochs of SFT."""
    folder = tmp_path_factory.mktemp("sft")
    settings = {**SMALL, "epochs": 10, "learning_rate": 5e-3, "batch_size": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPCODER_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # Nobody listens: it goes on without MLflow.
        patch.delenv("STEPCODER_RUN_ID", raising=False)
        train_sft(SftConfig(dataset=str(dataset), base_model=str(base_model), out=str(folder / "policy"), **settings))
    return folder / "policy"
