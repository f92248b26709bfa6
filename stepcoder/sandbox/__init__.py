"""Runs programs nobody trusts: says what happened, and which statements ran.

`job` is the interface, `pool` the engine on this machine, `inside` what runs in the programs' own processes.
It knows nothing of rewards or training.
"""

from stepcoder.sandbox.job import Branch, Job, Limits, Outcome, Sandbox, Span, Statement, TestResult, Verdict, job_of
from stepcoder.sandbox.pool import open_sandbox

__all__ = [
    "Branch",
    "Job",
    "Limits",
    "Outcome",
    "Sandbox",
    "Span",
    "Statement",
    "TestResult",
    "Verdict",
    "job_of",
    "open_sandbox",
]
