"""Runs programs nobody trusts: says what happened, and which statements ran.

`job` is the interface, `address` opens one of three: `pool`, the engine on this machine, `remote`, the client of a
`service`, and `container`, a service in a locked container. `inside` is what runs in the programs' own processes.
It knows nothing of rewards or training.
"""

from stepcoder.sandbox.address import open_sandbox
from stepcoder.sandbox.job import Branch, Job, Limits, Outcome, Sandbox, Span, Statement, TestResult, Verdict, job_of

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
