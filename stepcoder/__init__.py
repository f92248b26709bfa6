"""StepCoder: reinforcement learning from unit tests with a code-completion curriculum and execution masks."""

__version__ = "0.1.0"
