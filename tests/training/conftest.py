from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from stepcoder.model.init import InitModelConfig, init_model
from stepcoder.model.load import load_tokenizer

PROBLEMS = Path(__file__).resolve().parents[2] / "examples" / "problems.jsonl"


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few thousand parameters with a tokenizer trained on the shipped problems."""
    folder = tmp_path_factory.mktemp("base") / "model"
    return init_model(
        InitModelConfig(problems=str(PROBLEMS), out=str(folder), hidden_size=32, layers=1, heads=2, max_chars=400)
    )


@pytest.fixture
def tokenizer(base_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(base_model))
