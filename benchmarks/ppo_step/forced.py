"""Ragged responses: a logits processor that ends each response where it was decided beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class EndsAt:
    """Forbids end of text and padding, and forces the end of text as the last token of each response.

    `transformers` calls it as a logits processor; one object serves one batch, one call a position.
    """

    def __init__(self, lengths: Sequence[int], end: int, padding: int) -> None:
        self._lengths = torch.tensor(lengths)
        self._end, self._padding, self._position = end, padding, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores of the next token, `(batch, vocabulary)`."""
        self._position += 1
        scores = scores.clone()
        scores[:, [self._end, self._padding]] = -torch.inf
        ending = self._lengths == self._position
        if ending.any():
            scores[ending] = -torch.inf
            scores[ending, self._end] = 0.0
        return scores
