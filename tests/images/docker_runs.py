"""Containers of the images, as a user starts them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKED = ("--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
SOMEBODY = ("--user", "12345:6789")
"""A user that the images know nothing of."""


def run(arguments: Sequence[str], *, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """`docker run` with these arguments."""
    return subprocess.run(["docker", "run", *arguments], capture_output=True, text=True, timeout=seconds, check=False)


def python(image: str, program: str) -> str:
    """What a program prints in a container of the image."""
    done = run([*LOCKED, *SOMEBODY, "--network", "none", image, "python", "-c", program])
    assert done.returncode == 0, done.stderr
    return done.stdout
