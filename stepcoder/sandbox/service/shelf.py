"""Test lists that clients have sent, by digest: the most recently used, within a number and a size."""

from __future__ import annotations

from collections import OrderedDict

from stepcoder.problems.problem import Test

LISTS_KEPT = 1024
"""As many as the pool keeps in prepared form."""


class Shelf:
    """Test lists by digest. For one thread."""

    def __init__(self, max_bytes: int, max_lists: int = LISTS_KEPT) -> None:
        self._max_bytes = max_bytes
        self._max_lists = max_lists
        self._lists: OrderedDict[str, tuple[tuple[Test, ...], int]] = OrderedDict()
        self.bytes = 0
        """Size of all that is kept, as JSON."""

    def __len__(self) -> int:
        return len(self._lists)

    def get(self, digest: str) -> tuple[Test, ...] | None:
        """The list of this digest, if it is kept: always the same object, which the pool knows again."""
        found = self._lists.get(digest)
        if found is None:
            return None
        self._lists.move_to_end(digest)
        return found[0]

    def put(self, digest: str, tests: tuple[Test, ...], size: int) -> tuple[Test, ...]:
        """Keeps a list, unless it is kept already; what was used longest ago makes room.

        Returns:
            The list that is kept under this digest.
        """
        known = self.get(digest)
        if known is not None:
            return known
        self._lists[digest] = (tests, size)
        self.bytes += size
        while self._lists and (self.bytes > self._max_bytes or len(self._lists) > self._max_lists):
            _, (_, freed) = self._lists.popitem(last=False)
            self.bytes -= freed
        return tests
