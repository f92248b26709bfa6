"""Whether a candidate is promoted, its registration in MLflow with lineage, and the way back.

Measuring lives in `stepcoder.evaluation`; nothing here loads weights or imports torch.
"""

from stepcoder.registry.gate import Decision, GateConfig, gate
from stepcoder.registry.register import RegisterConfig, Registration, register
from stepcoder.registry.rollback import Rollback, RollbackConfig, rollback

__all__ = [
    "Decision",
    "GateConfig",
    "RegisterConfig",
    "Registration",
    "Rollback",
    "RollbackConfig",
    "gate",
    "register",
    "rollback",
]
