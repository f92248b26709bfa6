"""Sampling responses: prompts of token ids in, token ids out. Another engine needs only the same two names.

The loop is our own because `generate` of `transformers` can share no prompt between its samples, keeps computing ended
samples until the last one ends, and draws all samples of a batch from one stream. Here each sample has a stream of its
own: what is drawn depends on its request and on nothing that is sampled beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stepcoder.model.attention import Layout
from stepcoder.model.decoding import Decoding
from stepcoder.model.policy import check_packing
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
        """Over a model.

        Args:
            model: the model; its attention learns to read packed sequences.
            tokenizer: knows an end of text besides those of the model's own settings.
            batch_size: most samples at a time.

        Raises:
            DataError: the model cannot read packed sequences.
        """
        check_packing(model)
        self.model = model
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
        device, longest = self.model.device, sampling.max_new_tokens
        # 1. The prompts, packed: each is read once, and all its samples go on from there.
        prompts = [requests[index].prompt_ids for index, _ in batch]
        sizes = [len(prompt) for prompt in prompts]
        lengths = torch.tensor(sizes, device=device)
        ids = torch.tensor([[id_ for prompt in prompts for id_ in prompt]], device=device)
        positions = torch.tensor([[position for size in sizes for position in range(size)]], device=device)
        decoding = Decoding(self.model, sizes, [len(numbers) for _, numbers in batch], longest)
        read = partial(self.model, decoding=decoding, past_key_values=decoding.cache, use_cache=True)
        layout, lasts = Layout(tuple((size, ()) for size in sizes)), lengths.cumsum(0) - 1
        logits = read(input_ids=ids, position_ids=positions, layout=layout, logits_to_keep=lasts).logits[0]
        rows = [Response(index, number) for index, numbers in batch for number in numbers]
        logits, position = logits[decoding.origin], lengths[decoding.origin].unsqueeze(1) - 1
        uniform = torch.stack([_stream(requests[row.request].seed, row.number, longest) for row in rows]).to(device)
        # 2. Token by token; what has ended is handed out at once.
        going = list(range(len(rows)))
        for step in range(longest):
            drawn, log_probs = draw(logits, uniform[:, step], sampling)
            last = step + 1 == longest
            ongoing = []
            for place, (id_, log_prob) in enumerate(zip(drawn.tolist(), log_probs.tolist(), strict=True)):
                if (row := going[place]) < 0:
                    continue  # It ended earlier and is still in the batch.
                rows[row].ids.append(id_)
                rows[row].log_probs.append(log_prob)
                if id_ in self.ends or last:
                    going[place] = -1
                    yield rows[row]
                else:
                    ongoing.append(place)
            if not ongoing:
                return
            if len(ongoing) < _STILL_ENOUGH * len(going):
                kept = torch.tensor(ongoing, device=device)
                decoding.keep(kept)
                drawn, position, uniform = drawn[kept], position[kept], uniform[kept]
                going = [going[place] for place in ongoing]
            position = position + 1
            logits = read(input_ids=drawn.unsqueeze(1), position_ids=position).logits[:, 0]


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
