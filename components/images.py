"""The images of the components, named in `stepcoder/images.py`: the sandbox starts one of them too."""

from __future__ import annotations

from stepcoder.images import TOOLS, TRAINER

__all__ = ["TOOLS", "TRAINER"]
