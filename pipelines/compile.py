"""Writes everything that is generated from the code: `python -m pipelines.compile`.

With `--check` nothing is written: it compares, and says what to do about a difference. `STEPCODER_REGISTRY` in the
environment puts a registry before the images' names; `--out` keeps such files apart from the committed ones.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from kfp import compiler

from components.evaluate.component import evaluate
from components.notify.component import notify
from components.ppo_stage.component import ppo_stage
from components.promotion_gate.component import promotion_gate
from components.register_model.component import register_model
from components.resolve_inputs.component import resolve_inputs
from components.sft.component import sft
from components.verify_dataset.component import verify_dataset
from pipelines.parameter_page import page
from pipelines.readme import readme
from pipelines.stepcoder import build
from pipelines.stepcoder_smoke import build_smoke

ROOT = Path(__file__).resolve().parent.parent
COMPONENTS = {
    "resolve-inputs": resolve_inputs,
    "verify-dataset": verify_dataset,
    "sft": sft,
    "ppo-stage": ppo_stage,
    "evaluate": evaluate,
    "promotion-gate": promotion_gate,
    "register-model": register_model,
    "notify": notify,
}
PIPELINES = {"stepcoder": build, "stepcoder_smoke": build_smoke}
"""By file name, what builds the pipeline."""


def generate() -> dict[str, str]:
    """Every generated file: its path in the repository, and its text."""
    files = {}
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(scratch) / "compiled.yaml"
        for name, component in COMPONENTS.items():
            folder = f"components/{name.replace('-', '_')}"
            compiler.Compiler().compile(component, str(path))
            files[f"{folder}/component.yaml"] = path.read_text()
            files[f"{folder}/README.md"] = readme(name, component)
        pipelines = {file: builder() for file, builder in PIPELINES.items()}
        for file, pipeline in pipelines.items():
            compiler.Compiler().compile(pipeline, str(path))
            files[f"pipelines/{file}.yaml"] = _ordered_defaults(path.read_text())
        files["docs/parameters.md"] = page(pipelines)
    return files


def differing(root: Path = ROOT) -> list[str]:
    """Paths of generated files that are missing or not what the code gives."""
    return [name for name, text in generate().items() if not _same(root / name, text)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.compile", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder to write to (default: this repository)")
    given = parser.parse_args(arguments)
    if given.check:
        names = differing(given.out)
        for name in names:
            print(f"{name}: is not what the code gives", file=sys.stderr)
        if names:
            print("Run `make compile` and commit what it writes.", file=sys.stderr)
        return 1 if names else 0
    for name, text in generate().items():
        path = given.out / name
        if not _same(path, text):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(given.out)}")
    return 0


def _ordered_defaults(text: str) -> str:
    """Kfp's header lists the keys of a default dictionary in an order that changes from run to run."""
    return re.sub(
        r"^(#.*\[Default: )(\{.*\})\]$",
        lambda match: f"{match[1]}{dict(sorted(ast.literal_eval(match[2]).items()))}]",
        text,
        flags=re.MULTILINE,
    )


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
