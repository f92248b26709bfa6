"""Whether a candidate is promoted, and its registration in MLflow with lineage.

Measuring lives in `stepcoder.evaluation`; nothing here loads weights or imports torch.
"""

from stepcoder.registry.gate import Decision, GateConfig, gate
from stepcoder.registry.register import RegisterConfig, Registration, champion, register

__all__ = ["Decision", "GateConfig", "RegisterConfig", "Registration", "champion", "gate", "register"]
