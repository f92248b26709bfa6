"""Schedules: the file is what is in force, whatever was there before, and wherever an earlier call was killed.

The server is `tests/servers/kubeflow_api.py`: it answers by Kubeflow's published API models, and starts nothing.
"""

import functools
import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl
from kfp_server_api import models

from pipelines import kubeflow, schedule
from pipelines.declared import read_schedule
from tests.servers.forked import Forked
from tests.servers.kubeflow_api import Cut, KubeflowApi, Request

ROOT = Path(__file__).resolve().parents[2]


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def _step(text: str) -> None:
    print(text)


@functools.cache
def compiled(default: str) -> str:
    """A pipeline small enough for many tests, with inputs as the real ones have them."""

    @dsl.pipeline(name="stepcoder-retraining")
    def small(problems: str, problem_format: str = default, ppo: dict = {}):  # noqa: B006 - kfp's way
        _step(text=problems)

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "retraining.yaml"
        compiler.Compiler().compile(small, str(path))
        return path.read_text()


def write_pipeline(folder: Path, *, default: str = "apps_plus") -> None:
    (folder / "retraining.yaml").write_text(compiled(default))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_pipeline(tmp_path)
    return declare(tmp_path)


def declare(folder: Path, **changes: Any) -> Path:
    content = {
        "name": "weekly",
        "pipeline": "retraining.yaml",
        "cron": "0 0 3 * * 1",
        "parameters": {"problems": "s3://b/p.jsonl", "ppo": {"steps": 5}},
        **changes,
    }
    path = folder / "weekly.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in content.items() if value is not None}))
    return path


def apply(file: Path, *arguments: str) -> int:
    return schedule.main([str(file), *arguments])


def active(api: KubeflowApi) -> list[Any]:
    return [one for one in api.recurringruns.values() if one.mode == "ENABLE"]


def changing(api: KubeflowApi) -> list[str]:
    """What was changed on the server, in order, without ids."""
    return [
        f"{request.method} {request.path.split('/')[3]}{''.join(request.path.partition(':')[1:])}"
        for request in api.requests
        if request.changes
    ]


# The file.


def test_every_fault_of_the_file_is_listed(api: KubeflowApi, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declare(file.parent, cron="0 3 * * 1", pausd=True, service_account=7)
    assert apply(file) == 2
    said = capsys.readouterr().err
    assert "must have six fields, seconds first" in said
    assert "pausd: unknown setting; did you mean paused?" in said
    assert "service_account: input should be a valid string" in said
    assert api.requests == []


@pytest.mark.parametrize("trigger", [{"cron": None}, {"interval_seconds": 3600}])
def test_there_is_one_trigger(trigger: dict[str, Any], file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply(declare(file.parent, **trigger)) == 2
    assert "needs either cron or interval_seconds" in capsys.readouterr().err


def test_parameters_are_checked_as_those_of_a_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declare(file.parent, parameters={"problem": "p", "ppo": {"step": 5}})
    assert apply(file) == 2
    said = capsys.readouterr().err
    assert "parameters: problem: stepcoder-retraining has no such input; did you mean problems?" in said
    assert "error: problems: is missing" in said
    assert "ppo.step: unknown setting; did you mean steps?" in said


def test_the_shipped_example_fits_its_pipeline() -> None:
    if not (ROOT / "pipelines" / "retraining.yaml").is_file():
        pytest.skip("pipelines/retraining.yaml is not compiled")
    example = read_schedule(ROOT / "pipelines" / "examples" / "weekly.yaml")
    assert example.compiled.name == "stepcoder-retraining"
    assert example.parameters["ppo"]["steps"] == 50


# Into force.


@pytest.mark.parametrize(
    ("version", "warned"), [("2.16.0", True), ("v2.16.1", True), ("2.17.0", False), ("unknown", False)]
)
@pytest.mark.parametrize("arguments", [[], ["--diff"]])
def test_a_server_that_may_ignore_the_service_account_is_warned_of_and_not_refused(
    arguments: list[str], version: str, warned: bool, api: KubeflowApi, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.version = version
    assert apply(file, *arguments) == (schedule.CHANGES if arguments else 0)
    told = "may run what it starts by schedule as its own default account, not as stepcoder-pipeline"
    assert (told in capsys.readouterr().err) == warned
    assert len(active(api)) == (0 if arguments else 1)


def test_nothing_is_said_of_the_account_of_a_schedule_that_ends(
    api: KubeflowApi, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply(file, "--delete") == 0
    assert "default account" not in capsys.readouterr().err


def test_a_first_schedule_runs_one_at_a_time_without_catching_up(api: KubeflowApi, file: Path) -> None:
    assert apply(file) == 0
    [one] = active(api)
    assert one.display_name == "weekly"
    assert one.trigger.cron_schedule.cron == "0 0 3 * * 1"
    assert one.max_concurrency == "1"
    assert one.no_catchup is True
    assert one.service_account == "stepcoder-pipeline"
    assert one.runtime_config.parameters == {"problems": "s3://b/p.jsonl", "ppo": {"steps": 5}}
    assert api.experiments[one.experiment_id].display_name == "stepcoder"
    [version] = api.versions.values()
    assert one.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert version.display_name.startswith("sha256-")
    assert version.pipeline_spec == yaml.safe_load((file.parent / "retraining.yaml").read_text())
    assert [pipeline.display_name for pipeline in api.pipelines.values()] == ["stepcoder-retraining"]
    assert changing(api)[-2:] == ["POST recurringruns", "POST recurringruns:enable"]


def test_an_interval_in_place_of_cron(api: KubeflowApi, file: Path) -> None:
    assert apply(declare(file.parent, cron=None, interval_seconds=3600)) == 0
    [one] = active(api)
    assert one.trigger.periodic_schedule.interval_second == "3600"


def test_what_is_in_force_is_left_alone(api: KubeflowApi, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply(file) == 0
    before = len(changing(api))
    assert apply(file) == 0
    assert apply(file, "--diff") == 0
    assert len(changing(api)) == before
    assert capsys.readouterr().out.count("weekly: is in force as declared") == 2


def test_diff_shows_what_would_change_and_changes_nothing(
    api: KubeflowApi, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply(file, "--diff") == 3
    assert api.recurringruns == {}
    assert changing(api) == []
    assert apply(file) == 0
    before = len(changing(api))
    capsys.readouterr()
    declare(
        file.parent, cron="0 0 4 * * 1", parameters={"problems": "s3://b/p.jsonl", "ppo": {"steps": 6}}, paused=True
    )
    assert apply(file, "--diff") == 3
    assert len(changing(api)) == before
    assert capsys.readouterr().out.splitlines() == [
        "weekly: would change",
        "  when: 0 0 3 * * 1 -> 0 0 4 * * 1",
        '  parameters.ppo: {"steps": 5} -> {"steps": 6}',
        "  state: active -> paused",
    ]


def test_a_change_makes_the_new_one_paused_pauses_the_old_starts_the_new_and_removes_the_old(
    api: KubeflowApi, file: Path
) -> None:
    assert apply(file) == 0
    [old] = active(api)
    begun = len(changing(api))
    assert apply(declare(file.parent, cron="0 0 4 * * 1")) == 0
    assert changing(api)[begun:] == [
        "POST recurringruns",
        "POST recurringruns:disable",
        "POST recurringruns:enable",
        "DELETE recurringruns",
    ]
    assert old.recurring_run_id not in api.recurringruns
    assert [one.trigger.cron_schedule.cron for one in active(api)] == ["0 0 4 * * 1"]
    assert len(api.recurringruns) == api.most_active == 1


def test_another_experiment_does_not_leave_the_old_one_behind(api: KubeflowApi, file: Path) -> None:
    assert apply(file) == 0
    assert apply(declare(file.parent, experiment="other")) == 0
    [one] = api.recurringruns.values()
    assert api.experiments[one.experiment_id].display_name == "other"


def test_pausing_and_going_on_make_nothing_new(api: KubeflowApi, file: Path) -> None:
    assert apply(file) == 0
    [one] = active(api)
    assert apply(declare(file.parent, paused=True)) == 0
    assert active(api) == []
    assert apply(declare(file.parent)) == 0
    assert active(api) == [one]


def test_a_schedule_paused_by_hand_is_started_again_by_its_file(api: KubeflowApi, file: Path) -> None:
    assert apply(file) == 0
    [one] = active(api)
    one.mode, one.status = "DISABLE", "DISABLED"
    assert apply(file, "--diff") == 3
    assert apply(file) == 0
    assert active(api) == [one]


def test_the_same_content_is_one_version_and_another_content_another(api: KubeflowApi, file: Path) -> None:
    assert apply(file) == 0
    pipeline = file.parent / "retraining.yaml"
    pipeline.write_text("# a comment\n" + pipeline.read_text())
    assert apply(file) == 0
    assert (len(api.versions), len(active(api))) == (1, 1)
    write_pipeline(file.parent, default="mbpp")
    assert apply(file) == 0
    assert (len(api.pipelines), len(api.versions)) == (1, 2)
    [one] = active(api)
    assert one.pipeline_version_reference.pipeline_version_id == list(api.versions)[-1]


def test_the_earlier_file_rolls_back_to_the_earlier_version(api: KubeflowApi, file: Path) -> None:
    assert apply(file) == 0
    [first] = api.versions
    write_pipeline(file.parent, default="mbpp")
    assert apply(file) == 0
    write_pipeline(file.parent)
    assert apply(file) == 0
    [one] = active(api)
    assert one.pipeline_version_reference.pipeline_version_id == first
    assert len(api.versions) == 2


def test_without_cache_the_uploaded_version_has_none(api: KubeflowApi, file: Path) -> None:
    assert apply(declare(file.parent, cache=False)) == 0
    [version] = api.versions.values()
    assert version.pipeline_spec["root"]["dag"]["tasks"]["step"]["cachingOptions"] == {}


def test_a_run_that_goes_on_keeps_its_recurring_run_paused_until_it_has_ended(
    api: KubeflowApi, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kubeflow, "_PAGE", 2)
    assert apply(file) == 0
    [old] = active(api)
    for number in range(5):
        run = models.V2beta1Run(
            run_id=f"r{number}",
            display_name="r",
            experiment_id=old.experiment_id,
            state="RUNNING",
            created_at=old.created_at,
            recurring_run_id=old.recurring_run_id if number == 4 else f"other-{number}",
        )
        api.runs[f"r{number}"] = run
    assert apply(declare(file.parent, cron="0 0 4 * * 1")) == 0
    assert "stays paused while its run r4 goes on" in capsys.readouterr().err
    assert old.mode == "DISABLE"
    assert (len(api.recurringruns), len(active(api))) == (2, 1)
    api.runs["r4"].state = "SUCCEEDED"
    assert apply(file) == 0
    assert old.recurring_run_id not in api.recurringruns
    [removal] = [request for request in api.requests if request.method == "DELETE"]
    assert removal.query == {"propagation_policy": "ORPHAN"}


def test_a_recurring_run_made_by_hand_is_not_touched(
    api: KubeflowApi, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply(file) == 0
    [one] = active(api)
    one.description = "mine"
    before = len(changing(api))
    for arguments in ([], ["--diff"], ["--delete"]):
        assert apply(file, *arguments) == 2
    assert len(changing(api)) == before
    assert f"was made by hand: {one.recurring_run_id}" in capsys.readouterr().err


def test_deleting_ends_the_schedule_and_keeps_what_was_uploaded(
    api: KubeflowApi, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply(file) == 0
    assert apply(file, "--delete") == 0
    assert changing(api)[-2:] == ["POST recurringruns:disable", "DELETE recurringruns"]
    assert api.recurringruns == {}
    assert len(api.versions) == 1
    assert apply(file, "--delete") == 0
    assert "there is no such schedule" in capsys.readouterr().err


def test_where_kubeflow_has_many_users_all_is_in_the_namespace(api: KubeflowApi, file: Path) -> None:
    api.multi_user = True
    assert apply(file) == 2
    assert apply(file, "--namespace", "team-a") == 0
    assert [one.namespace for one in api.recurringruns.values()] == ["team-a"]
    assert [one.namespace for one in api.pipelines.values()] == ["team-a"]
    assert apply(file, "--namespace", "team-a", "--diff") == 0


# Killed, cut, and at the same time.


def prepared(api: KubeflowApi, file: Path, start: str) -> None:
    """Brings the server to where a roll begins: nothing there, or another schedule and another pipeline in force."""
    if start == "another":
        write_pipeline(file.parent, default="mbpp")
        assert apply(declare(file.parent, cron="0 0 4 * * 1")) == 0
        write_pipeline(file.parent)
        declare(file.parent)


STEPS = {
    "nothing": ["pipelines", "upload_version", "experiments", "recurringruns", ":enable"],
    "another": ["upload_version", "recurringruns", ":disable", ":enable", "DELETE"],
}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("start", "step"), [(start, step) for start, steps in STEPS.items() for step in steps])
def test_killed_at_any_step_the_next_call_heals_it(
    start: str, step: str, moment: str, api: KubeflowApi, file: Path, forked: Forked
) -> None:
    prepared(api, file, start)
    ready, killed = threading.Event(), []

    def kill(request: Request) -> None:
        if request.changes and (request.path.endswith(step) or request.method == step) and not killed:
            ready.wait(30)
            os.kill(process.pid or 0, signal.SIGKILL)
            killed.append(request)
            raise Cut

    setattr(api, moment, kill)
    process = forked(schedule.main, [str(file)])
    ready.set()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert len(killed) == 1
    if start == "another":
        assert len(api.recurringruns) >= 1

    assert apply(file) == 0
    [one] = api.recurringruns.values()
    assert one.mode == "ENABLE"
    assert one.trigger.cron_schedule.cron == "0 0 3 * * 1"
    assert api.most_active == 1
    assert apply(file, "--diff") == 0
    assert len(api.versions) == len({version.display_name for version in api.versions.values()})


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("start", "step"), [(start, step) for start, steps in STEPS.items() for step in steps])
def test_a_cut_connection_at_any_step_is_bridged(
    start: str, step: str, moment: str, api: KubeflowApi, file: Path
) -> None:
    prepared(api, file, start)
    cuts: list[Request] = []

    def cut(request: Request) -> None:
        if request.changes and (request.path.endswith(step) or request.method == step) and not cuts:
            cuts.append(request)
            raise Cut

    setattr(api, moment, cut)
    assert apply(file) == 0
    assert len(cuts) == 1
    [one] = api.recurringruns.values()
    assert one.mode == "ENABLE"
    assert api.most_active == 1
    assert apply(file, "--diff") == 0


def test_two_calls_at_a_time_end_with_one_schedule(api: KubeflowApi, file: Path) -> None:
    barrier = threading.Barrier(2, timeout=30)

    def together(request: Request) -> None:
        # Both have seen that nothing is there before either makes it.
        if request.method == "POST" and request.path.endswith("/recurringruns"):
            barrier.wait()

    assert apply(file) == 0
    assert apply(file, "--delete") == 0
    api.before = together
    calls = [threading.Thread(target=apply, args=(file,)) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join(60)
    api.before = lambda request: None
    assert apply(file) == 0
    assert (len(api.recurringruns), len(active(api)), api.most_active) == (1, 1, 1)


def test_the_weekly_example_splits_as_the_run_that_makes_its_champion() -> None:
    weekly, production = (
        yaml.safe_load((ROOT / f"pipelines/examples/{name}.yaml").read_text()) for name in ("weekly", "production")
    )
    assert weekly["parameters"]["verification"] == production["verification"]
    assert weekly["parameters"]["model_name"] == production["model_name"]
