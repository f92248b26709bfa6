"""Sampling responses: prompts of token ids in, token ids out. Another engine needs only the same two names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from stepcoder.model.settings import Sampling


class Generator(Protocol):
    """Samples responses."""

    ends: frozenset[int]
    """Ids that end a text: the tokenizer's, and those of the model's own settings."""

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> list[list[int]]:
        """One response for each prompt: sampled ids up to and with the end of text, without padding."""
        ...


class TransformersGenerator:
    """Generation in this process with `transformers`, in batches of similar length.

    The result depends on the batch size, since it orders the draws, but not on anything that ran before.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        self.model = model
        self.padding = tokenizer.pad_token_id
        end = model.generation_config.eos_token_id
        self.ends = frozenset(
            [tokenizer.eos_token_id, *(end if isinstance(end, list) else [] if end is None else [end])]
        )
        self.batch_size = batch_size

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> list[list[int]]:
        """Samples one response for each prompt; see `Generator.generate`."""
        settings = GenerationConfig(
            do_sample=True,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=sorted(self.ends),
            pad_token_id=self.padding,
        )
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        responses: list[list[int]] = [[] for _ in prompts]
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with _as_itself(self.model), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for begin in range(0, len(order), self.batch_size):
                chosen = order[begin : begin + self.batch_size]
                sampled = self._batch([prompts[index] for index in chosen], settings)
                for index, ids in zip(chosen, sampled, strict=True):
                    responses[index] = ids
        return responses

    def _batch(self, prompts: Sequence[Sequence[int]], settings: GenerationConfig) -> list[list[int]]:
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), longest), self.padding, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        device = self.model.device
        output = self.model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=settings
        )
        return [self._until_end(row) for row in output[:, longest:].tolist()]

    def _until_end(self, ids: list[int]) -> list[int]:
        for position, index in enumerate(ids):
            if index in self.ends:
                return ids[: position + 1]
        return ids


@contextmanager
def _as_itself(model: PreTrainedModel) -> Iterator[None]:
    """The model in evaluation mode and without its own generation settings.

    Published models bring a repetition penalty or banned words along, which would fill whatever is not set here; the
    samples would then follow another distribution than the one that log-probs are computed from.
    """
    own, was_training = model.generation_config, model.training
    model.generation_config = GenerationConfig()
    model.eval()
    try:
        yield
    finally:
        model.generation_config = own
        model.train(was_training)
