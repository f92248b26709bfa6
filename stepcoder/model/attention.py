"""Causal attention over packed sequences, as an attention implementation of `transformers`.

Sequences stand one behind the other in one row and see only themselves. Nothing is padded and no mask is made: on a
GPU torch's variable-length kernel takes the row as it is, on a CPU neighbours of equal length are one batch.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from stepcoder.errors import DataError

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
    lengths: tuple[int, ...] | None = None,
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
        lengths: tokens of each sequence in the row. None: an ordinary padded batch, as in generation.
        sliding_window: how many tokens a token sees, itself included.
        **others: what `transformers` passes along.

    Returns:
        `(1, length, heads, head size)`.
    """
    if strange := [name for name in _UNKNOWN if others.get(name) is not None]:
        raise DataError(f"{type(module).__name__} uses {', '.join(strange)}, which packed attention does not know")
    others.pop("dropout", None)
    if lengths is None:
        padded: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, sliding_window=sliding_window, **others
        )
        return padded
    if query.device.type == "cuda" and query.dtype in (torch.bfloat16, torch.float16):
        return _on_gpu(query, key, value, lengths, scaling, sliding_window), None
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    pieces, begin = [], 0
    for length, run in groupby(lengths):
        count = sum(1 for _ in run)
        part = slice(begin, begin + count * length)
        # (1, heads, count * length, size) -> (count, heads, length, size), without a copy.
        q, k, v = (
            states[0, :, part].view(states.shape[1], count, length, -1).transpose(0, 1)
            for states in (query, key, value)
        )
        windowed = sliding_window is not None and length > sliding_window
        mask = _window(length, sliding_window, query.device) if windowed and sliding_window else None
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling)
        pieces.append(out.transpose(1, 2).reshape(count * length, *out.shape[1::2]))
        begin += count * length
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).unsqueeze(0), None


def _on_gpu(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scaling: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    begins = torch.tensor([0, *lengths]).cumsum(0).to(query.device, torch.int32, non_blocking=True)
    q, k, v = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    left = -1 if window is None else window - 1
    out = varlen_attn(
        q, k, v, begins, begins, max(lengths), max(lengths),
        scale=scaling, window_size=(left, 0), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out.unsqueeze(0)


def _window(length: int, window: int, device: torch.device) -> Tensor:
    places = torch.arange(length, device=device)
    behind = places.unsqueeze(1) - places
    return (behind >= 0) & (behind < window)


def _mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    # Packed sequences come without a mask and need none; a batch with left padding brings one along.
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _mask)
