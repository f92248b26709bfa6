"""The things last used, within a number and a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A cache that forgets what was used longest ago. Two that see the same calls hold the same keys."""

    def __init__(self, most: int, most_bytes: int = 1 << 62) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.bytes = 0
        """Size of all that is kept."""

    def get(self, key: Key) -> Value | None:
        """What is kept under a key; it counts as used now."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, size: int = 0) -> None:
        """Keeps a value of so many bytes, however large it is alone, and forgets others for it."""
        before = self._entries.pop(key, None)
        if before is not None:
            self.bytes -= before[1]
        self._entries[key] = (value, size)
        self.bytes += size
        while len(self._entries) > 1 and (len(self._entries) > self._most or self.bytes > self._most_bytes):
            _, (_, forgotten) = self._entries.popitem(last=False)
            self.bytes -= forgotten
