"""Seeds and orders that depend on nothing but their arguments, so a resumed run draws what the first one would have."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(*parts: int | str) -> int:
    """A seed of 63 bits from any numbers and words; other parts give an unrelated one."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) >> 1


def permutation(count: int, *parts: int | str) -> list[int]:
    """An order of `count` items, drawn from the seed of the parts."""
    generator = torch.Generator().manual_seed(derived_seed(*parts))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order
