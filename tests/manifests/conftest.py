"""What kubectl would apply, rendered once."""

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.rendered import Manifests

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
TOOLS = Path(os.environ.get("STEPCODER_MANIFESTS_VENV", ROOT / ".venv-manifests")) / "bin"
OVERLAYS = ("local", "production")
COMPONENTS = "components"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        # What needs a server as well is required by the server's name.
        if here in item.path.parents and item.get_closest_marker("s3") is None:
            item.add_marker(pytest.mark.manifests)


@functools.cache
def why_not() -> str | None:
    """Why nothing can be rendered here; None where it can."""
    if shutil.which("kubectl") is None:
        return "there is no kubectl here"
    told = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True)
    version = json.loads(told.stdout or "{}").get("kustomizeVersion", "")
    if version.removeprefix("v").partition(".")[0] < "5":
        return f"this kubectl holds kustomize {version or 'of before 4'}; 5 is in kubectl 1.27 and newer"
    return None


def build(folder: Path) -> tuple[Manifests, str]:
    """What `kubectl kustomize` makes of a folder, and what it warns of."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Manifests([document for document in yaml.safe_load_all(done.stdout) if document]), done.stderr


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Manifests]:
    """Renders `base`, `cluster`, an overlay by its name, or `components`: the local overlay with all of them."""
    if reason := why_not():
        pytest.skip(reason)

    @functools.cache
    def rendered(name: str) -> Manifests:
        if name != COMPONENTS:
            return build(MANIFESTS / "overlays" / name if name in OVERLAYS else MANIFESTS / name)[0]
        copy = tmp_path_factory.mktemp("components") / "manifests"
        shutil.copytree(MANIFESTS, copy)
        local = copy / "overlays" / "local" / "kustomization.yaml"
        folders = [f"../../components/{folder.name}" for folder in sorted((MANIFESTS / "components").iterdir())]
        local.write_text(f"{local.read_text()}components: {folders}\n")
        return build(local.parent)[0]

    return rendered


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, render: Callable[[str], Manifests]) -> Manifests:
    """Each overlay."""
    return render(request.param)


@pytest.fixture
def local(render: Callable[[str], Manifests]) -> Manifests:
    return render("local")


@pytest.fixture
def production(render: Callable[[str], Manifests]) -> Manifests:
    return render("production")


@pytest.fixture(scope="session")
def submitters() -> Manifests:
    """What an administrator applies by itself, for whoever submits."""
    return Manifests(yaml.safe_load_all((MANIFESTS / "cluster" / "submitters.yaml").read_text()))


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of kubernetes-validate and checkov."""
    if not (TOOLS / "checkov").exists():
        pytest.skip("kubernetes-validate and checkov are not here: `make manifest-tools`")
    return TOOLS


@pytest.fixture(scope="session")
def executors() -> dict[str, dict[str, Any]]:
    """What the compiled pipelines tell Kubernetes of each step's pod, by `FILE/STEP`."""
    found = {}
    for file in (ROOT / "pipelines").glob("*.yaml"):
        _, platform = yaml.safe_load_all(file.read_text())
        told = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        found |= {f"{file.stem}/{name.removeprefix('exec-')}": said for name, said in told.items()}
    return found
