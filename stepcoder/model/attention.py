"""Causal attention over packed sequences, as an attention implementation of `transformers`.

Sequences stand one behind the other in one row and see only themselves and, where they are responses, the prompt that
they share with others. Nothing is padded: on a GPU torch's variable-length kernel takes the row as it is, on a CPU
neighbours of equal shape are one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from stepcoder.errors import DataError
from stepcoder.model.decoding import Decoding

Shape = tuple[int, tuple[int, ...]]
"""Tokens of a prompt, and of each of its responses."""


@dataclass(frozen=True)
class Layout:
    """Where in a row prompts and their responses stand: each prompt is followed by its responses."""

    shapes: tuple[Shape, ...]

    @classmethod
    def of(cls, shapes: Sequence[Shape]) -> Layout:
        """The layout of some shapes; a prompt with a single response is one ordinary sequence with it."""
        return cls(tuple((prompt + rs[0], ()) if len(rs) == 1 else (prompt, rs) for prompt, rs in shapes))

    @cached_property
    def masks(self) -> dict[tuple[int, int, int | None], Tensor]:
        """Masks made so far, by length, prefix and window; they live as long as the micro-batch."""
        return {}

    def mask(self, length: int, prefix: int, window: int | None, device: torch.device) -> Tensor:
        """Which keys each query of a sequence sees, `(length, prefix + length)`: those before it, and itself."""
        if (length, prefix, window) not in self.masks:
            queries = torch.arange(prefix, prefix + length, device=device).unsqueeze(1)
            distance = queries - torch.arange(prefix + length, device=device)
            self.masks[length, prefix, window] = (distance >= 0) & (distance < (window or prefix + length))
        return self.masks[length, prefix, window]

    @cached_property
    def spans(self) -> _Spans:
        """The layout for a variable-length kernel."""
        queries, keys, tokens, begin = [], [], [], 0
        for prompt, responses in self.shapes:
            prefix = list(range(begin, begin + prompt))
            begin += prompt
            queries.append(prompt)
            keys.append(prompt)
            tokens += prefix
            for response in filter(None, responses):
                queries.append(response)
                keys.append(prompt + response)
                tokens += [*prefix, *range(begin, begin + response)]
                begin += response
        return _Spans(_begins(queries), _begins(keys), max(queries), max(keys), torch.tensor(tokens))

    @cached_property
    def moved(self) -> dict[torch.device, _Spans]:
        """The spans on the devices that they were moved to."""
        return {}

    def spans_on(self, device: torch.device) -> _Spans:
        """The spans on a device; they are moved there once for all layers."""
        if device not in self.moved:
            spans = self.spans
            self.moved[device] = spans._replace(
                queries=spans.queries.to(device), keys=spans.keys.to(device), tokens=spans.tokens.to(device)
            )
        return self.moved[device]


class _Spans(NamedTuple):
    """Queries and keys of each sequence: those of a response are its prompt's and its own."""

    queries: Tensor
    keys: Tensor
    longest_query: int
    longest_key: int
    tokens: Tensor
    """Which token of the row each key is."""


def _begins(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)


NAME = "stepcoder_packed"

_UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some architectures add to the scores, which would be lost here."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    layout: Layout | None = None,
    decoding: Decoding | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer.

    Args:
        module: the layer's attention module.
        query: `(1, heads, length, head size)`.
        key: `(1, key heads, length, head size)`.
        value: like `key`.
        attention_mask: not used for packed sequences.
        scaling: factor on the scores.
        layout: what stands where in the row. Without one it is an ordinary batch.
        decoding: given in sampling. With a layout it keeps the prompts' keys and values; without one each sequence is
            one new token of a sample, and it knows what that goes on from.
        sliding_window: how many tokens a token sees, itself included.
        **others: what `transformers` passes along.

    Returns:
        `(1, length, heads, head size)`.
    """
    if strange := [name for name in _UNKNOWN if others.get(name) is not None]:
        raise DataError(f"{type(module).__name__} uses {', '.join(strange)}, which packed attention does not know")
    others.pop("dropout", None)
    if decoding is not None:
        number: int = module.layer_idx  # type: ignore[assignment]
        if layout is None:
            return decoding.attend(number, query, key, value, scaling, sliding_window), None
        decoding.read(number, key, value)
    if layout is None:
        ordinary: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, sliding_window=sliding_window, **others
        )
        return ordinary
    if query.device.type == "cuda" and query.dtype in (torch.bfloat16, torch.float16):
        return _on_gpu(query, key, value, layout, scaling, sliding_window), None
    groups = query.shape[1] // key.shape[1]
    states = [query[0], repeat_kv(key, groups)[0], repeat_kv(value, groups)[0]]
    runs = [(shape, sum(1 for _ in run)) for shape, run in groupby(layout.shapes)]
    # One split and no slices: the gradient of each slice would be as large as the whole row.
    borders = [count * (prompt + sum(responses)) for (prompt, responses), count in runs]
    pieces = []
    for ((prompt, responses), count), *parts in zip(
        runs, *(torch.split(one, borders, 1) for one in states), strict=True
    ):
        # (heads, count * tokens, size) -> (count, heads, tokens, size), without a copy.
        alike = [one.unflatten(1, (count, -1)).transpose(0, 1) for one in parts]
        pieces.append(_attend_alike(layout, alike, prompt, responses, scaling, sliding_window))
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).unsqueeze(0), None


def _attend_alike(
    layout: Layout,
    states: Sequence[Tensor],
    prompt: int,
    responses: tuple[int, ...],
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """Attention of prompts and responses of one shape: `(count, heads, tokens, size)` each of query, key and value.

    Returns:
        `(count * tokens, heads, size)`.
    """
    runs = [(length, sum(1 for _ in run)) for length, run in groupby(responses) if length]
    count, heads = states[0].shape[:2]
    borders = [prompt, *(each * length for length, each in runs)]
    (q, *queries), (k, *keys), (v, *values) = (torch.split(one, borders, 2) for one in states)
    mask = None if window is None or prompt <= window else layout.mask(prompt, 0, window, q.device)
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling)
    outs = [out.transpose(1, 2)]
    for (length, each), *own in zip(runs, queries, keys, values, strict=True):
        # (count, heads, each * length, size) -> (count, each, heads, length, size)
        query, key, value = (one.view(count, heads, each, length, -1).transpose(1, 2) for one in own)
        key, value = (
            torch.cat([of_prompt.unsqueeze(1).expand(-1, each, -1, -1, -1), one], 3).flatten(0, 1)
            for of_prompt, one in ((k, key), (v, value))
        )
        out = scaled_dot_product_attention(
            query.flatten(0, 1), key, value, attn_mask=layout.mask(length, prompt, window, q.device), scale=scaling
        )
        # (count * each, heads, length, size) -> (count, each * length, heads, size)
        outs.append(out.transpose(1, 2).reshape(count, each * length, heads, -1))
    return torch.cat(outs, 1).flatten(0, 1)


def _on_gpu(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    queries, keys, longest_query, longest_key, tokens = layout.spans_on(query.device)
    q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
    if len(tokens) > len(q):
        k, v = k[tokens], v[tokens]
    # Where there are more keys than queries, the last query sees all of them: the kernel aligns them at their ends.
    out = varlen_attn(
        q.contiguous(), k.contiguous(), v.contiguous(), queries, keys, longest_query, longest_key,
        scale=scaling, window_size=(-1 if window is None else window - 1, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out.unsqueeze(0)


def _mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    # Packed sequences and samples come without a mask and need none; an ordinary batch may bring one along.
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _mask)
