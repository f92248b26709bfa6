import pytest


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory):
    """One database for all tests: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def name(request, monkeypatch, mlflow_store):
    """A registered model's name that no other test uses."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    monkeypatch.delenv("STEPCODER_RUN_ID", raising=False)
    return "".join(char if char.isalnum() else "-" for char in request.node.name)
