"""Prints what an image installs: the package's requirements and those of the extras given, from pyproject.toml.

The Dockerfiles install them in a layer of their own, which a change of the source leaves as it is.
"""

from __future__ import annotations

import sys
import tomllib

with open(sys.argv[1], "rb") as stream:
    project = tomllib.load(stream)["project"]
requirements = project["dependencies"] + [
    requirement for extra in sys.argv[2:] for requirement in project["optional-dependencies"][extra]
]
print("\n".join(sorted(set(requirements))))
