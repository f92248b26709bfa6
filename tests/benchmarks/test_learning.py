"""The learning benchmark: figures by hand, resuming, and one tiny run from end to end."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.learning import figures, plan, report, workers
from benchmarks.learning.__main__ import claimed, run
from benchmarks.learning.settings import SETTINGS, SMALL, SWITCHES, Setting
from benchmarks.learning.tune import SEEDS, TRIALS, above_base, planned, shortened
from benchmarks.learning.unit import MARK
from benchmarks.learning.unit import run as run_unit
from stepcoder.errors import DataError, StepCoderError
from stepcoder.ppo import PpoConfig
from stepcoder.sft import SftConfig

TINY = Setting(
    seeds=(0, 1),
    stages=2,
    max_chars=210,
    validation=0.1,
    test=0.1,
    train_problems=4,
    least_conditionals=0,
    measured_problems=3,
    init={"vocabulary": 320, "hidden_size": 16, "layers": 1, "heads": 2},
    shared={
        "precision": "fp32",
        "zero_stage": 0,
        "gradient_checkpointing": False,
        "max_prompt_tokens": 400,
        "max_new_tokens": 160,
        "sampling_batch": 16,
        "sandbox_slots": 1,
        "validation_problems": 1,
    },
    sft={"epochs": 0.1, "batch_size": 8},
    ppo={"steps": 1, "problems_per_step": 2, "samples_per_problem": 2, "minibatches": 1},
    measured={"samples": 2, "temperature": 0.8, "top_p": 1.0},
)


def rows(passed: list[int], samples: int = 4) -> list[dict[str, Any]]:
    return [
        {"id": f"p{i}", "family": f"f{i // 2}", "conditionals": i, "samples": samples, "passed": n}
        for i, n in enumerate(passed)
    ]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_settings_configs_are_valid_and_its_variants_get_the_same_roll_outs(name: str) -> None:
    setting = SETTINGS[name]
    spent = set()
    for unit in plan.units(Path("/nowhere"), setting):
        for step in unit.steps:
            config = (SftConfig if step.kind == "sft" else PpoConfig)(**step.config)
            if isinstance(config, PpoConfig):
                spent.add(
                    (unit.variant, len(unit.steps) * config.steps, config.problems_per_step, config.samples_per_problem)
                )
    assert {variant for variant, *_ in spent} == set(SWITCHES)
    assert len({numbers for _, *rest in spent for numbers in [tuple(rest)]}) == 1
    steps, problems, samples = next(iter(spent))[1:]
    assert setting.rollouts == steps * problems * samples


def test_variants_differ_in_their_switches_alone_unless_tuned() -> None:
    setting = SMALL.model_copy(update={"tuned": {}})
    configs = {
        unit.variant: {k: v for k, v in unit.steps[0].config.items() if not str(v).startswith("/nowhere")}
        for unit in plan.units(Path("/nowhere"), setting)[1:5]
    }
    for variant, config in configs.items():
        assert {k: v for k, v in config.items() if configs["plain"][k] != v} == {
            k: v for k, v in SWITCHES[variant].items() if v
        }


def test_stages_hand_on_policy_critic_and_curriculum_and_keep_the_reference() -> None:
    sft, first = plan.units(Path("/run"), SMALL.model_copy(update={"stages": 2}))[:2]
    one, two = (step.config for step in first.steps)
    assert one["policy"] == one["reference"] == two["reference"] == str(sft.policy)
    assert "critic" not in one
    assert "curriculum" not in one
    assert (two["policy"], two["critic"], two["curriculum"]) == (one["out"], one["out_critic"], one["out_curriculum"])
    assert first.needs == (sft.name,)


def test_means_differences_and_intervals_by_hand() -> None:
    measured = {
        (0, "plain"): rows([0, 2, 4]),
        (1, "plain"): rows([2, 2, 2]),
        (0, "fgo"): rows([2, 2, 4]),
        (1, "fgo"): rows([4, 4, 4]),
    }
    found = figures.summarise(measured, [(0, 1), (2, 2), (7, None)], [1, 4])
    assert found["problems"] == {"all": 3, "0-1": 2, "2": 1}
    assert found["variants"]["plain"]["all"]["pass@1"]["mean"] == pytest.approx(0.5)
    assert found["variants"]["plain"]["0-1"]["pass@4"]["seeds"] == {"0": 0.5, "1": 1.0}
    difference = found["differences"]["fgo"]["all"]["pass@1"]
    # Seed 0: 2/4 of one of three problems; seed 1: all from half to whole.
    assert difference["seeds"] == pytest.approx({"0": 1 / 6, "1": 1 / 2})
    # t(0.975, 1) = 12.706; the standard error of two values is half their distance.
    assert difference["high"] - difference["mean"] == pytest.approx(12.706 / 6, rel=1e-4)
    assert difference["boot_low"] >= 0
    assert "plain" not in found["differences"]


def test_one_seed_has_no_interval() -> None:
    here = figures.over_seeds({3: 0.25})
    assert here == {"mean": 0.25, "low": None, "high": None, "seeds": {"3": 0.25}}


def test_tables_show_each_seed_and_no_interval_where_nobody_solves_anything() -> None:
    measured = {(0, "plain"): rows([0, 2, 0]), (0, "fgo"): rows([2, 2, 0]), (2, "plain"): rows([2, 2, 0])}
    found = figures.summarise(measured, [(0, 1), (2, 2)], [1]) | {"outcomes": {}}
    levels, differences, seeds, _ = report.tables(found)
    assert levels[2] == [
        ["plain PPO", "25.0 ± 105.9", "37.5 ± 158.8", "0.0 ± 0.0"],
        ["PPO + FGO", "33.3", "50.0", "0.0"],
    ]
    assert [row[-1] for row in differences[2]] == ["-"]
    assert seeds[1:] == (["", "seed 0", "seed 2"], [["plain PPO", "16.7", "33.3"], ["PPO + FGO", "33.3 (+16.7)", "-"]])
    single = figures.summarise({(0, "plain"): rows([1])}, [], [1]) | {"outcomes": {}}
    assert "over seeds" not in report.tables(single)[1][0]


def test_bootstrap_agrees_with_the_normal_interval_of_independent_problems() -> None:
    values = np.random.default_rng(1).normal(0.1, 1.0, size=(1, 2000))
    low, high = figures.bootstrap_interval(values, np.arange(2000))
    half = 1.96 * values.std() / math.sqrt(2000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    twins = figures.bootstrap_interval(np.repeat(values, 2, axis=1), np.repeat(np.arange(2000), 2))
    assert twins == pytest.approx((low, high), abs=1e-9)


def test_different_problems_are_not_paired() -> None:
    with pytest.raises(ValueError, match="other problems"):
        figures.summarise({(0, "plain"): rows([1]), (0, "fgo"): rows([1, 2])}, [], [1])


def test_curves_are_means_over_seeds_where_all_have_a_point() -> None:
    drawn = figures.curve({0: [(8, 0.0), (16, 1.0)], 1: [(8, 1.0)]})
    assert [(row["x"], row["mean"]) for row in drawn] == [(8, 0.5)]


def test_a_folder_of_another_setting_is_refused_and_more_seeds_are_not(tmp_path: Path) -> None:
    with claimed(tmp_path, TINY), pytest.raises(DataError, match="another command"), claimed(tmp_path, TINY):
        pass
    with claimed(tmp_path, TINY.model_copy(update={"seeds": (0, 1, 2)})):
        pass
    with pytest.raises(DataError, match="stages"), claimed(tmp_path, TINY.model_copy(update={"stages": 3})):
        pass


def recorded(folder: Path, setting: Setting, seed: int, variants: Sequence[str], **changes: Any) -> None:
    """Writes records as of a run that has finished some variants."""
    (folder / "dataset").mkdir(parents=True, exist_ok=True)
    (folder / "dataset" / "card.json").write_text(json.dumps({"digest": "d1"}))
    names = ("machine", "problems", "outcomes", "curves")
    record = {"dataset": "d1", "seconds": str(folder), "measuring": 1.0, **{key: {} for key in names}, **changes}
    with claimed(folder, setting):
        for unit in plan.units(folder, setting):
            if unit.seed == seed and unit.variant in variants:
                unit.folder.mkdir(parents=True, exist_ok=True)
                (unit.folder / plan.RECORD_NAME).write_text(json.dumps(record))


EVERYTHING = ["sft", *SWITCHES]


def test_whole_seeds_of_another_run_are_taken_over_and_own_ones_stay(tmp_path: Path) -> None:
    setting = TINY.model_copy(update={"seeds": (0, 1, 2)})
    here, there = tmp_path / "here", tmp_path / "there"
    recorded(there, setting, 0, EVERYTHING)
    recorded(there, setting, 1, EVERYTHING[:-1])
    recorded(there, setting, 2, EVERYTHING)
    recorded(here, setting, 2, EVERYTHING)
    assert plan.take_over(here, setting, there) == [0]
    assert {(unit.seed, unit.record["seconds"]) for unit in plan.units(here, setting) if unit.done} == {
        (0, str(there)),
        (2, str(here)),
    }
    assert plan.take_over(here, setting, there) == []


def test_what_cannot_be_taken_over_is_refused_and_nothing_is_copied(tmp_path: Path) -> None:
    here = tmp_path / "here"
    recorded(here, TINY, 0, [])
    recorded(tmp_path / "stages", TINY.model_copy(update={"stages": 3}), 0, EVERYTHING)
    recorded(tmp_path / "problems", TINY, 0, EVERYTHING, dataset="d2")
    recorded(tmp_path / "cut", TINY, 0, EVERYTHING)
    recorded(tmp_path / "older", TINY, 0, EVERYTHING)
    last = plan.units(tmp_path / "cut", TINY)[4].folder / plan.RECORD_NAME
    last.write_text(last.read_text()[:-20])
    last = plan.units(tmp_path / "older", TINY)[4].folder / plan.RECORD_NAME
    last.write_text('{"dataset": "d1", "seconds": 1}')
    faults = {
        "stages": "another setting",
        "problems": "other problems",
        "cut": "cannot be read",
        "older": "lacks curves, machine, measuring, outcomes, problems",
        "nowhere": r"setting\.json is missing",
    }
    for name, fault in faults.items():
        with pytest.raises(DataError, match=fault):
            plan.take_over(here, TINY, tmp_path / name)
    assert not any(unit.done for unit in plan.units(here, TINY))


def test_what_is_left_is_told_from_units_of_the_same_kind(tmp_path: Path) -> None:
    units = plan.units(tmp_path, TINY)
    assert workers.seconds_left(units, 2) is None
    for unit, seconds in zip(units, (10.0, 100.0, 200.0), strict=False):
        unit.folder.mkdir(parents=True)
        (unit.folder / plan.RECORD_NAME).write_text(json.dumps({"seconds": seconds}))
    # One warm start and six PPO runs of two seeds, two at a time; no more workers than units help.
    assert workers.seconds_left(units, 2) == pytest.approx((10 + 6 * 150) / 2)
    assert workers.seconds_left(units, 20) == pytest.approx(150)


def test_too_few_training_problems_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train_problems=4"):
        plan.chosen_ids([], TINY)


@pytest.mark.slow
def test_a_run_from_end_to_end_and_what_is_done_stays_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    setting = TINY.model_copy(update={"seeds": (0,)})
    started = []

    class Here:
        """Runs a unit in this process: starting one costs seconds."""

        def __init__(self, of: plan.Unit) -> None:
            started.append(of.name)
            run_unit(of.write())

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(workers, "start", Here)
    assert run(tmp_path / "run", setting, 2, Console()) == 0
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(found["variants"]) == {"sft", *SWITCHES}
    assert set(found["differences"]) == {"sft", "fgo", "cccs", "stepcoder"}
    assert len(found["curves"]["plain"]["pass_rate"]) == 2
    assert len(found["curves"]["plain"]["validation_pass_at_1"]) == 3
    assert "| PPO + FGO |" in (tmp_path / "run" / "results.md").read_text()
    # A unit whose last mark is gone only measures again; the others are left alone.
    unit = plan.units(tmp_path / "run", setting)[1]
    (unit.folder / plan.RECORD_NAME).unlink()
    trained = (unit.folder / "ppo-2" / MARK).stat().st_mtime_ns
    started.clear()
    assert run(tmp_path / "run", setting, 2, Console()) == 0
    assert started == [unit.name]
    assert (unit.folder / "ppo-2" / MARK).stat().st_mtime_ns == trained
    # Setting and records alone, as from another machine, give the same figures.
    for path in (tmp_path / "run").rglob("*"):
        if path.name in (plan.SETTING_NAME, plan.RECORD_NAME):
            place = tmp_path / "records" / path.relative_to(tmp_path / "run")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
    started.clear()
    assert run(tmp_path / "elsewhere", setting, 2, Console(), [tmp_path / "records"]) == 0
    assert started == []
    again = json.loads((tmp_path / "elsewhere" / "results.json").read_text())
    changed = ("units", "wall_seconds")  # The unit that was measured again.
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {k: v for k, v in again.items() if k not in changed} == {k: v for k, v in found.items() if k not in changed}


def test_a_failed_unit_ends_the_run_with_its_last_lines(tmp_path: Path) -> None:
    broken = TINY.model_copy(update={"sft": {"epochs": -1}})
    recorded(tmp_path, broken, 0, [])
    unit = plan.units(tmp_path, broken)[0]
    with pytest.raises(StepCoderError, match="epochs"):
        workers.run_all([unit], 1, Console())


def test_every_variant_is_tuned_with_the_same_effort_on_seeds_of_its_own() -> None:
    for setting in SETTINGS.values():
        assert not set(SEEDS) & set(setting.seeds)
        short = shortened(setting, 3)
        units = planned(Path("/nowhere"), short)
        assert Counter(unit.variant for unit in units) == dict.fromkeys(SWITCHES, len(SEEDS) * len(TRIALS))
        for unit, name in units.items():
            assert unit.measure["problems"].endswith("validation.jsonl")
            config = PpoConfig(**unit.steps[0].config).model_dump()
            assert config["steps"] == 3
            assert {key: config[key] for key in TRIALS[name]} == TRIALS[name]
            assert [config[key] for key in ("use_curriculum", "use_execution_mask")] == list(
                SWITCHES[unit.variant].values()
            )


def test_a_trial_is_held_against_the_base_of_its_variant_and_seed(tmp_path: Path) -> None:
    passed = {("base", 100): (0, 2), ("hotter", 100): (2, 2), ("base", 101): (4, 0), ("hotter", 101): (4, 0)}
    done = {}
    for unit, name in planned(tmp_path, shortened(SMALL, 3)).items():
        if unit.variant == "plain" and (name, unit.seed) in passed:
            unit.folder.mkdir(parents=True)
            rows = [{"family": str(n), "samples": 4, "passed": k} for n, k in enumerate(passed[name, unit.seed])]
            (unit.folder / plan.RECORD_NAME).write_text(json.dumps({"problems": rows}))
            done[unit.variant, name, unit.seed] = unit
    found = above_base(done)
    assert found.keys() == {"plain"}
    assert found["plain"].keys() == {"hotter"}
    # Half a point on one of two problems with one of two seeds.
    assert found["plain"]["hotter"]["mean"] == pytest.approx(0.125)
    assert found["plain"]["hotter"]["low"] == 0
    assert found["plain"]["hotter"]["high"] == pytest.approx(0.5)
