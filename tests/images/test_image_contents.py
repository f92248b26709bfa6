"""What is in the images, and that they start as anybody."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
from docker_runs import LOCKED, ROOT, SOMEBODY, python, run

from stepcoder import __version__, images
from stepcoder.cli import STEPS

pytestmark = pytest.mark.docker

NEED_TORCH = {"init-model", "sft", "ppo", "evaluate"}
BOTH = (images.TOOLS, images.TRAINER)


@pytest.mark.parametrize("image", BOTH)
def test_labels_user_and_entry_point(engine: docker.DockerClient, image: str) -> None:
    config = engine.images.get(image).attrs["Config"]
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert labels["title"] == image.partition(":")[0]
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"
    assert "revision" in labels
    assert config["User"] == "65534:65534"
    assert config["Entrypoint"][0] == "tini"
    assert config["Healthcheck"]


def test_the_trainer_needs_no_compiler_and_takes_no_gpu_that_it_was_not_given(engine: docker.DockerClient) -> None:
    environment = engine.images.get(images.TRAINER).attrs["Config"]["Env"]
    assert "TORCH_DISABLE_NATIVE_JIT=1" in environment
    assert not [line for line in environment if line.startswith("NVIDIA_VISIBLE_DEVICES")]


def test_tools_is_small_and_has_no_torch(engine: docker.DockerClient) -> None:
    assert engine.images.get(images.TOOLS).attrs["Size"] < 600e6
    found = python(images.TOOLS, "import importlib.util as u; print([n for n in ('torch', 'kfp') if u.find_spec(n)])")
    assert found == "['kfp']\n"


@pytest.mark.parametrize("image", BOTH)
def test_the_package_is_a_small_layer_above_its_dependencies(engine: docker.DockerClient, image: str) -> None:
    layers = [layer for layer in engine.images.get(image).history() if layer["Size"]]
    package, dependencies = [
        next(position for position, layer in enumerate(layers) if f"COPY {path} " in layer["CreatedBy"])
        for path in ("/package", "/opt/stepcoder")
    ]
    assert package < dependencies  # newest first
    assert layers[package]["Size"] < 10e6 < 100e6 < layers[dependencies]["Size"]


@pytest.mark.parametrize("image", BOTH)
def test_the_list_of_parts_is_that_of_the_image(engine: docker.DockerClient, image: str, tmp_path: Path) -> None:
    program = """
import importlib.metadata as m, json, subprocess
bom = json.load(open("/opt/stepcoder/share/sbom.cdx.json"))
python = sorted(f"{d.name}=={d.version}".lower() for d in m.distributions() if d.name != "stepcoder")
debian = sorted(subprocess.check_output(["dpkg-query", "-W", "-f", "${Package}==${Version}\\n"], text=True).split())
print(json.dumps([bom, python, debian]))
"""
    bom, installed, debian = json.loads(python(image, program))
    listed = {"pypi": [], "deb": []}
    for part in bom["components"]:
        listed[part["purl"].removeprefix("pkg:").partition("/")[0]].append(f"{part['name']}=={part['version']}")
    assert bom["specVersion"] == "1.6"
    assert (bom["metadata"]["component"]["name"], bom["metadata"]["component"]["version"]) == ("stepcoder", __version__)
    assert sorted(part.lower() for part in listed["pypi"]) == installed
    assert sorted(listed["deb"]) == debian
    pins = dict(
        line.lower().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    versions = dict(part.split("==") for part in installed)
    held = {name: version.partition("+")[0] for name, version in versions.items() if name in pins}
    assert held == {name: pins[name] for name in held}
    assert len(held) >= 15


@pytest.mark.parametrize("image", BOTH)
def test_every_step_tells_its_settings_to_anybody(engine: docker.DockerClient, image: str) -> None:
    steps = [step for step in STEPS if image == images.TRAINER or step not in NEED_TORCH]
    options = [*LOCKED, *SOMEBODY, "--network", "none", image]
    with ThreadPoolExecutor(2) as several:
        done = list(several.map(lambda step: run([*options, *step.split(), "--help"]), steps))
    for step, answer in zip(steps, done, strict=True):
        assert answer.returncode == 0, (step, answer.stderr)
        assert f"usage: stepcoder {step}" in answer.stdout
    assert run([*options]).stdout.startswith("usage: stepcoder <step>")


def test_a_step_that_needs_torch_names_the_other_image(engine: docker.DockerClient) -> None:
    given = ["sft", "--dataset", "x", "--base-model", "y", "--out", "z"]
    done = run([*LOCKED, *SOMEBODY, "--network", "none", images.TOOLS, *given])
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"torch is not installed: `sft` runs in {images.TRAINER}" in done.stderr


@pytest.mark.parametrize("image", BOTH)
def test_a_whole_command_is_run_as_it_is(engine: docker.DockerClient, image: str) -> None:
    done = run(
        [*LOCKED, *SOMEBODY, "--network", "none", image, "sh", "-ec", 'id -u; touch /tmp/x "$HOME/y"; echo "$@"']
    )
    assert (done.returncode, done.stdout) == (0, "12345\n\n")
    assert run([*LOCKED, image, "sh", "-c", "touch /opt/stepcoder/x"]).returncode == 1
