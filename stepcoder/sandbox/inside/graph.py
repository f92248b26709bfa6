"""Arguments and return values of a check, between the process of the check and that of the program.

Lists, dictionaries, sets and objects of classes that either side defines travel as a graph, so that cycles, shared
parts and identity survive: `candidate(node) is node` holds, and a list that the program changed in place is changed in
the check. Objects travel as class name and attributes and are rebuilt without running any constructor. Nothing here
recurses through objects: a linked list may be as long as it likes.
"""

from __future__ import annotations

from types import MemberDescriptorType, ModuleType
from typing import Any

from stepcoder.problems import values

HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class made by a `class` statement
PLAIN_TYPES: dict[str, type] = {
    kind.__name__: kind for kind in (bool, bytes, complex, dict, float, frozenset, int, list, set, str, tuple)
}
_PLAIN_NAMES = {kind: name for name, kind in PLAIN_TYPES.items()}
MAX_DEPTH = values.MAX_DEPTH


class Graph:
    """The objects that one call of the candidate shares between the two processes, numbered alike on both sides."""

    def __init__(self, module: ModuleType) -> None:
        """Classes are looked up in `module`, and only objects of its classes travel."""
        self._module = module
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._stand_ins: dict[str, type] = {}
        self.unknown: str | None = None
        """The type of a decoded value that this side has no class for, outside attributes."""

    def encode(self, *roots: Any) -> dict[str, Any]:
        """The values, and the content of every object that is known or reached from them, as JSON data.

        Raises:
            values.TooDeepError: tuples are nested too deep.
        """
        references = [self._inline(root, 0) for root in roots]
        heap: list[Any] = []
        while len(heap) < len(self._objects):  # more objects may turn up on the way
            heap.append(self._content(self._objects[len(heap)]))
        return {"roots": references, "heap": heap}

    def decode(self, data: dict[str, Any]) -> list[Any]:
        """The values back; objects that both sides know already are changed in place.

        Raises:
            ValueError: the data is not what `encode` writes.
        """
        try:
            return self._decode(data)
        except (AttributeError, IndexError, KeyError, RecursionError, TypeError) as error:
            raise ValueError(f"malformed graph: {error}") from error

    def _inline(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is tuple or kind is frozenset:
            if depth > MAX_DEPTH:
                raise values.TooDeepError(f"value nested deeper than {MAX_DEPTH}")
            return {f"${kind.__name__}": [self._inline(item, depth + 1) for item in value]}
        if kind in (list, dict, set) or self._travels(kind):
            return {"$ref": self._number(value)}
        if kind is type and value in _PLAIN_NAMES:
            return {"$type": _PLAIN_NAMES[value]}
        return values.encode(value)

    def _number(self, value: Any) -> int:
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return number

    def _travels(self, kind: type) -> bool:
        return (
            type(kind) is type
            and kind.__module__ == self._module.__name__
            and all(base is object or base.__flags__ & HEAP_TYPE for base in kind.__mro__)
        )

    def _content(self, value: Any) -> list[Any]:
        kind = type(value)
        if kind is list:
            return ["list", value if values.is_plain(value) else [self._inline(item, 0) for item in value]]
        if kind is dict:
            return ["dict", [[self._inline(key, 0), self._inline(item, 0)] for key, item in value.items()]]
        if kind is set:
            return ["set", [self._inline(item, 0) for item in value]]
        attributes = dict(getattr(value, "__dict__", {}))
        for base in kind.__mro__:
            slots = base.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                    attributes[name] = getattr(value, name)
        return ["object", kind.__name__, {name: self._inline(item, 0) for name, item in attributes.items()}]

    def _decode(self, data: dict[str, Any]) -> list[Any]:
        heap = data["heap"]
        for content in heap[len(self._objects) :]:
            self._number(self._shell(content))
        # Objects first, dictionaries and sets last: their keys may hash by attributes.
        for order in ("object", "list", "dict", "set"):
            for value, content in zip(self._objects, heap, strict=True):
                if content[0] == order:
                    self._fill(value, content)
        self.unknown = None
        roots = [self._value(root) for root in data["roots"]]
        for root in roots:
            self._look_for_unknown(root)
        return roots

    def _shell(self, content: list[Any]) -> Any:
        match content[0]:
            case "list":
                return []
            case "dict":
                return {}
            case "set":
                return set()
            case "object":
                return object.__new__(self._class(content[1]))
        raise ValueError(f"unknown kind {content[0]!r}")

    def _class(self, name: str) -> type:
        found = getattr(self._module, name, None)
        if isinstance(found, type) and self._travels(found):
            return found
        if name not in self._stand_ins:
            self._stand_ins[name] = type(str(name), (), {"__module__": self._module.__name__})
        return self._stand_ins[name]

    def _fill(self, value: Any, content: list[Any]) -> None:
        if content[0] == "list":
            value[:] = content[1] if values.is_plain(content[1]) else [self._value(item) for item in content[1]]
        elif content[0] == "object":
            if hasattr(value, "__dict__"):
                value.__dict__.clear()
            for name, item in content[2].items():
                if _is_behaviour(type(value), name):
                    raise ValueError(f"{name!r} is no attribute of an object but of its class")
                object.__setattr__(value, name, self._value(item))
        else:
            value.clear()
            if content[0] == "dict":
                value.update((self._value(key), self._value(item)) for key, item in content[1])
            else:
                value.update(self._value(item) for item in content[1])

    def _value(self, data: Any) -> Any:
        if type(data) is dict:
            if "$ref" in data:
                return self._objects[data["$ref"]]
            if "$tuple" in data:
                return tuple(self._value(item) for item in data["$tuple"])
            if "$frozenset" in data:
                return frozenset(self._value(item) for item in data["$frozenset"])
            if "$type" in data:
                return PLAIN_TYPES[data["$type"]]
        return values.decode(data)

    def _look_for_unknown(self, root: Any) -> None:
        stack, seen = [root], set[int]()
        while stack:
            value = stack.pop()
            kind = type(value)
            if kind is values.Opaque:
                self.unknown = value.type_name
            elif self._stand_ins.get(kind.__name__) is kind:
                self.unknown = kind.__name__
            elif kind in (list, tuple, set, frozenset, dict) and id(value) not in seen:
                seen.add(id(value))
                stack += value
                if kind is dict:
                    stack += value.values()


def _is_behaviour(kind: type, name: str) -> bool:
    """Whether an attribute of an object would stand in front of what its class does: a program sends objects, too."""
    found = next((base.__dict__[name] for base in kind.__mro__ if name in base.__dict__), None)
    is_slot = type(found) is MemberDescriptorType
    return name.startswith("__") or callable(found) or (hasattr(type(found), "__get__") and not is_slot)
