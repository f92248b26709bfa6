"""The model that both sides load: random weights and the smallest tokenizer that both accept."""

from __future__ import annotations

from pathlib import Path

from benchmarks.ppo_step.settings import HEADS, Setting


def write_model(setting: Setting, folder: Path) -> int:
    """Writes the model folder, shaped as `stepcoder.model.init` shapes it; returns the number of parameters."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=setting.vocabulary,
            hidden_size=setting.hidden,
            intermediate_size=setting.intermediate,
            num_hidden_layers=setting.layers,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=8192,
            initializer_range=setting.hidden**-0.5,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=setting.end,
            pad_token_id=setting.padding if setting.padding < setting.vocabulary else None,
        )
    )
    model.save_pretrained(folder)
    words = {f"w{i}": i for i in range(setting.vocabulary)}
    words = {word: i for word, i in words.items() if i not in (setting.end, setting.padding)}
    words |= {"<|pad|>": setting.padding, "<|end|>": setting.end}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), eos_token="<|end|>", pad_token="<|pad|>"
    )
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    parameters: int = model.num_parameters()
    return parameters
