"""What is at hand while one job is judged."""

from __future__ import annotations

from dataclasses import dataclass

from stepcoder.sandbox.compiler import Compiler
from stepcoder.sandbox.job import Job
from stepcoder.sandbox.session import Program, Session
from stepcoder.sandbox.zygote import Zygote


@dataclass(frozen=True)
class Bench:
    """A job, its compiled program, and the processes that serve it."""

    zygote: Zygote
    compiler: Compiler
    job: Job
    program: Program

    def session(self, mode: str, stdin: bytes = b"") -> Session:
        """A new child for the program: for one `stdin` test, or for `call` and check tests."""
        return Session(self.zygote, self.job, self.program, mode, stdin)
