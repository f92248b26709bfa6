"""The names a program finds in scope before its first line, and the modules that a zygote has ready.

The usual contest modules, and the public names of some of them; no builtin is hidden (`operator.pow` and `math.pow`
would break `pow(a, b, m)`).
"""

from __future__ import annotations

import builtins
import functools
import importlib
import os
from _sitebuiltins import Quitter
from collections.abc import Sequence
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

MODULES = (
    "sys",
    "itertools",
    "collections",
    "math",
    "heapq",
    "bisect",
    "re",
    "string",
    "functools",
    "operator",
    "random",
    "copy",
    "datetime",
)
"""In scope by name."""

STARS = ("typing", "collections", "itertools", "functools", "heapq", "math", "string", "operator", "bisect")
"""Their public names are in scope."""

READY = (
    *("abc", "array", "calendar", "cmath", "contextlib", "dataclasses", "decimal", "enum", "fractions", "io", "json"),
    *("numbers", "os", "queue", "statistics", "struct", "textwrap", "threading", "time", "traceback", "types"),
    "sortedcontainers",
)
"""Imported before a program comes, because many import them; one that is not installed is left out."""


class Libraries:
    """Finds some packages in folders that hold others too: those are not there for a program, nor can it read them."""

    def __init__(self, names: list[str], folders: list[str]) -> None:
        self._names = frozenset(names)
        self._folders = folders

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """As the import system asks, see `importlib.abc.MetaPathFinder`."""
        return PathFinder.find_spec(name, self._folders, target) if path is None and name in self._names else None


def install(modules: list[str]) -> None:
    """Imports everything that should be ready, `modules` besides, and puts the names in scope.

    They go to `builtins`: a program's own namespace starts empty, and no process has to copy 250 references, each of
    which would copy the page that it points into.
    """
    # The interpreter starts without `site`, which would define these two.
    for name in ("exit", "quit"):
        setattr(builtins, name, Quitter(name, "Ctrl-D"))
    for module in (*READY, *modules):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            continue
    scope: dict[str, Any] = {}
    for module in STARS:
        scope |= _public(importlib.import_module(module))
    scope |= {module: importlib.import_module(module) for module in MODULES}
    scope["bisect"] = _callable_bisect()
    vars(builtins).update(scope)


def open_what_is_open() -> None:
    """Where nothing can be opened, the usual names of what is open already still work."""
    descriptors = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2, os.devnull: 2}
    really_open = builtins.open

    @functools.wraps(really_open)
    def open_(file: Any, *arguments: Any, **more: Any) -> Any:
        known = isinstance(file, str) and file in descriptors
        return really_open(os.dup(descriptors[file]) if known else file, *arguments, **more)

    vars(builtins)["open"] = open_


def _public(module: ModuleType) -> dict[str, Any]:
    exported = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    return {name: getattr(module, name) for name in exported if not hasattr(builtins, name)}


def _callable_bisect() -> ModuleType:
    """The module `bisect`, which can also be called like the function of that name: both are in scope."""
    import bisect

    class Bisect(ModuleType):
        __call__ = staticmethod(bisect.bisect)

    module = Bisect("bisect", bisect.__doc__)
    module.__dict__.update({name: value for name, value in vars(bisect).items() if name != "__name__"})
    return module
