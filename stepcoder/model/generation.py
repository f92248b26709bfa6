"""Sampling responses: prompts of token ids in, token ids out. Another engine needs only the same two names.

The loop is our own because `generate` of `transformers` can share no prefill between the samples of a prompt, keeps
computing ended samples until the last one ends, and draws all samples of a batch from one stream. Here each sample has
a stream of its own: what is drawn depends on its request and on nothing that is sampled beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from stepcoder.model.seeds import derived_seed
from stepcoder.model.settings import Sampling

_STILL_ENOUGH = 0.75
"""Ended samples leave the batch when less than this share of it goes on: leaving costs a copy of the cache."""


@dataclass(frozen=True)
class Request:
    """A prompt and how many responses to it are wanted."""

    prompt_ids: Sequence[int]
    samples: int
    seed: int
    """The same seed, prompt and policy give the same responses, whatever else is sampled."""


@dataclass(frozen=True)
class Response:
    """One sampled response."""

    request: int
    """Index of its request."""
    number: int
    """Which of the request's samples it is, from 0."""
    ids: list[int] = field(default_factory=list)
    """Up to and with the end of text, without padding."""
    log_probs: list[float] = field(default_factory=list)
    """Of each id, as they were when it was drawn."""


class Generator(Protocol):
    """Samples responses."""

    ends: frozenset[int]
    """Ids that end a text: the tokenizer's, and those of the model's own settings."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        """All responses, each as soon as it has ended."""
        ...


class TransformersGenerator:
    """Generation in this process with a `transformers` model, in batches of prompts of similar length."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        self.model = model
        self.padding: int = tokenizer.pad_token_id
        end = model.generation_config.eos_token_id
        self.ends = frozenset(
            [tokenizer.eos_token_id, *(end if isinstance(end, list) else [] if end is None else [end])]
        )
        self.batch_size = batch_size

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        """All responses, each as soon as it has ended; see `Generator.generate`."""
        was_training = self.model.training
        self.model.eval()
        try:
            for batch in self._batches(requests):
                yield from self._sample(batch, requests, sampling)
        finally:
            self.model.train(was_training)

    def _batches(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, list[int]]]]:
        """Requests of similar length with the numbers of their samples; no batch has more samples than allowed."""
        batch: list[tuple[int, list[int]]] = []
        room = self.batch_size
        for index in sorted(range(len(requests)), key=lambda index: len(requests[index].prompt_ids)):
            numbers = list(range(requests[index].samples))
            while numbers:
                # A prompt's samples stay together where they fit, since they share its prefill.
                if room < min(len(numbers), self.batch_size):
                    yield batch
                    batch, room = [], self.batch_size
                batch.append((index, numbers[:room]))
                numbers, room = numbers[room:], room - len(numbers[:room])
        if batch:
            yield batch

    def _sample(
        self, batch: Sequence[tuple[int, list[int]]], requests: Sequence[Request], sampling: Sampling
    ) -> Iterator[Response]:
        model, device, longest = self.model, self.model.device, sampling.max_new_tokens
        # 1. One prefill a prompt, padded on the left; its samples go on from copies of its cache.
        ids, seen = self._padded([requests[index].prompt_ids for index, _ in batch])
        cache = _roomy_cache(model, ids.shape[1] + longest)
        # Without padding there is nothing to mask, except what a sliding window leaves behind.
        masked = bool((seen == 0).any()) or getattr(model.config.get_text_config(), "sliding_window", None)
        positions = seen.cumsum(1).sub(1).clamp(min=0)
        logits = self._logits(ids, seen if masked else None, positions, cache)
        copies = torch.tensor([len(numbers) for _, numbers in batch], device=device)
        origin = torch.arange(len(batch), device=device).repeat_interleave(copies)
        rows = [Response(index, number) for index, numbers in batch for number in numbers]
        if len(rows) > len(batch):
            cache.batch_select_indices(origin)
            logits, seen, positions = logits[origin], seen[origin], positions[origin]
        seen = torch.cat([seen, seen.new_ones(len(rows), longest)], 1)
        position = positions[:, -1:]
        uniform = torch.stack([_stream(requests[row.request].seed, row.number, longest) for row in rows]).to(device)
        ends = torch.tensor(sorted(self.ends), device=device)
        # 2. Token by token; what has ended is handed out at once.
        going = list(range(len(rows)))
        for step in range(longest):
            drawn, log_probs = draw(logits, uniform[:, step], sampling)
            ended = torch.isin(drawn, ends).tolist()
            last = step + 1 == longest
            ongoing = []
            for place, (id_, log_prob) in enumerate(zip(drawn.tolist(), log_probs.tolist(), strict=True)):
                if (row := going[place]) < 0:
                    continue  # It ended earlier and is still in the batch.
                rows[row].ids.append(id_)
                rows[row].log_probs.append(log_prob)
                if ended[place] or last:
                    going[place] = -1
                    yield rows[row]
                else:
                    ongoing.append(place)
            if not ongoing:
                return
            if len(ongoing) < _STILL_ENOUGH * len(going):
                kept = torch.tensor(ongoing, device=device)
                cache.batch_select_indices(kept)
                drawn, seen, position, uniform = drawn[kept], seen[kept], position[kept], uniform[kept]
                going = [going[place] for place in ongoing]
            position = position + 1
            so_far = seen[:, : ids.shape[1] + step + 1] if masked else None
            logits = self._logits(drawn.unsqueeze(1), so_far, position, cache)

    def _logits(self, ids: Tensor, seen: Tensor | None, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Logits after the last of the ids."""
        output = self.model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), longest), self.padding, dtype=torch.long)
        seen = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            seen[row, longest - len(prompt) :] = 1
        return ids.to(self.model.device), seen.to(self.model.device)


def draw(
    logits: Float[Tensor, "batch vocabulary"], uniform: Float[Tensor, " batch"], sampling: Sampling
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Draws one token a row by inverting the distribution's cumulative sum.

    Args:
        logits: of the next token.
        uniform: one number in [0, 1) a row.
        sampling: temperature and nucleus.

    Returns:
        Token ids, and their log-probs under the distribution that they were drawn from.
    """
    probabilities = torch.softmax(logits.float() / sampling.temperature, -1)
    order = None
    if sampling.top_p < 1:
        probabilities, order = probabilities.sort(-1, descending=True)
        # The smallest set with at least that probability: what comes before a token in it has less.
        probabilities = probabilities * (probabilities.cumsum(-1) - probabilities < sampling.top_p)
    sums = probabilities.cumsum(-1)
    total = sums[:, -1:]
    # Rounding may lift it to the total, beyond the last token with any probability.
    wanted = torch.minimum(uniform.float().unsqueeze(1) * total, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(sums, wanted, right=True)
    log_probs = (probabilities.gather(1, place) / total).log().squeeze(1)
    return (place if order is None else order.gather(1, place)).squeeze(1), log_probs


def _stream(seed: int, number: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(derived_seed(seed, number))
    return torch.rand(length, generator=generator)


def _roomy_cache(model: PreTrainedModel, longest: int) -> DynamicCache:
    """The model's own kind of cache, whose ordinary layers have room for the whole text from the start."""
    cache = DynamicCache(config=model.config)
    cache.layers = [_RoomyLayer(longest) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer that writes into memory it already has, where `DynamicLayer` copies all of it for each token."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        seen = self.get_seq_length()
        end = seen + key_states.shape[-2]
        if self.room is None:
            self._move_into(key_states, value_states, 0)
        assert self.room is not None
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, seen:end] = states
        self.keys, self.values = self.room[0][:, :, :end], self.room[1][:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        self._move_into(self.keys[indices], self.values[indices], self.get_seq_length())

    def _move_into(self, keys: Tensor, values: Tensor, seen: int) -> None:
        """Makes room of the shape of the states, and keeps the first ones of them."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        shapes = [(*states.shape[:2], self.longest, states.shape[3]) for states in (keys, values)]
        self.room = keys.new_empty(shapes[0]), values.new_empty(shapes[1])
        for room, states in zip(self.room, (keys, values), strict=True):
            room[:, :, :seen] = states[:, :, :seen]
        self.keys, self.values = self.room[0][:, :, :seen], self.room[1][:, :, :seen]
