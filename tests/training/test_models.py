"""Loading, generating and saving: what other people's models bring along, and what must not leak into training."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedTokenizerBase

from stepcoder.errors import DataError, StepCoderError
from stepcoder.model import load as loading
from stepcoder.model.batch import pack
from stepcoder.model.critic import load_critic, save_critic
from stepcoder.model.generation import Request, Response, TransformersGenerator
from stepcoder.model.load import check_room, load_policy, load_tokenizer, model_digest, save_policy
from stepcoder.model.policy import Policy
from stepcoder.model.seeds import derived_seed
from stepcoder.model.settings import Sampling
from stepcoder.platform import engine, hub, logs


def trained(network: nn.Module, **settings: Any) -> engine.Engine:
    engine.start()
    usual: dict[str, Any] = {"zero_stage": 0, "precision": "fp32", "max_gradient_norm": 1.0, "learning_rate": 1e-3}
    return engine.Engine(network, schedule=lambda _: 1.0, epsilon=1e-8, **{**usual, **settings})


def sampled(
    generator: TransformersGenerator, prompts: Sequence[Sequence[int]], sampling: Sampling, *, n: int = 1, seed: int = 1
) -> list[list[Response]]:
    """`n` responses to each prompt, in order."""
    requests = [Request(prompt, n, derived_seed(seed, index)) for index, prompt in enumerate(prompts)]
    found: list[list[Response]] = [[] for _ in prompts]
    for response in sorted(generator.generate(requests, sampling), key=lambda response: response.number):
        found[response.request].append(response)
    return found


@pytest.mark.parametrize("stage", [0, 3])
def test_weights_are_saved_whole_under_every_zero_stage(
    stage: int, base_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    policy, critic = Policy(load_policy(str(base_model))), load_critic(str(base_model))
    engines = trained(policy, zero_stage=stage), trained(critic, zero_stage=stage)
    assert len(engines) == 2
    save_policy(policy.language_model, tokenizer, tmp_path / "policy", {})
    save_critic(critic, tokenizer, tmp_path / "critic", {})
    before = load_file(base_model / "model.safetensors")
    for name, weight in load_file(tmp_path / "policy" / "model.safetensors").items():
        torch.testing.assert_close(weight, before[name])
    for name, weight in load_file(tmp_path / "critic" / "model.safetensors").items():
        torch.testing.assert_close(weight, before[f"model.{name}"])
    assert load_file(tmp_path / "critic" / "value_head.safetensors")["weight"].shape == (1, 32)


def test_dropout_is_off_in_training_wherever_a_model_keeps_it(tmp_path: Path) -> None:
    config = OPTConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, ffn_dim=16, num_attention_heads=2, word_embed_proj_dim=16,
        max_position_embeddings=64, dropout=0.5, attention_dropout=0.5, layerdrop=0.0,
    )  # fmt: skip
    OPTForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    model = load_policy(str(tmp_path)).train()
    ids = torch.arange(5).unsqueeze(0)
    torch.testing.assert_close(model(input_ids=ids).logits, model(input_ids=ids).logits, rtol=0, atol=0)


def test_a_models_own_generation_settings_do_not_change_what_is_sampled(
    base_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = load_policy(str(base_model))
    generator = TransformersGenerator(model, tokenizer, batch_size=4)
    prompts, sampling = [[5, 6, 7]], Sampling(temperature=0.8, top_p=1.0, max_new_tokens=12)
    plain = sampled(generator, prompts, sampling, n=4)
    settings = model.generation_config
    settings.repetition_penalty, settings.min_p, settings.no_repeat_ngram_size = 5.0, 0.5, 1
    settings.suppress_tokens = list(range(100))
    assert sampled(generator, prompts, sampling, n=4) == plain
    assert model.generation_config is settings  # They are saved with the model as they came.


def test_sampled_tokens_are_as_likely_as_their_scored_log_probs_say(
    base_model: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    # One token from one prompt, 4,000 times: frequencies against the probabilities of the policy at temperature 0.8.
    model = load_policy(str(base_model))
    generator = TransformersGenerator(model, tokenizer, batch_size=4000)
    (responses,) = sampled(
        generator, [[5, 6, 7]], Sampling(temperature=0.8, top_p=1.0, max_new_tokens=1), n=4000, seed=3
    )
    tokens = torch.tensor([response.ids for response in responses]).flatten()
    policy = Policy(model)
    size = model.config.vocab_size
    with torch.no_grad():
        log_probs, _ = policy(pack([([5, 6, 7], [[index] for index in range(size)])], torch.device("cpu")), 0.8)
    expected = log_probs.exp()
    assert expected.sum().item() == pytest.approx(1, abs=1e-4)
    frequency = torch.bincount(tokens, minlength=size) / len(tokens)
    likely = expected.topk(20).indices
    error = (expected[likely] * (1 - expected[likely]) / len(tokens)).sqrt()
    assert ((frequency - expected)[likely].abs() < 4.5 * error).all()


def test_every_end_of_text_ends_a_response(base_model: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    model = load_policy(str(base_model))
    model.generation_config.eos_token_id = list(range(2, 250))  # Ends where the tokenizer's own end would not.
    generator = TransformersGenerator(model, tokenizer, batch_size=8)
    found = sampled(generator, [[5, 6, 7]], Sampling(temperature=1.0, top_p=1.0, max_new_tokens=40), n=8, seed=2)
    responses = [response.ids for response in found[0]]
    assert any(response[-1] != tokenizer.eos_token_id and len(response) < 40 for response in responses)
    for response in responses:
        assert all(index not in generator.ends for index in response[:-1])


def test_a_model_file_that_is_cut_short_is_named(base_model: Path, tmp_path: Path) -> None:
    shutil.copytree(base_model, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    for load in (load_policy, load_critic):
        with pytest.raises(DataError, match=str(tmp_path / "model")):
            load(str(tmp_path / "model"))


def test_a_critic_in_bf16_keeps_the_angles_of_its_positions(base_model: Path) -> None:
    policy, critic = load_policy(str(base_model), "bf16"), load_critic(str(base_model), "bf16")
    assert {weight.dtype for weight in critic.parameters()} == {torch.bfloat16}
    angles = critic.backbone.rotary_emb.inv_freq
    assert angles.dtype == torch.float32
    assert torch.equal(angles, policy.model.rotary_emb.inv_freq)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_policy_can_be_loaded_in_the_format_that_it_was_saved_in(
    dtype: torch.dtype, base_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    save_policy(load_policy(str(base_model)).to(dtype), tokenizer, tmp_path / "policy", {})
    assert load_policy(str(tmp_path / "policy"), None).dtype == dtype


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPU of this machine")
def test_a_gpu_that_torch_cannot_use_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info")
    monkeypatch.setattr(loading, "_GPU_DRIVER", tmp_path / "nvidiactl")
    loading.tell_device()
    assert "cannot use it" not in capsys.readouterr().err
    (tmp_path / "nvidiactl").touch()
    loading.tell_device()
    told = capsys.readouterr().err
    assert "device=cpu" in told
    assert "torch cannot use it" in told


def test_a_critic_is_not_taken_for_a_policy(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=False, **sizes)
    save_policy(LlamaForCausalLM(config), tokenizer, tmp_path / "policy", {})
    save_critic(load_critic(str(tmp_path / "policy")), tokenizer, tmp_path / "critic", {})
    load_policy(str(tmp_path / "policy"))
    with pytest.raises(DataError, match=r"critic: not a causal language model.*lm_head"):
        load_policy(str(tmp_path / "critic"))


def test_a_context_longer_than_the_models_and_an_id_without_embedding_are_refused(
    base_model: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = load_policy(str(base_model))
    check_room(model, tokenizer, 2048)
    with pytest.raises(DataError, match=r"2048 positions.*2049; lower"):
        check_room(model, tokenizer, 2049)
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    with pytest.raises(DataError, match=r"513 ids and the model 512 embeddings"):
        check_room(model, tokenizer, 10)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    network = nn.Linear(4, 1, bias=False)
    running = trained(network)
    running.save(tmp_path, "policy")
    running.load(tmp_path, "policy")
    for file in (tmp_path / "policy").glob("*.pt"):
        file.write_bytes(bytes(file.stat().st_size))  # As a crash of the machine leaves it: the size is right.
    with pytest.raises(StepCoderError, match=rf"{tmp_path}: the checkpoint is damaged.*remove it"):
        running.load(tmp_path, "policy")


# --- models of the hub ------------------------------------------------------------------------------------------------


@pytest.fixture
def hub_cache(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's local cache with two commits of one model, as it is offline; `main` is the second one."""
    repository = tmp_path / "models--owner--coder"
    for commit, weight in ((FIRST, 1.0), (SECOND, 2.0)):
        shutil.copytree(base_model, repository / "snapshots" / commit)
        model = load_policy(str(base_model))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(weight)
        model.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(SECOND)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub.pinned.cache_clear()
    return repository


FIRST, SECOND = "1" * 40, "2" * 40


def test_the_commit_in_an_address_is_the_one_that_is_loaded(hub_cache: Path) -> None:
    for commit, weight in ((FIRST, 1.0), (SECOND, 2.0)):
        address = f"owner/coder@{commit}"
        assert load_policy(address).get_input_embeddings().weight.unique().tolist() == [weight]
        assert next(load_critic(address).backbone.parameters()).unique().tolist() == [weight]
        assert load_tokenizer(address).eos_token == "<|end|>"
        assert model_digest(address) == address


def test_an_id_without_a_commit_stays_at_the_one_that_was_found_first(hub_cache: Path) -> None:
    assert model_digest("owner/coder") == f"owner/coder@{SECOND}"
    (hub_cache / "refs" / "main").write_text(FIRST)
    assert load_policy("owner/coder").get_input_embeddings().weight.unique().tolist() == [2.0]
    assert model_digest("owner/coder") == f"owner/coder@{SECOND}"


def test_a_model_that_is_nowhere_is_told_as_such(hub_cache: Path) -> None:
    for address in ("owner/typo", "owner/coder@" + "3" * 40, "a/b/c"):
        with pytest.raises(DataError, match=f"{address}: is neither a folder here nor a model that the hub"):
            load_tokenizer(address)


def test_a_folder_may_have_an_at_sign_in_its_name(base_model: Path, tmp_path: Path) -> None:
    shutil.copytree(base_model, tmp_path / "model@1")
    assert load_tokenizer(str(tmp_path / "model@1")).eos_token == "<|end|>"
