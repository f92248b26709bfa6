"""What a forked process does with one program: run it on the inputs it is sent, send claims back.

Nothing here is trusted once the program runs. A claim is data that the judge checks and compares; a program that
writes its own claims gains nothing, for it does not know the right ones.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import marshal
import mmap
import os
import random
import resource
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any, NoReturn

from stepcoder.problems import values
from stepcoder.sandbox.inside import checker, compiler, faults, frames, probes
from stepcoder.sandbox.inside.graph import Graph
from stepcoder.sandbox.inside.isolation import limit

PROGRAM = "<program>"
PREAMBLE = "<preamble>"
# Frames of this file under the program's own: a program may recurse as deep as it could in a script.
FRAMES_BELOW = 8
WARM_UP_ROUNDS = 40
_WARM_UP = """
import sys, collections, itertools, functools, heapq, math
from collections import Counter, defaultdict, deque
class Solution:
    def solve(self, items):
        return sorted(items, key=lambda item: -item)
def f(numbers, text, number, mapping, pair):
    counts, total = {}, 0
    for index, word in enumerate(text.split()):
        counts[word] = counts.get(word, 0) + 1
        total += index * 2 - 1
    words = [word.strip() + str(len(word)) for word in sorted(counts) if word not in mapping]
    while total < 3 and numbers:
        total = max(total, numbers[0]) + 1
    try:
        numbers.append(int(text))
    except ValueError:
        pass
    return [Solution().solve(numbers), " ".join(words), round(number, 1), mapping, tuple(pair), set(), f"{total:d}"]
"""


def main(link: int, probe_memory: int, address_space: int) -> NoReturn:
    """Serves one job and ends the process, or compiles until the judge hangs up.

    Args:
        link: a stream socket to the judge.
        probe_memory: a memfd with a byte for each probe.
        address_space: bytes of address space that the bare process uses.
    """
    kind, payload = frames.receive(link)
    if kind == frames.SOURCE:
        limit(resource.RLIMIT_AS, address_space + compiler.MEMORY_BYTES)
        compiler.serve(link, payload)
    job = _decode_json(payload.decode())
    try:
        code, module = _made_ready(link, job, probe_memory, address_space)
    except MemoryError:
        frames.send(link, frames.TOO_LARGE, b"")
        os._exit(1)
    frames.send(link, frames.STARTED, repr(time.process_time()).encode())
    match job["mode"]:
        case "stdin":
            _run_script(link, job, code, module.__dict__)
        case "check":
            checker.run_check(link, code, module)
        case _:
            _run_calls(link, job, code, module)
    # The judge ends the process; what it wrote must not be cut short by its end.
    frames.receive(link)
    os._exit(0)


def _made_ready(link: int, job: dict[str, Any], probe_memory: int, address_space: int) -> tuple[CodeType, ModuleType]:
    """Sets the limits, runs the preamble and loads the program, which has not begun yet.

    Raises:
        MemoryError: there is no room for it.
    """
    limit(resource.RLIMIT_AS, address_space + job["memory"])
    limit(resource.RLIMIT_FSIZE, job["output"] + 1)
    limit(resource.RLIMIT_CPU, job["cpu"])
    if job["probes"]:
        memory = mmap.mmap(probe_memory, job["probes"])
        probes.install(memory, job["probes"])
    os.close(probe_memory)
    module = ModuleType(job["name"])
    sys.modules["__main__"] = sys.modules[job["name"]] = module
    if job["seed"] is not None:  # the same job has the same verdict each time, another run of it another seed
        random.seed(job["seed"])
    if job["preamble"]:
        preamble = marshal.loads(frames.receive(link)[1])
        try:
            exec(preamble, module.__dict__)
        except BaseException as error:
            frames.send(link, frames.BROKEN, _dump(faults.describe(error, PREAMBLE)))
            os._exit(1)
    code: CodeType = marshal.loads(frames.receive(link)[1])
    gc.enable()
    return code, module


def warm_up() -> None:
    """Does in the zygote what a child does with a program, so that a child finds it done.

    What the interpreter learns and writes into the code as it runs would be written anew, page by page, in each child.
    """
    ours, theirs = os.pipe()
    encoded = marshal.dumps(compile(_WARM_UP, PROGRAM, "exec"))
    request = {
        "test": 0,
        "args": [values.encode(value) for value in ([1, 2], "a b", 2.5, {"a": 1}, (1,))],
        "kwargs": {},
    }
    for _ in range(WARM_UP_ROUNDS):
        module = ModuleType("solution")
        exec(marshal.loads(encoded), module.__dict__)
        frames.send(theirs, frames.TEST, _dump(request))
        _, payload = frames.receive(ours)
        call = _call(_decode_json(payload.decode()), module, _find(module.__dict__, "f"))
        frames.send(theirs, frames.CLAIM, _dump({"test": 0} | call))
        frames.receive(ours)
    os.close(ours)
    os.close(theirs)


def _run_script(link: int, job: dict[str, Any], code: CodeType, namespace: dict[str, Any]) -> None:
    """One standard-input test: the module level, then the entry point, then what a script does at its end."""
    claim: dict[str, Any] = {"test": 0}
    try:
        exec(code, namespace)
        # A program that calls its entry point itself must not be called again: its input is used up.
        if not job["calls_itself"]:
            _find(namespace, job["entry_point"])()
    except SystemExit as error:
        claim |= faults.describe(error, PROGRAM)
        claim["status"] = _exit_status(error.code)
    except BaseException as error:
        claim |= faults.describe(error, PROGRAM)
    _end_script(namespace)
    frames.send(link, frames.CLAIM, _dump(claim))


def _end_script(namespace: dict[str, Any]) -> None:
    """What the interpreter does when a script ends: wait for threads, run exit handlers, flush files."""
    steps: tuple[Callable[[], object], ...] = (
        threading._shutdown,  # type: ignore[attr-defined]
        atexit._run_exitfuncs,
        lambda: sys.stdout.flush(),
        namespace.clear,  # a file that the program opened on descriptor 1 is flushed when its last name goes
    )
    for step in steps:
        try:
            step()
        except BaseException:  # what a script raises while it ends changes nothing
            continue


def _exit_status(code: object) -> int:
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _run_calls(link: int, job: dict[str, Any], code: CodeType, module: ModuleType) -> None:
    """The module level, then a call for each request until the judge has no more."""
    namespace = module.__dict__
    try:
        exec(code, namespace)
        _find(namespace, job["entry_point"])
    except BaseException as error:
        frames.send(link, frames.LOADED, _dump(faults.describe(error, PROGRAM)))
        return
    frames.send(link, frames.LOADED, b"{}")
    while True:
        kind, payload = frames.receive(link)
        request = _decode_json(payload.decode())
        test = {"test": request["test"]}
        try:
            call = _call_of_check if kind == frames.CALL else _call
            reply = _dump(test | call(request, module, _find(namespace, job["entry_point"])))
            if len(reply) > job["output"] + (len(payload) if kind == frames.CALL else 0):  # what came in may go out
                reply = _dump(test | {"too_long": len(reply)})
        except values.TooDeepError:
            reply = _dump(test | {"too_deep": True})
        except BaseException as error:
            reply = _dump(test | faults.describe(error, PROGRAM))
        with contextlib.suppress(Exception):  # the program may have closed or replaced it
            sys.stdout.flush()
        frames.send(link, frames.CLAIM, reply)


def _call(request: dict[str, Any], module: ModuleType, function: Callable[..., Any]) -> dict[str, Any]:
    args = [values.decode(value) for value in request["args"]]
    kwargs = {name: values.decode(value) for name, value in request["kwargs"].items()}
    return {"value": values.encode(function(*args, **kwargs))}


def _call_of_check(request: dict[str, Any], module: ModuleType, function: Callable[..., Any]) -> dict[str, Any]:
    graph = Graph(module)
    args, kwargs = graph.decode(request["graph"])
    return {"graph": graph.encode(function(*args, **kwargs))}


def _find(namespace: dict[str, Any], entry_point: str) -> Callable[..., Any]:
    """The function `name`, or the method `Class.method` of a new instance.

    Raises:
        NameError: the program does not define it.
    """
    name, _, method = entry_point.partition(".")
    if name not in namespace:
        raise NameError(f"the program does not define the entry point {entry_point!r}")
    found = namespace[name]
    if method:
        if not hasattr(found, method):
            raise NameError(f"the program does not define the entry point {entry_point!r}")
        found = getattr(found(), method)
    if not callable(found):
        raise TypeError(f"the entry point {entry_point!r} is not callable but {type(found).__name__}")
    result: Callable[..., Any] = found
    return result


def _dump(data: Any) -> bytes:
    return _encode_json(data).encode()


# Kept from before the program ran: a program may replace what the module `json` holds.
_encode_json = json.JSONEncoder(separators=(",", ":")).encode
_decode_json = json.JSONDecoder().decode
