"""A small Llama-shaped base model from nothing, with a tokenizer trained on a dataset: for the demo and the tests."""

from __future__ import annotations

from pydantic import Field

from stepcoder.errors import DataError
from stepcoder.model.prompt import FENCE, PLAIN
from stepcoder.platform import storage
from stepcoder.platform.config import StepConfig
from stepcoder.platform.logs import get_logger
from stepcoder.problems import Format, read_problems, split_of

log = get_logger("init-model")
END, PADDING = "<|end|>", "<|pad|>"


class InitModelConfig(StepConfig):
    """Makes a small language model with random weights and a byte-level BPE tokenizer."""

    problems: str
    """Problem file whose training share the tokenizer learns from; a path or an `s3://` address."""
    format: Format = "apps_plus"
    """Format of the problem file."""
    out: str
    """Folder of the model: a path or an `s3://` address."""
    vocabulary: int = Field(512, ge=300)
    """Tokens in the vocabulary."""
    hidden_size: int = Field(128, ge=8, multiple_of=8)
    """Width of the model."""
    layers: int = Field(2, ge=1)
    """Transformer layers."""
    heads: int = Field(4, ge=1)
    """Attention heads; they divide the width."""
    max_length: int = Field(2048, ge=64)
    """Longest sequence in tokens."""
    validation: float = Field(0.25, ge=0, lt=1)
    """Share of problems held out for validation: the tokenizer does not see them."""
    test: float = Field(0.25, ge=0, lt=1)
    """Share of problems held out for test: the tokenizer does not see them."""
    max_chars: int | None = Field(None, ge=1)
    """Leave out problems with more characters than this; see verify."""
    seed: int = 0
    """Seed of the weights."""


def init_model(config: InitModelConfig) -> None:
    """Writes the model folder.

    Raises:
        DataError: no problem of the file can be used.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from stepcoder.model.load import write_card

    texts = _training_texts(config)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(texts, config.vocabulary), eos_token=END, pad_token=PADDING, padding_side="left"
    )
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.hidden_size * 8 // 3 // 8 * 8,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.max_length,
            # The usual 0.02 is meant for wide models; a narrow one would spend most of a short training on growing.
            initializer_range=config.hidden_size**-0.5,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    with storage.staged(config.out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # Without its address: the same model is the same content wherever it lies.
        write_card(folder, {"config": config.model_dump(mode="json", exclude={"out"})})
    log.info("model", parameters=model.num_parameters(), vocabulary=len(tokenizer), texts=len(texts), out=config.out)


def _training_texts(config: InitModelConfig) -> list[str]:
    path = storage.fetch(config.problems)
    problems = read_problems(path, config.format)
    texts = [
        PLAIN.format(statement=problem.statement) + f"{problem.solution}\n{FENCE}"
        for problem in problems
        if split_of(problem, config.validation, config.test) == "train"
        and (config.max_chars is None or problem.characters <= config.max_chars)
    ]
    if not texts:
        raise DataError(f"{config.problems}: no problem to train a tokenizer on (of {len(problems)})")
    return texts


def _tokenizer(texts: list[str], vocabulary: int):  # type: ignore[no-untyped-def]
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # A line ends a token, and digits stand alone: prefixes are cut at lines, and numbers are copied.
            pre_tokenizers.Split(Regex(r"\n|[0-9]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[PADDING, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer
