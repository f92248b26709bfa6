"""Keys and values while sampling: those of each prompt once for all its samples, and of each sample its own tokens'.

A step of decoding reads every key and value that there is, and that is most of its cost. Samples of a prompt stand
beside each other as queries of one product with the prompt's keys, so that these are read once and not once a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class Decoding:
    """The states of one batch of prompts and their samples.

    Notation:
        - `P`: prompts in the batch; each has a sample that still goes on.
        - `rows`: samples in the batch, those of a prompt beside each other.
        - `most`: samples of the prompt that has the most of them.
    """

    def __init__(self, model: PreTrainedModel, longest: int) -> None:
        """Nothing read yet.

        Args:
            model: reads packed sequences.
            longest: most tokens of a sample.
        """
        self.cache = DynamicCache(config=model.config)
        """What the model writes to: all prompts, one behind the other, then a token a sample in each step."""
        self.cache.layers = [_Layer(longest) for _ in self.cache.layers]

    def begin(self, lengths: Sequence[int], samples: Sequence[int]) -> None:
        """Goes over from prompts to samples.

        Args:
            lengths: tokens of each prompt that the cache holds now.
            samples: of each prompt.
        """
        longest, device = max(lengths), self.cache.layers[0].keys.device
        # On the left, so that all samples are equally far from a key of one place: a window is a slice then.
        place = torch.arange(longest, device=device) - longest + torch.tensor(lengths, device=device).unsqueeze(1)
        begins = torch.tensor([0, *lengths[:-1]], device=device).cumsum(0)
        self.padding = (place < 0)[:, None, None] if min(lengths) < longest else None
        """Which places of a prompt hold nothing, `(P, 1, 1, longest)`; None: there are none."""
        tokens = begins.unsqueeze(1) + place.clamp(min=0)
        for layer in self.cache.layers:
            layer.begin(tokens, sum(samples))
        self._stand(torch.arange(len(lengths), device=device).repeat_interleave(torch.tensor(samples, device=device)))

    def keep(self, rows: Tensor) -> None:
        """Drops all samples but these, and prompts without one."""
        prompts, origin = torch.unique_consecutive(self.origin[rows], return_inverse=True)
        gone = len(prompts) < self.prompts
        for layer in self.cache.layers:
            layer.keep(rows, prompts if gone else None)
        if gone and self.padding is not None:
            self.padding = self.padding[prompts]
        self._stand(origin)

    def _stand(self, origin: Tensor) -> None:
        """Gives every sample a place among its prompt's, whose rows it leads to."""
        self.origin = origin
        counts = origin.bincount()
        self.prompts, self.most = len(counts), int(counts.max())
        number = torch.arange(len(origin), device=origin.device) - (counts.cumsum(0) - counts)[origin]
        self.places = None if len(origin) == self.prompts * self.most else origin * self.most + number
        """Where each row stands among `P * most`; None: all of these are rows."""

    def _by_prompt(self, states: Tensor) -> Tensor:
        """`(rows, groups, queries, n) -> (P, groups, most * queries, n)`, nought where a prompt has fewer samples."""
        _, groups, queries, n = states.shape
        if self.places is not None:
            states = states.new_zeros(self.prompts * self.most, groups, queries, n).index_copy_(0, self.places, states)
        stacked = states.view(self.prompts, self.most, groups, queries, n).transpose(1, 2)
        return stacked.reshape(self.prompts, groups, self.most * queries, n)

    def _by_row(self, states: Tensor, queries: int) -> Tensor:
        """The way back: `(P, groups, most * queries, n) -> (rows, groups, queries, n)`."""
        _, groups, _, n = states.shape
        apart = states.view(self.prompts, groups, self.most, queries, n).transpose(1, 2)
        rows = apart.reshape(self.prompts * self.most, groups, queries, n)
        return rows if self.places is None else rows[self.places]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """Attention of one new token a sample: to its prompt, and to its own tokens up to itself.

        Args:
            layer: number of the layer.
            query: `(rows, heads, 1, head size)`.
            key: of the sample's own tokens, `(rows, key heads, tokens, head size)`.
            value: like `key`.
            scaling: factor on the scores.
            window: how many tokens a token sees, itself included.

        Returns:
            `(rows, 1, heads, head size)`.
        """
        rows, heads, _, size = query.shape
        prompt_key, prompt_value = self.cache.layers[layer].prompt
        groups, own = key.shape[1:3]
        queries = heads // groups
        unseen = 0 if window is None else max(0, prompt_key.shape[2] + own - window)
        if unseen:
            prompt_key, prompt_value = prompt_key[:, :, unseen:], prompt_value[:, :, unseen:]
            key, value = (states[:, :, max(0, own - (window or 0)) :] for states in (key, value))
        asked = query.view(rows, groups, queries, size) * (size**-0.5 if scaling is None else scaling)
        to_prompt = self._by_prompt(asked) @ prompt_key.mT
        if self.padding is not None:
            to_prompt.masked_fill_(self.padding[..., unseen:], -torch.inf)
        scores = torch.cat([self._by_row(to_prompt, queries), asked @ key.mT], 3)
        weights = scores.softmax(3, dtype=torch.float32).to(value.dtype)
        of_prompt, of_own = torch.split(weights, [prompt_key.shape[2], key.shape[2]], 3)
        found = self._by_row(self._by_prompt(of_prompt) @ prompt_value, queries) + of_own @ value
        return found.reshape(rows, 1, heads, size)


class _Layer(DynamicLayer):  # type: ignore[misc]
    """One layer's states: first whatever the model reads, after `begin` the samples' own in memory that is there."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.prompt: tuple[Tensor, Tensor] | None = None
        """Keys and values of the prompts, `(P, key heads, tokens, head size)`."""
        self.tokens = 0
        """Own tokens of each sample."""

    def begin(self, tokens: Tensor, rows: int) -> None:
        """Puts the prompts beside each other: `(1, key heads, all tokens, size) -> (P, key heads, tokens, size)`."""
        key, value = (states[0][:, tokens].transpose(0, 1).contiguous() for states in (self.keys, self.values))
        self.prompt = key, value
        self._move_into(*(one.new_empty(rows, one.shape[1], self.longest, one.shape[3]) for one in (key, value)))

    def keep(self, rows: Tensor, prompts: Tensor | None) -> None:
        """Drops all samples but these, and all prompts but these."""
        new = [one.new_empty(len(rows), *one.shape[1:]) for one in self.room]
        for room, states in zip(new, (self.keys, self.values), strict=True):
            room[:, :, : self.tokens] = states[rows]
        self._move_into(*new)
        if prompts is not None and self.prompt is not None:
            self.prompt = self.prompt[0][prompts], self.prompt[1][prompts]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Adds what the model read; gives all of it back, or, after `begin`, the samples' own."""
        if self.prompt is None:
            states: tuple[Tensor, Tensor] = super().update(key_states, value_states, *args, **kwargs)
            return states
        for room, one in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, self.tokens : self.tokens + 1] = one
        self.tokens += 1
        self._move_into(*self.room)
        return self.keys, self.values

    def _move_into(self, key_room: Tensor, value_room: Tensor) -> None:
        # What stood elsewhere is let go here, one layer after the other.
        self.room = key_room, value_room
        self.keys, self.values = (room[:, :, : self.tokens] for room in self.room)
