"""From a setting to data and units. A unit is the work of one process: a training and its measurement."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.learning.settings import SWITCHES, Setting, Variant
from stepcoder.errors import DataError
from stepcoder.platform import storage
from stepcoder.problems import Problem, conditionals, load_problems

PROBLEMS = Path(__file__).resolve().parents[2] / "examples" / "problems.jsonl"
SETTING_NAME = "setting.json"
RECORD_NAME = "record.json"
"""What a unit leaves behind when it is done: all that results are made of, in one small file."""


@dataclass(frozen=True, eq=False)
class Step:
    """One call of a training function."""

    name: str
    """`sft`, or `ppo-1`, `ppo-2`, …; its folder in the unit's."""
    kind: str
    """`sft` or `ppo`."""
    config: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Unit:
    """What one process does, in a folder of its own."""

    name: str
    folder: Path
    seed: int
    variant: Variant
    steps: tuple[Step, ...]
    measure: dict[str, Any]
    """Arguments of `measure.measure`, besides policy and output."""
    needs: tuple[str, ...] = field(default=())
    """Names of units that must be done before."""

    @property
    def done(self) -> bool:
        """Whether it has run to its end."""
        return (self.folder / RECORD_NAME).is_file()

    @property
    def record(self) -> dict[str, Any]:
        """What it has left behind; see `unit.run`."""
        found: dict[str, Any] = json.loads((self.folder / RECORD_NAME).read_text())
        return found

    @property
    def policy(self) -> Path:
        """The policy at its end."""
        return self.folder / self.steps[-1].name / "policy"

    def write(self) -> Path:
        """Writes down what its process is to do."""
        spec = {
            "dataset": dataset_digest(self.folder.parents[2]),
            "steps": [vars(step) for step in self.steps],
            "measure": self.measure | {"policy": str(self.policy), "seed": self.seed},
        }
        path = self.folder / "unit.json"
        storage.write_text(path, json.dumps(spec, indent=1) + "\n")
        return path


def prepare(folder: Path, setting: Setting) -> None:
    """Makes dataset, training subset and base models, each where it is not yet there.

    Raises:
        DataError: the setting's rules leave too few problems.
    """
    from stepcoder.model.init import InitModelConfig, init_model
    from stepcoder.verification import VerifyConfig, verify

    shares = {"validation": setting.validation, "test": setting.test, "max_chars": setting.max_chars}
    dataset = folder / "dataset"
    if not dataset.exists():
        verify(VerifyConfig(problems=str(PROBLEMS), format="apps_plus", out=str(dataset), repeats=1, **shares))
    for split in ("validation", "test"):
        if not (dataset / f"{split}.jsonl").stat().st_size:
            share = getattr(setting, split)
            raise DataError(f"{split}={share}: leaves no {split} problem of max_chars={setting.max_chars}")
    if not (folder / "subset").exists():
        with storage.publishing(folder / "subset") as partial:
            shutil.copytree(dataset, partial, dirs_exist_ok=True)
            _keep(partial / "train.jsonl", chosen_ids(load_problems(dataset / "train.jsonl"), setting))
    for seed in setting.seeds:
        base = folder / "base" / str(seed)
        if not base.exists():
            config = InitModelConfig(problems=str(PROBLEMS), out=str(base), seed=seed, **shares, **setting.init)
            # The libraries below draw bars and warn of the missing GPU; none of it concerns a person who waits here.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                init_model(config)


def chosen_ids(problems: Iterable[Problem], setting: Setting) -> set[str]:
    """The problems that PPO trains on: enough conditional statements, then by a hash of the id.

    Raises:
        DataError: there are fewer than the setting asks for.
    """
    fitting = [p.id for p in problems if len(conditionals(p.solution)) >= setting.least_conditionals]
    if len(fitting) < setting.train_problems:
        raise DataError(
            f"train_problems={setting.train_problems}: the training split has {len(fitting)} problems "
            f"with {setting.least_conditionals} conditional statements or more"
        )
    return set(by_hash(fitting)[: setting.train_problems])


def by_hash(ids: Iterable[str]) -> list[str]:
    """Ids in an order that has nothing to do with what they name."""
    return sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())


def units(folder: Path, setting: Setting, split: str = "test") -> list[Unit]:
    """All units of a run: for each seed the warm start, then the four kinds of PPO from it."""
    found = []
    for seed in setting.seeds:
        found.append(warm_start(folder, setting, seed, split))
        found += [ppo_run(folder, setting, seed, variant, split) for variant in SWITCHES]
    return found


def take_over(folder: Path, setting: Setting, other: Path) -> list[int]:
    """Copies the records of seeds that a run in another folder has finished, such as one on another machine.

    Only whole seeds: what is compared comes from one warm start.

    Args:
        folder: of this run, whose dataset is there.
        setting: of this run.
        other: folder of the other run, or of its setting and records alone.

    Returns:
        The seeds.

    Raises:
        DataError: there is no run, one of another setting or other problems, or a record is damaged.
    """
    if not (other / SETTING_NAME).is_file():
        raise DataError(f"{other}: holds no run; {SETTING_NAME} is missing")
    check_setting(other, setting)
    taken = []
    for seed in setting.seeds:
        theirs, ours = ([unit for unit in units(of, setting) if unit.seed == seed] for of in (other, folder))
        if all(unit.done for unit in theirs) and not all(unit.done for unit in ours):
            records = [checked(unit.folder / RECORD_NAME, dataset_digest(folder)) for unit in theirs]
            # The warm start comes last: until then nobody goes on from it, whose policy is not here.
            for unit, record in reversed(list(zip(ours, records, strict=True))):
                storage.write_text(unit.folder / RECORD_NAME, json.dumps(record) + "\n")
            taken.append(seed)
    return taken


def checked(path: Path, dataset: str) -> dict[str, Any]:
    """A record from elsewhere.

    Raises:
        DataError: it is damaged, or comes from another dataset than the one with this digest.
    """
    try:
        record = json.loads(path.read_text())
        missing = {"dataset", "seconds", "measuring", "machine", "problems", "outcomes", "curves"} - record.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read as a record: {error}") from error
    if missing:
        raise DataError(f"{path}: is no whole record; it lacks {', '.join(sorted(missing))}")
    if record["dataset"] != dataset:
        raise DataError(f"{path}: comes from other problems (dataset {record['dataset'][:12]}, here {dataset[:12]})")
    return dict(record)


def dataset_digest(folder: Path) -> str:
    """Of the problems of a run."""
    return str(json.loads((folder / "dataset" / "card.json").read_text())["digest"])


def check_setting(folder: Path, setting: Setting) -> None:
    """Holds a setting against that of the run in a folder. Other seeds of the same setting are welcome.

    Raises:
        DataError: what lies there came from another setting.
    """
    mine = setting.model_dump(mode="json")
    try:
        theirs = dict(json.loads((folder / SETTING_NAME).read_text()))
    except (ValueError, TypeError) as error:
        raise DataError(f"{folder / SETTING_NAME}: cannot be read: {error}") from error
    different = [name for name in mine if mine[name] != theirs.get(name) and name != "seeds"]
    if different:
        raise DataError(f"{folder}: holds a run of another setting ({', '.join(different)}); give another one")


def warm_start(folder: Path, setting: Setting, seed: int, split: str) -> Unit:
    """SFT of one seed: the policy that all its variants start from."""
    home = folder / "units" / f"seed-{seed}" / "sft"
    config = {
        **setting.shared,
        **setting.sft,
        "base_model": str(folder / "base" / str(seed)),
        "dataset": str(folder / "dataset"),
        "out": str(home / "sft" / "policy"),
        "checkpoints": str(home / "checkpoints"),
        "seed": seed,
    }
    return Unit(f"seed-{seed}/sft", home, seed, "sft", (Step("sft", "sft", config),), _measure(folder, setting, split))


def ppo_run(
    folder: Path,
    setting: Setting,
    seed: int,
    variant: Variant,
    split: str,
    *,
    name: str | None = None,
    trial: dict[str, Any] | None = None,
) -> Unit:
    """All PPO stages of one variant, from the warm start of its seed.

    Args:
        folder: of the run.
        setting: of the run.
        seed: of the run.
        variant: which switches are on.
        split: which problems it is measured on in the end.
        name: of the unit; default the variant.
        trial: settings of PPO that tuning tries.
    """
    warm = warm_start(folder, setting, seed, split)
    home = folder / "units" / f"seed-{seed}" / (name or variant)
    settings = {**setting.shared, **setting.ppo, **setting.tuned.get(variant, {}), **(trial or {}), **SWITCHES[variant]}
    steps = []
    before: dict[str, str] = {"policy": str(warm.policy)}
    for stage in range(1, setting.stages + 1):
        place = home / f"ppo-{stage}"
        config = {
            **settings,
            **before,
            "reference": str(warm.policy),
            "dataset": str(folder / "subset"),
            "out": str(place / "policy"),
            "out_critic": str(place / "critic"),
            "out_curriculum": str(place / "curriculum"),
            "checkpoints": str(home / "checkpoints"),
            "stage": stage,
            "stages": setting.stages,
            "seed": seed,
        }
        steps.append(Step(f"ppo-{stage}", "ppo", config))
        before = {name: str(place / name) for name in ("policy", "critic", "curriculum")}
    measure = _measure(folder, setting, split)
    return Unit(f"seed-{seed}/{name or variant}", home, seed, variant, tuple(steps), measure, (warm.name,))


def _measure(folder: Path, setting: Setting, split: str) -> dict[str, Any]:
    room = {key: setting.shared[key] for key in ("max_prompt_tokens", "max_new_tokens", "sampling_batch")}
    return {
        **room,
        **setting.measured,
        "cpu_seconds": setting.shared.get("cpu_seconds", 3.0),
        "problems": str(folder / "dataset" / f"{split}.jsonl"),
        "most": setting.measured_problems,
    }


def _keep(path: Path, ids: set[str]) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["id"] in ids), encoding="utf-8")
