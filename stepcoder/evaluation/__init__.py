"""Measuring policies on the test problems: pass@k with intervals, outcomes, comparisons and the report.

Sampling itself lives in `stepcoder.rollouts`; whether a policy is promoted is decided in `stepcoder.registry`.
"""

from stepcoder.evaluation.config import EvaluationConfig
from stepcoder.evaluation.step import evaluate

__all__ = ["EvaluationConfig", "evaluate"]
