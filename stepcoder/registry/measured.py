"""What gate and registration read of an evaluation's `metrics.json`, checked where it enters."""

from __future__ import annotations

import json
import math
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepcoder.bootstrap import Floats
from stepcoder.errors import DataError
from stepcoder.platform import storage
from stepcoder.platform.config import faults_of

Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    # The evaluation's own format has more in it than is needed here.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Figure(_Part):
    """A mean over problems."""

    value: float | None


class Overall(_Part):
    """The figures over all test problems."""

    pass_at_k: dict[str, Figure | None]


class Model(_Part):
    """One measured model."""

    address: str
    digest: str
    counts: dict[str, tuple[Count, Count]]
    """By problem: samples that pass, samples that were judged."""
    overall: Overall

    @property
    def pass_at_1(self) -> float:
        """pass@1 as the evaluation states it; NaN where it has none."""
        figure = self.overall.pass_at_k["1"]
        return math.nan if figure is None or figure.value is None else figure.value

    def shares(self, problems: list[str]) -> Floats:
        """The share of passing samples of each problem; NaN where none was judged: `(problems,)`."""
        pairs = (self.counts[problem] for problem in problems)
        return np.array([passes / judged if judged else math.nan for passes, judged in pairs])


class Dataset(_Part):
    """What the models were measured on."""

    digest: str


class Evaluation(_Part):
    """An evaluation, as far as promotion and lineage need it."""

    dataset: Dataset
    models: dict[str, Model]

    @property
    def candidate(self) -> Model:
        """The policy in question."""
        return self.models["candidate"]


def read_evaluation(address: str) -> Evaluation:
    """Reads `metrics.json` of an evaluation's folder; nothing else there is fetched.

    Args:
        address: the folder: a path or an `s3://` address.

    Raises:
        DataError: the file is missing, is not of this form, or contradicts itself; lists every fault.
        StepCoderError: the object store cannot be read.
    """
    where = f"{address.rstrip('/')}/metrics.json"
    path = storage.fetch(where)
    try:
        evaluation = Evaluation.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise DataError("\n".join(faults_of(error, where, []))) from error
    except (ValueError, OSError) as error:
        raise DataError(f"{where}: is not a JSON file that can be read: {error}; run the evaluation again") from error
    faults = list(_contradictions(evaluation, where))
    if faults:
        raise DataError("\n".join(faults))
    return evaluation


def _contradictions(evaluation: Evaluation, where: str) -> list[str]:
    if "candidate" not in evaluation.models:
        return [f"{where}: models: has no candidate (has {', '.join(evaluation.models) or 'none'})"]
    faults = []
    asked = set(evaluation.candidate.counts)
    if not asked:
        faults.append(f"{where}: models.candidate.counts: names no problem")
    for name, model in evaluation.models.items():
        place = f"{where}: models.{name}"
        if "1" not in model.overall.pass_at_k:
            faults.append(f"{place}.overall.pass_at_k: has no pass@1; measure it with the evaluation's `ks`")
            continue
        impossible = [problem for problem, (passes, judged) in model.counts.items() if passes > judged]
        faults += [f"{place}.counts.{problem}: more samples pass than were judged" for problem in impossible]
        if set(model.counts) != asked:
            odd = sorted(set(model.counts) ^ asked)
            shown = ", ".join(odd[:5]) + (", …" if len(odd) > 5 else "")
            faults.append(f"{place}.counts: other problems than the candidate's ({len(odd)} differ: {shown})")
        elif not impossible and not _agrees(model):
            faults.append(
                f"{place}: pass@1 of {model.pass_at_1} is not the mean of its counts; run the evaluation again"
            )
    return faults


def _agrees(model: Model) -> bool:
    """Whether the stated pass@1 is what the counts give; one that is not a number is left to the gate."""
    if not math.isfinite(model.pass_at_1):
        return True
    shares = model.shares(list(model.counts))
    known = shares[np.isfinite(shares)]
    return known.size > 0 and abs(float(known.mean()) - model.pass_at_1) < 1e-9
