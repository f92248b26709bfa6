"""Submitting a run: what is checked before, what is sent, once only, and how it is followed.

The server is `tests/servers/kubeflow_api.py`: it answers by Kubeflow's published API models, and runs nothing.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import kfp
import pytest
import yaml

from pipelines import follow, kubeflow, schedule, submit
from pipelines.parameters import read_compiled, read_declared, resolve
from stepcoder.errors import DataError
from tests.servers.forked import Forked
from tests.servers.kubeflow_api import Cut, KubeflowApi, Refused, Request

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "pipelines" / "stepcoder_smoke.yaml"
NEEDED = ["--set", "problems=s3://b/p.jsonl", "--set", "base_model=s3://b/m"]


def submitted(*arguments: str) -> int:
    return submit.main([str(PIPELINE), *NEEDED, *arguments])


def creates_run(request: Request) -> bool:
    return request.method == "POST" and request.path.endswith("/runs")


def sent(api: KubeflowApi) -> int:
    return sum(creates_run(request) for request in api.requests)


# What is checked before anything is sent.


def test_every_fault_is_listed_in_one_message_and_nothing_is_sent(
    api: KubeflowApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "problem: s3://x\nmodel_name: 3\nppo: {lerning_rate: 1, steps: many}\nsft: [1]\ngate: {margin: 7}\n"
    )
    assert submit.main([str(PIPELINE), "--parameters", str(file), "--set", "nonsense"]) == 2
    said = capsys.readouterr().err
    assert f"{file}: problem: stepcoder-smoke has no such input; did you mean problems?" in said
    assert f"{file}: model_name: must be a text, not 3; put it in quotes" in said
    assert f"{file}: sft: must be settings by name, not [1]" in said
    assert "--set nonsense: must read NAME=VALUE" in said
    assert "error: problems: is missing" in said
    assert "error: base_model: is missing" in said
    assert "ppo.lerning_rate: unknown setting; did you mean learning_rate?" in said
    assert "ppo.steps: input should be a valid integer" in said
    assert "gate.margin: input should be less than" in said
    assert "model_name: is missing" not in said
    assert api.requests == []


@pytest.mark.parametrize("content", ["", "a: [1", "just words\n", "[1, 2]\n", "a: 1\n---\nb: 2\n"])
def test_a_file_that_does_not_read_is_told_with_its_name(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(content)
    assert submit.main([str(file)]) == 2
    assert submit.main([str(PIPELINE), "--parameters", str(file)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(str(file) in line for line in said)


def test_a_missing_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main([str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: cannot be read: No such file" in capsys.readouterr().err


def test_numbers_and_texts_are_told_apart_as_in_json(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("a: 1e-5\nb: no\nc: 2026-11-21\nd: 010\ne: [true, null, -2.5]\nf: '1'\ng: 0x10\n")
    assert read_declared(file) == {
        "a": 1e-5,
        "b": "no",
        "c": "2026-11-21",
        "d": "010",
        "e": [True, None, -2.5],
        "f": "1",
        "g": "0x10",
    }


def test_a_name_that_stands_twice_is_a_fault(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("ppo:\n  steps: 1\n  steps: 2\n")
    with pytest.raises(DataError, match=r"'steps' stands twice.*line 3"):
        read_declared(file)


@pytest.mark.parametrize(
    "content",
    [
        "sft: &s {epochs: *s}\n",
        "tolerations: &s [*s]\n",
        "node_selector: {a: !!timestamp 2026-11-21}\n",
        'problems: "\\ud800"\n',
        "nodes: 1" + "0" * 5000 + "\n",
        "tolerations: " + "[" * 3000 + "]" * 3000 + "\n",
        "? [a, b]\n: 1\n",
        "? {a: b}\n: 1\n",
    ],
    ids=[
        "a ring",
        "a ring in a list",
        "a date",
        "half a character",
        "digits",
        "depth",
        "a list as name",
        "settings as name",
    ],
)
def test_what_json_cannot_carry_is_a_fault_of_the_file(content: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(DataError, match=re.escape(str(file))):
        read_declared(file)


def test_whole_numbers_that_kubeflow_would_round_are_faults() -> None:
    given = {"problems": "p", "base_model": "m", "sft": {"seed": 2**53}}
    assert resolve(read_compiled(PIPELINE), given, where="run.yaml")["sft"]["seed"] == 2**53
    changes = ["sft.seed=9007199254740993", "ppo.steps=" + "9" * 5000, "ppo.seed=" + "[" * 100_000]
    with pytest.raises(DataError) as raised:
        resolve(read_compiled(PIPELINE), given, changes, where="run.yaml")
    said = str(raised.value).splitlines()
    assert said[0] == "--set sft.seed: holds a whole number beyond 2^53, which Kubeflow would round"
    assert {line.partition(":")[0] for line in said[1:]} == {"ppo.steps", "ppo.seed"}


def test_amounts_that_kubernetes_would_refuse_hours_later_are_faults() -> None:
    given = {"problems": "p", "base_model": "m"}
    right = {"nodes": 2, "gpus_per_node": 0, "cpu_per_node": "32", "memory_per_node": "1.5Ti", "training_gpus": "0"}
    assert resolve(read_compiled(PIPELINE), given | right, where="run.yaml") == given | right
    wrong = {"nodes": -1, "cpu_per_node": "many", "memory_per_node": "512GB", "evaluation_gpus": "one"}
    with pytest.raises(DataError) as raised:
        resolve(read_compiled(PIPELINE), given | wrong, where="run.yaml")
    assert str(raised.value).splitlines() == [
        'evaluation_gpus: must be a whole number as a text, such as "8", not "one"',
        "nodes=-1, gpus_per_node=1.0: too few for a TrainJob",
        "cpu_per_node=many: is no amount as Kubernetes writes it, such as 32 or 512Gi",
        "memory_per_node=512GB: is no amount as Kubernetes writes it, such as 32 or 512Gi",
    ]


def test_settings_are_laid_over_the_pipelines_defaults() -> None:
    compiled = read_compiled(PIPELINE)
    default = compiled.inputs["ppo"]["defaultValue"]
    given = {"problems": "p", "base_model": "b", "ppo": {"steps": 7}, "gate": {"resamples": None}}
    values = resolve(compiled, given, ["ppo.warmup_steps=0", "ppo.minibatches=null", "model_name=12"], where="run.yaml")
    expected = {**default, "steps": 7, "warmup_steps": 0}
    del expected["minibatches"]
    assert values == {"problems": "p", "base_model": "b", "ppo": expected, "gate": {}, "model_name": "12"}


def test_null_leaves_an_input_to_its_default() -> None:
    compiled = read_compiled(PIPELINE)
    given = {"problems": "p", "base_model": "b", "model_name": "m", "ppo": None}
    assert resolve(compiled, given, ["model_name=null"], where="f") == {"problems": "p", "base_model": "b"}


@pytest.mark.parametrize(
    ("file", "pipeline"), [("smoke.yaml", "stepcoder_smoke.yaml"), ("production.yaml", "stepcoder.yaml")]
)
def test_the_shipped_examples_fit_their_pipelines(
    file: str, pipeline: str, api: KubeflowApi, capsys: pytest.CaptureFixture[str]
) -> None:
    example = ROOT / "pipelines" / "examples" / file
    arguments = [str(ROOT / "pipelines" / pipeline), "--parameters", str(example), "--dry-run", "--output", "json"]
    assert submit.main(arguments) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["parameters"].keys() == read_declared(example).keys()
    assert f"pipelines/{pipeline}" in example.read_text()
    assert api.requests == []


# What is sent.


def test_a_run_carries_the_pipeline_the_parameters_and_the_service_account(
    api: KubeflowApi, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submitted("--experiment", "nightly", "--name", "first", "--set", "ppo.steps=9") == 0
    [run] = api.runs.values()
    documents = list(yaml.safe_load_all(PIPELINE.read_text()))
    assert run.pipeline_spec == {"pipeline_spec": documents[0], "platform_spec": documents[1]}
    assert run.display_name == "first"
    assert run.service_account == "stepcoder-pipeline"
    assert api.experiments[run.experiment_id].display_name == "nightly"
    assert run.runtime_config.parameters["problems"] == "s3://b/p.jsonl"
    assert run.runtime_config.parameters["ppo"]["steps"] == 9
    assert run.runtime_config.parameters.keys() == {"problems", "base_model", "ppo"}
    assert capsys.readouterr().out.splitlines() == [
        f"run {run.run_id}: first",
        f"{api.address}/#/runs/details/{run.run_id}",
    ]


def test_no_cache_reaches_the_steps_inside_nested_pipelines(api: KubeflowApi) -> None:
    def cached(spec: dict[str, Any]) -> list[str]:
        parts = [spec["root"], *spec["components"].values()]
        tasks = [item for part in parts for item in part.get("dag", {}).get("tasks", {}).items()]
        assert len(tasks) > 8
        return [name for name, task in tasks if task.get("cachingOptions", {}).get("enableCache")]

    assert submitted() == 0
    assert submitted("--no-cache") == 0
    first, second = [run.pipeline_spec["pipeline_spec"] for run in api.runs.values()]
    assert {"sft", "verify-dataset"} <= set(cached(first))
    assert cached(second) == []


def test_an_experiment_is_made_once(api: KubeflowApi) -> None:
    for name in ("a", "b", "a"):
        assert submitted("--experiment", name) == 0
    assert [one.display_name for one in api.experiments.values()] == ["a", "b"]


def test_an_experiment_that_somebody_else_makes_at_the_same_time_is_taken(api: KubeflowApi) -> None:
    def first(request: Request) -> None:
        if request.method == "POST" and request.path.endswith("/experiments") and not api.experiments:
            api.answer(request)

    api.before = first
    assert submitted() == 0
    [experiment] = api.experiments
    assert [run.experiment_id for run in api.runs.values()] == [experiment]


def test_lists_are_read_over_all_their_pages(api: KubeflowApi, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        assert submitted() == 0
    monkeypatch.setattr(kubeflow, "_PAGE", 2)
    server = kubeflow.connect(api.address, None)
    seen = [run.run_id for run in server.pages(server.client.runs.run_service_list_runs, "runs")]
    assert seen == list(api.runs)


def test_where_kubeflow_has_many_users_the_namespace_is_needed_and_used(
    api: KubeflowApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.multi_user = True
    assert submitted() == 2
    assert "--namespace is missing" in capsys.readouterr().err
    assert submitted("--namespace", "team-a") == 0
    assert [one.namespace for one in api.experiments.values()] == ["team-a"]


def test_kfps_own_functions_work_with_the_test_server(api: KubeflowApi) -> None:
    client = kfp.Client(host=api.address)
    for number in range(3):
        client.create_run_from_pipeline_package(
            str(PIPELINE), {"problems": "p", "base_model": "m"}, run_name=f"run {number}", experiment_name="e"
        )
    page = client.list_runs(page_size=2)
    assert len(page.runs) == 2
    assert [run.display_name for run in client.list_runs(page_token=page.next_page_token).runs] == ["run 2"]
    run_id = page.runs[0].run_id
    api.runs[run_id].state = "SUCCEEDED"
    assert client.wait_for_run_completion(run_id, timeout=5).state == "SUCCEEDED"


def test_the_test_server_refuses_what_is_not_in_the_models(api: KubeflowApi) -> None:
    import urllib3

    for body, word in [
        ({"display_nam": "x"}, "display_nam"),
        ({"runtime_config": {"params": {}}}, "params"),
        ({"state": "GREAT"}, "GREAT"),
    ]:
        answer = urllib3.request("POST", f"{api.address}/apis/v2beta1/runs", json=body)
        assert (answer.status, answer.json()["code"]) == (400, 3)
        assert word in answer.json()["message"]


# Once only.


def test_a_lost_answer_does_not_start_a_second_run(api: KubeflowApi, capsys: pytest.CaptureFixture[str]) -> None:
    def cut(request: Request) -> None:
        if creates_run(request):
            raise Cut

    api.after = cut
    assert submitted("--output", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [shown["run_id"]] == list(api.runs)
    assert sent(api) == 1


def test_a_run_that_shows_up_late_is_not_started_a_second_time(api: KubeflowApi) -> None:
    def late(request: Request) -> None:
        if creates_run(request):
            threading.Timer(0.15, api.answer, [request]).start()
            raise Cut

    api.before = late
    assert submitted() == 0
    assert len(api.runs) == sent(api) == 1


@pytest.mark.parametrize("status", [0, 503])
def test_a_request_that_was_not_carried_out_is_sent_again(status: int, api: KubeflowApi) -> None:
    def once(request: Request) -> None:
        if creates_run(request) and sent(api) == 1:
            raise Refused(status, "no healthy upstream") if status else Cut

    api.before = once
    assert submitted() == 0
    assert (len(api.runs), sent(api)) == (1, 2)


def test_when_nobody_knows_whether_it_was_started_the_same_command_with_its_name_finds_out(
    api: KubeflowApi, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(request: Request) -> None:
        if sent(api):
            raise Cut

    api.after = gone
    assert submitted() == 1
    said = capsys.readouterr().err
    assert "it is not known whether the run was started" in said
    name = said.split("--name '")[1].split("'")[0]
    api.after = lambda request: None
    assert submitted("--name", name) == 0
    assert len(api.runs) == sent(api) == 1
    assert "not started again" in capsys.readouterr().err


def test_a_name_is_taken_only_by_a_run_of_the_same_content_that_has_not_failed(api: KubeflowApi) -> None:
    for _ in range(2):
        assert submitted("--name", "nightly") == 0
    assert len(api.runs) == 1
    next(iter(api.runs.values())).state = "FAILED"
    for _ in range(2):
        assert submitted("--name", "nightly") == 0
    assert len(api.runs) == 2
    assert submitted("--name", "nightly", "--set", "ppo.steps=9") == 0
    assert len(api.runs) == 3


# Followed.


def task(name: str, state: str, message: str | None = None) -> Any:
    from kfp_server_api import models

    error = models.GoogleRpcStatus(message=message) if message else None
    return models.V2beta1PipelineTaskDetail(task_id=name, display_name=name, state=state, error=error)


def play(api: KubeflowApi, *scenes: tuple[str, list[Any]]) -> list[int]:
    """Each look at the run finds the next scene: its state and its tasks. Gives a list with how many were shown."""
    from kfp_server_api import models

    shown = [0]

    def step(request: Request) -> None:
        if request.method == "GET" and "/runs/" in request.path:
            state, tasks = scenes[min(shown[0], len(scenes) - 1)]
            shown[0] += 1
            run = api.runs[request.path.rpartition("/")[2]]
            run.state, run.run_details = state, models.V2beta1RunDetails(task_details=tasks)

    api.before = step
    return shown


def test_waiting_tells_each_change_once_and_ends_well(api: KubeflowApi, capsys: pytest.CaptureFixture[str]) -> None:
    driver = task("sft-driver", "SUCCEEDED")
    play(
        api,
        ("PENDING", []),
        ("RUNNING", [task("root", "RUNNING"), task("sft", "RUNNING"), driver]),
        ("RUNNING", [task("root", "RUNNING"), task("sft", "RUNNING"), driver]),
        ("SUCCEEDED", [task("root", "SUCCEEDED"), task("sft", "SUCCEEDED"), driver]),
    )
    assert submitted("--wait", "--every", "0.01", "--output", "json") == 0
    captured = capsys.readouterr()
    first, last = [json.loads(line) for line in captured.out.splitlines()]
    assert last == {"run_id": first["run_id"], "state": "SUCCEEDED"}
    assert captured.err.splitlines() == [
        "run: pending",
        "sft: running",
        "run: running",
        "sft: succeeded",
        "run: succeeded",
    ]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_a_run_that_ends_otherwise_gives_status_one_and_says_why(
    state: str, api: KubeflowApi, capsys: pytest.CaptureFixture[str]
) -> None:
    play(api, (state, [task("ppo-stage-2", state, "the reward diverged")]))
    assert submitted("--wait") == 1
    said = capsys.readouterr().err
    assert "ppo-stage-2: the reward diverged" in said
    assert f"details: {api.address}/#/runs/details/" in said


def test_a_cut_while_waiting_is_survived(api: KubeflowApi, capsys: pytest.CaptureFixture[str]) -> None:
    shown = play(api, ("RUNNING", []), ("RUNNING", []), ("SUCCEEDED", []))
    step, cuts = api.before, [Cut()] * 9 + [Refused(503, "upstream connect error")] * 3

    def cut(request: Request) -> None:
        if request.method == "GET" and "/runs/" in request.path and shown[0] == 1 and cuts:
            raise cuts.pop()
        step(request)

    api.before = cut
    assert submitted("--wait", "--every", "0.01") == 0
    assert cuts == []
    said = capsys.readouterr().err
    assert said.count("the run goes on, asking again") == 1
    assert said.count("Kubeflow answers again") == 1


def test_waiting_ends_after_an_hour_without_an_answer(
    api: KubeflowApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 0.05)

    def gone(request: Request) -> None:
        if "/runs/" in request.path:
            raise Refused(503, "no healthy upstream")

    api.before = gone
    assert submitted("--wait", "--every", "0.02") == 1
    assert "go on with: python -m pipelines.submit --follow " in capsys.readouterr().err


def test_a_login_that_expires_while_waiting_ends_with_how_to_go_on(
    api: KubeflowApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api.token = "first"
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "first")

    def expire(request: Request) -> None:
        if "/runs/" in request.path:
            api.token = "second"

    api.before = expire
    api.multi_user = True
    assert submitted("--wait", "--namespace", "team-a") == 1
    said = capsys.readouterr().err
    assert "the login is missing or has expired" in said
    [run_id] = api.runs
    (command,) = re.findall(r"go on with: python -m pipelines.submit (.*)", said)
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "second")
    api.runs[run_id].state = "SUCCEEDED"
    assert submit.main(command.split()) == 0
    assert len(api.runs) == 1


def test_following_a_run_that_is_not_there_fails(api: KubeflowApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main(["--follow", "no-such-run"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "404 ResourceNotFoundError: no-such-run not found" in line


def test_interrupted_while_waiting_the_run_goes_on(api: KubeflowApi, forked: Forked) -> None:
    process = forked(submit.main, [str(PIPELINE), *NEEDED, "--wait", "--every", "0.1"])
    end = time.monotonic() + 60
    while not any("/runs/" in request.path for request in api.requests) and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 130
    assert [run.state for run in api.runs.values()] == ["PENDING"]


# Where the server is, and who may use it.


def test_the_token_of_the_environment_is_sent_and_never_shown(
    api: KubeflowApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api.token = "s3cret-token"
    assert submitted() == 1
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "s3cret-token")
    assert submitted() == 0
    captured = capsys.readouterr()
    assert "401" in captured.err
    assert "s3cret" not in captured.out + captured.err
    assert "s3cret" not in str(api.runs)


def test_the_token_that_kubernetes_mounts_is_read_anew_for_each_request(
    api: KubeflowApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    api.token = "one"

    def rotate(request: Request) -> None:
        if len(api.requests) == 2:
            file.write_text("two\n")
        api.token = "one" if len(api.requests) <= 2 else "two"

    api.before = rotate
    assert submitted() == 0
    assert len(api.requests) > 4


def test_a_session_cookie_of_the_environment_is_sent(api: KubeflowApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_COOKIE", "authservice_session=abc")
    assert submitted() == 0
    assert {request.headers.get("cookie") for request in api.requests} == {"authservice_session=abc"}


def test_a_login_page_in_place_of_an_answer_is_named(api: KubeflowApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.page = "<!DOCTYPE html><title>Log in to Your Account</title>"
    assert submitted() == 1
    assert "answers with a web page, not with data: most likely a login page" in capsys.readouterr().err


def test_a_wrong_address_is_named(api: KubeflowApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert submitted("--host", f"{api.address}/elsewhere") == 1
    assert f"{api.address}/elsewhere: 404 Not Found" in capsys.readouterr().err


@pytest.mark.usefixtures("no_kubeflow")
def test_an_address_where_nothing_listens_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert submitted("--host", "http://127.0.0.1:9") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: http://127.0.0.1:9 cannot be reached: ")
    assert "Connection refused" in line


@pytest.mark.usefixtures("no_kubeflow")
def test_without_an_address_it_says_how_to_give_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert submitted() == 2
    assert "set KF_PIPELINES_ENDPOINT or --host" in capsys.readouterr().err


def test_an_address_without_a_scheme_is_asked_by_https(capsys: pytest.CaptureFixture[str]) -> None:
    assert submitted("--host", "httpd.invalid") == 1
    assert "https://httpd.invalid cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf", "soon"])
def test_a_pause_that_is_none_is_refused_before_anything_is_sent(seconds: str, api: KubeflowApi) -> None:
    with pytest.raises(SystemExit, match="2"):
        submitted("--wait", "--every", seconds)
    assert not api.requests


def test_in_a_pod_its_service_and_its_namespace_are_the_default(
    api: KubeflowApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "namespace").write_text("team-a")
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(kubeflow, "_IN_CLUSTER", api.address)
    monkeypatch.setattr(kubeflow, "_POD_NAMESPACE", tmp_path / "namespace")
    api.multi_user = True
    assert submitted() == 0
    assert [one.namespace for one in api.experiments.values()] == ["team-a"]


@pytest.mark.parametrize(
    ("version", "warned"), [("2.5.0", True), ("2.15.3", True), ("2.16.0", False), ("3.0.0", False), ("unknown", False)]
)
def test_a_server_that_is_too_old_is_warned_of(
    version: str, warned: bool, api: KubeflowApi, capsys: pytest.CaptureFixture[str]
) -> None:
    api.version = version
    assert submitted() == 0
    assert ("needs 2.16 or newer" in capsys.readouterr().err) == warned


@pytest.mark.parametrize("command", [submit, schedule])
def test_help_names_the_environment(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "KF_PIPELINES_ENDPOINT" in capsys.readouterr().out
