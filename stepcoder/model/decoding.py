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

    The model's first pass reads the prompts, packed; each one after it reads a token of every sample.

    Notation:
        - `P`: prompts in the batch; each has a sample that still goes on.
        - `rows`: samples in the batch, those of a prompt beside each other.
        - `most`: samples of the prompt that has the most of them.
    """

    def __init__(self, model: PreTrainedModel, lengths: Sequence[int], samples: Sequence[int], longest: int) -> None:
        """Nothing read yet.

        Args:
            model: reads packed sequences.
            lengths: tokens of each prompt.
            samples: of each prompt.
            longest: most tokens of a sample.
        """
        self.cache = DynamicCache(config=model.config)
        """What the model is to use; it holds the samples' own states."""
        self.cache.layers = [_Layer(longest) for _ in self.cache.layers]
        self.prompt: dict[int, tuple[Tensor, Tensor]] = {}
        """Of each layer keys and values of the prompts, `(P, key heads, tokens, head size)`."""
        device, widest = model.device, max(lengths)
        # On the left, so that all samples are equally far from a key of one place: a window is a slice then.
        place = torch.arange(widest, device=device) - widest + torch.tensor(lengths, device=device).unsqueeze(1)
        begins = torch.tensor([0, *lengths[:-1]], device=device).cumsum(0)
        self.tokens = begins.unsqueeze(1) + place.clamp(min=0)
        """Which token of the packed row each place of a prompt holds, `(P, widest)`."""
        self.padding = (place < 0)[:, None, None] if min(lengths) < widest else None
        """Which places of a prompt hold nothing, `(P, 1, 1, widest)`; None: there are none."""
        self._stand(torch.arange(len(lengths), device=device).repeat_interleave(torch.tensor(samples, device=device)))

    def read(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Puts the packed prompts' states beside each other: `(1, key heads, all tokens, size)` each.

        They are taken as attention sees them: some models cache other states, and make keys and values of these.
        """
        key, value = (one[0][:, self.tokens].transpose(0, 1).contiguous() for one in (key, value))
        self.prompt[layer] = key, value

    def keep(self, rows: Tensor) -> None:
        """Drops all samples but these, and prompts without one."""
        prompts, origin = torch.unique_consecutive(self.origin[rows], return_inverse=True)
        gone = len(prompts) < self.prompts
        for layer in self.cache.layers:
            layer.keep(rows)
        if gone:
            for number, (key, value) in self.prompt.items():
                self.prompt[number] = key[prompts], value[prompts]
            self.padding = None if self.padding is None else self.padding[prompts]
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
        prompt_key, prompt_value = self.prompt[layer]
        groups, own = key.shape[1:3]
        queries = heads // groups
        unseen = 0 if window is None else max(0, prompt_key.shape[2] + own - window)
        if unseen:
            prompt_key, prompt_value = prompt_key[:, :, unseen:], prompt_value[:, :, unseen:]
            key, value = (states[:, :, max(0, own - (window or 0)) :] for states in (key, value))
        asked = query.view(rows, groups, queries, size)
        to_prompt = self._by_prompt(asked) @ prompt_key.mT
        if self.padding is not None:
            to_prompt.masked_fill_(self.padding[..., unseen:], -torch.inf)
        scores = torch.cat([self._by_row(to_prompt, queries), asked @ key.mT], 3)
        weights = scores.float().mul(size**-0.5 if scaling is None else scaling).softmax(3).to(value.dtype)
        of_prompt, of_own = torch.split(weights, [prompt_key.shape[2], key.shape[2]], 3)
        found = self._by_row(self._by_prompt(of_prompt) @ prompt_value, queries) + of_own @ value
        return found.reshape(rows, 1, heads, -1)


class _Layer(DynamicLayer):  # type: ignore[misc]
    """What one layer caches of the samples' own tokens, in memory that is there from the start. Of prompts nothing."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.tokens = -1
        """Own tokens of each sample; -1: the model has not read the prompts."""

    def keep(self, rows: Tensor) -> None:
        """Drops all samples but these."""
        if self.tokens < 1:
            return  # There is nothing of theirs yet.
        new = [one.new_empty(len(rows), *one.shape[1:]) for one in self.room]
        for room, states in zip(new, (self.keys, self.values), strict=True):
            room[:, :, : self.tokens] = states[rows]
        self._move_into(new)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Gives the prompts' states back as they are; of the samples it adds a token, and gives all of their own."""
        self.tokens += 1
        if not self.tokens:
            return key_states, value_states
        states = key_states, value_states
        if self.tokens == 1:
            self.lazy_initialization(*states)
            self.room = [one.new_empty(*one.shape[:2], self.longest, one.shape[3]) for one in states]
        for room, one in zip(self.room, states, strict=True):
            room[:, :, self.tokens - 1 : self.tokens] = one
        self._move_into(self.room)
        return self.keys, self.values

    def _move_into(self, room: list[Tensor]) -> None:
        # What stood elsewhere is let go here, one layer after the other.
        self.room = room
        self.keys, self.values = (one[:, :, : self.tokens] for one in room)

    def get_seq_length(self) -> int:
        """Own tokens of each sample."""
        return max(self.tokens, 0)
