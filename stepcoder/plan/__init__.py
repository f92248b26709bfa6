"""What a training needs, before it is started: memory of a rank by phase, time of a step; what cannot fit is refused.

`shape.py` is the model, `devices.py` the GPU, `memory.py` and `speed.py` the formulas, `step.py` the command. Importing
this imports no torch.
"""

from __future__ import annotations

from stepcoder.plan.config import PlanConfig
from stepcoder.plan.step import Plan, estimate, plan

__all__ = ["Plan", "PlanConfig", "estimate", "plan"]
