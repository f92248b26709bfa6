"""What the small files of a base model tell: what training would refuse is refused before it, and nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from stepcoder.errors import DataError
from stepcoder.platform import storage
from stepcoder.prerequisites import models
from tests.servers.swift import Swift
from tests.training import architectures


def checkpoint(folder: Path, config: dict[str, Any], tokenizer: dict[str, Any] | None = None) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer or {}))
    (folder / "model.safetensors").write_text("")
    return str(folder)


def configuration(name: str) -> dict[str, Any]:
    """What `save_pretrained` writes for an architecture."""
    model, config, settings = (architectures.READ | architectures.REFUSED)[name]
    return {**json.loads(config(**settings).to_json_string(use_diff=False)), "architectures": [model.__name__]}


@pytest.mark.parametrize("name", architectures.READ)
def test_an_architecture_that_can_be_trained_is_taken(name: str, tmp_path: Path) -> None:
    found = models.find(checkpoint(tmp_path / name, configuration(name)))
    assert found.positions == 64 or name == "gemma3"


@pytest.mark.parametrize("name", architectures.REFUSED)
def test_an_architecture_that_training_refuses_is_refused_by_its_configuration(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"packed sequences.*use another base model"):
        models.find(checkpoint(tmp_path / "model", configuration(name)))


@pytest.mark.parametrize(
    ("config", "tokenizer", "fault"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, {}, "not a causal language model"),
        ({"model_type": "t5", "is_encoder_decoder": True}, {}, "not a causal language model"),
        ({"model_type": "llama", "architectures": ["LlamaModel"]}, {}, r"not a causal language model \(LlamaModel\)"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, {}, "quantized"),
        ({"hidden_size": 3}, {}, "names no model_type"),
        ({"model_type": "llama"}, {"eos_token": None}, "no end-of-text token"),
    ],
)
def test_what_cannot_be_trained_is_told_by_its_small_files(
    config: dict[str, Any], tokenizer: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=fault):
        models.find(checkpoint(tmp_path / "model", config, tokenizer))


def test_the_longest_sequence_of_each_step_has_to_fit_the_context(tmp_path: Path) -> None:
    model = models.find(checkpoint(tmp_path / "m", {"model_type": "llama", "max_position_embeddings": 100}))
    models.check_room(model, {"sft": 100})
    with pytest.raises(DataError, match=r"^ppo: .* together are 101, and .* has 100 positions; lower them$"):
        models.check_room(model, {"sft": 100, "ppo": 101})


def in_parts(folder: Path, *parts: str) -> None:
    """Replaces the weights by some files of an index that lists two."""
    (folder / "model.safetensors").unlink()
    listed = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    for name in parts:
        (folder / name).write_text("")


def test_every_file_that_the_index_of_the_weights_lists_has_to_be_there(tmp_path: Path) -> None:
    folder = Path(checkpoint(tmp_path / "m", {"model_type": "llama"}))
    in_parts(folder, "model-00001-of-00002.safetensors")
    with pytest.raises(DataError, match=r"lacks 1 of 2 files that model\.safetensors\.index\.json .*: model-00002-of"):
        models.find(str(folder))
    (folder / "model-00002-of-00002.safetensors").write_text("")
    models.find(str(folder))
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(DataError, match="has no weights"):
        models.find(str(folder))


def test_an_index_that_nothing_reads_may_be_left_behind(tmp_path: Path) -> None:
    folder = Path(checkpoint(tmp_path / "m", {"model_type": "llama"}))
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-00001.bin"}}')
    models.find(str(folder))


def test_a_configuration_may_name_the_file_of_the_weights(tmp_path: Path) -> None:
    folder = Path(checkpoint(tmp_path / "m", {"model_type": "llama", "transformers_weights": "own.safetensors"}))
    with pytest.raises(DataError, match="has no weights"):
        models.find(str(folder))
    (folder / "own.safetensors").write_text("")
    models.find(str(folder))


@pytest.mark.s3
def test_a_copy_to_an_object_store_that_was_interrupted_is_told(
    tmp_path: Path, swift: Swift, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in swift.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    folder, bucket = Path(checkpoint(tmp_path / "m", {"model_type": "llama"})), swift.bucket()
    in_parts(folder, "model-00001-of-00002.safetensors")
    for file in folder.iterdir():  # one by one, as other tools copy
        storage.publish(file, f"s3://{bucket}/m/{file.name}")
    with pytest.raises(DataError, match=rf"s3://{bucket}/m: lacks 1 of 2 files .*: model-00002-of"):
        models.find(f"s3://{bucket}/m")
    storage.publish(folder / "model-00001-of-00002.safetensors", f"s3://{bucket}/m/model-00002-of-00002.safetensors")
    models.find(f"s3://{bucket}/m")


# --- the hub ---------------------------------------------------------------------------------------------------------

COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """A model hub: one open model, one gated one, one behind a token."""

    def do_GET(self) -> None:
        owner, _, rest = self.path.removeprefix("/api/models/").lstrip("/").partition("/")
        name = rest.partition("/")[0].partition("?")[0]
        allowed = self.headers.get("authorization") == "Bearer hf_accepted"
        if (
            owner != "owner"
            or name not in {"open", "gated", "private", "partial"}
            or (name == "private" and not allowed)
        ):
            return self._answer(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if self.path.startswith("/api/"):
            if "/revision/" in self.path and self.path.rpartition("/")[2].partition("?")[0] not in {"main", COMMIT}:
                return self._answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            weights = "model.safetensors.index.json" if name == "partial" else "model.safetensors"
            names = ("config.json", "tokenizer_config.json", weights)
            return self._answer(200, {"id": name, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]})
        if name == "gated" and not allowed:
            return self._answer(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        content: dict[str, Any] = {"model_type": "llama", "max_position_embeddings": 77}
        if "index.json" in self.path:
            content = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hash(self.path) & 0xFFFFFF:x}"'}
        return self._answer(200, {} if "tokenizer" in self.path else content, headers)

    do_HEAD = do_GET

    def _answer(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    online(monkeypatch, address, tmp_path)
    yield address
    server.shutdown()


def online(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_a_model_of_the_hub_is_named_by_its_commit(hub: str) -> None:
    found = models.find("owner/open")
    assert found.address == found.digest == f"owner/open@{COMMIT}"
    assert found.positions == 77


def test_a_commit_may_be_named_and_has_to_exist(hub: str) -> None:
    assert models.find(f"owner/open@{COMMIT}") == models.find("owner/open@main") == models.find("owner/open")
    with pytest.raises(DataError, match=f"owner/open@v7: owner/open at {hub} has no revision v7"):
        models.find("owner/open@v7")


def test_a_model_of_the_hub_that_lacks_weights_is_told(hub: str) -> None:
    with pytest.raises(DataError, match=r"owner/partial: lacks 1 of 1 files .*: model-00001-of"):
        models.find("owner/partial")


def test_a_gated_model_says_what_to_accept_and_where_the_token_goes(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=f"owner/gated: is a gated model; accept its conditions at {hub}/.*HF_TOKEN"):
        models.find("owner/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_accepted")
    assert models.find("owner/gated").digest == f"owner/gated@{COMMIT}"


def test_a_model_that_nobody_may_see_names_the_token(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("owner/private", "owner/typo"):
        with pytest.raises(DataError, match=f"{name}: is neither a folder here nor a model at .*HF_TOKEN"):
            models.find(name)
    monkeypatch.setenv("HF_TOKEN", "hf_accepted")
    assert models.find("owner/private").positions == 77


def test_without_network_the_cache_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    online(monkeypatch, "http://127.0.0.1:9", tmp_path)
    with pytest.raises(DataError, match=r"nor in the local cache.*HF_ENDPOINT, HF_HUB_OFFLINE.*or an s3:// address"):
        models.find("owner/open")
    repository = tmp_path / "models--owner--open"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "llama"}')
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(models, "HUB_SECONDS", 1.0)
    import huggingface_hub

    kept = huggingface_hub.try_to_load_from_cache
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda *given, **more: kept(*given, **more, cache_dir=tmp_path)
    )
    assert models.find("owner/open").digest == f"owner/open@{COMMIT}"
    assert models.find(f"owner/open@{COMMIT}").address == f"owner/open@{COMMIT}"
