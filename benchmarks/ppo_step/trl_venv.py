"""An environment of its own for `trl`, made once under a cache folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TORCH, TRL = "torch==2.13.0", "trl==1.9.2"
PACKAGES = ("torch", "trl", "transformers", "accelerate", "datasets", "numpy")


def trl_python(cache: Path, transformers: str) -> Path:
    """The environment's interpreter; makes the environment if it is not there.

    Args:
        cache: folder that holds it.
        transformers: version that our side uses. Where `trl` does not permit it, pip takes the newest that it permits.
    """
    folder = cache / TRL.replace("==", "-")
    python = folder / "bin/python"
    ready = folder / ".installed"
    if ready.exists():
        return python
    print(f"making {folder}: a minute or two", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # A plain torch would bring gigabytes of CUDA along, so it comes first and stays.
    subprocess.run([*pip, TORCH], check=True, stdout=sys.stderr)
    if subprocess.run([*pip, TRL, TORCH, f"transformers=={transformers}"], stdout=sys.stderr).returncode:
        subprocess.run([*pip, TRL, TORCH, "transformers"], check=True, stdout=sys.stderr)
    ready.touch()
    return python


def versions(python: Path | str) -> dict[str, str]:
    """Versions of the packages that matter, as an interpreter sees them."""
    script = (
        "import json, importlib.metadata as m\n"
        "found = {d.metadata['Name']: d.version for d in m.distributions()}\n"
        f"print(json.dumps({{n: found[n] for n in {(*PACKAGES, 'deepspeed')!r} if n in found}}))"
    )
    out = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout
    found: dict[str, str] = json.loads(out)
    return found
