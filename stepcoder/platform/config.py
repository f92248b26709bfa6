"""The base of every step's configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StepConfig(BaseModel):
    """A frozen model, closed to unknown settings; each field is followed by its docstring, which the command line shows."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
