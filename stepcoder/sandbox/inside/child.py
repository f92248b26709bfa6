"""What a forked process does with one program: compile it, run it on the inputs it is sent, send claims back.

Nothing here is trusted once the program runs. A claim is data that the judge checks and compares; a program that
writes its own claims gains nothing, for it does not know the right ones.
"""

from __future__ import annotations

import ast
import atexit
import gc
import json
import marshal
import mmap
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any, NoReturn

from stepcoder.problems import values
from stepcoder.sandbox.inside import frames, probes

PROGRAM = "<program>"
PREAMBLE = "<preamble>"
MESSAGE_CHARACTERS = 300
BYTE_ORDER_MARK = "\ufeff"
# Frames of this file under the program's own: a program may recurse as deep as it could in a script.
FRAMES_BELOW = 8


def main(link: int, probe_memory: int, scope: dict[str, Any], address_space: int) -> NoReturn:
    """Serves one job and ends the process.

    Args:
        link: a stream socket to the judge.
        probe_memory: a memfd with a byte for each statement.
        scope: the names in scope before the program.
        address_space: bytes of address space that the bare process uses.
    """
    _, payload = frames.receive(link)
    job = _decode_json(payload.decode())
    _limit(job, address_space)
    code, preamble = _compile(link, job)
    if job["probes"]:
        memory = mmap.mmap(probe_memory, job["probes"])
        probes.install(memory, job["statements"])
    os.close(probe_memory)
    module = ModuleType(job["name"])
    sys.modules["__main__"] = sys.modules[job["name"]] = module
    namespace = module.__dict__
    namespace.update(scope)
    if preamble is not None:
        try:
            exec(preamble, namespace)
        except BaseException as error:
            frames.send(link, frames.BROKEN, _dump(_fault(error, PREAMBLE)))
            os._exit(1)
    # What lives now is shared with the zygote: the collector must not touch, and so copy, it.
    gc.freeze()
    gc.enable()
    if job["mode"] == "stdin":
        _run_script(link, job, code, namespace)
    else:
        _run_calls(link, job, code, namespace)
    os._exit(0)


def _limit(job: dict[str, Any], address_space: int) -> None:
    def cap(which: int, amount: int) -> None:
        _, hard = resource.getrlimit(which)
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(which, (amount, amount))

    cap(resource.RLIMIT_AS, address_space + job["memory"])
    cap(resource.RLIMIT_FSIZE, job["output"] + 1)
    cap(resource.RLIMIT_CPU, job["cpu"])
    # Python ignores it; the default ends an endless printer at once.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def _compile(link: int, job: dict[str, Any]) -> tuple[CodeType, CodeType | None]:
    """Compiles what the judge did not send compiled, and sends it, before anything of the program has run."""
    preamble: CodeType | None = None
    if job["preamble_compiled"]:
        preamble = marshal.loads(frames.receive(link)[1])
    elif job["preamble"]:
        try:
            preamble = compile(job["preamble"], PREAMBLE, "exec", dont_inherit=True)
        except Exception as error:
            frames.send(link, frames.BROKEN, _dump(_fault(error, PREAMBLE)))
            os._exit(1)
        frames.send(link, frames.PREAMBLE, marshal.dumps(preamble))
    if job["compiled"]:
        return marshal.loads(frames.receive(link)[1]), preamble
    try:
        code, report = _translate(job["program"], job["entry_point"], bool(job["probes"]))
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError) as error:
        frames.send(link, frames.REJECTED, _dump(_fault(error, PROGRAM)))
        os._exit(1)
    job["statements"] = len(report["spans"])
    job["calls_itself"] = report["calls_itself"]
    frames.send(link, frames.COMPILED, _dump(report))
    frames.send(link, frames.CODE, marshal.dumps(code))
    return code, preamble


def _translate(program: str, entry_point: str, traced: bool) -> tuple[CodeType, dict[str, Any]]:
    text = program.removeprefix(BYTE_ORDER_MARK)
    source = text.encode()
    tree = ast.parse(text, PROGRAM)
    calls_itself = _calls_itself(tree, entry_point)
    spans = probes.instrument(tree, source) if traced else []
    if text is not program:  # columns count from the mark on
        shift = len(BYTE_ORDER_MARK.encode())
        spans = [(a, b + shift * (a == 1), c, d + shift * (c == 1)) for a, b, c, d in spans]
    code = compile(tree, PROGRAM, "exec", dont_inherit=True)
    return code, {"spans": spans, "calls_itself": calls_itself}


def _calls_itself(tree: ast.Module, entry_point: str) -> bool:
    """Whether the module level calls the entry point: bare, or under `if __name__ == "__main__":`."""
    statements = list(tree.body)
    for statement in tree.body:
        if isinstance(statement, ast.If) and any(
            isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test)
        ):
            statements += statement.body
    return any(
        isinstance(statement, ast.Expr)
        and any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == entry_point
            for node in ast.walk(statement)
        )
        for statement in statements
    )


def _run_script(link: int, job: dict[str, Any], code: CodeType, namespace: dict[str, Any]) -> None:
    """One standard-input test: the module level, then the entry point, then what a script does at its end."""
    claim: dict[str, Any] = {"test": 0}
    try:
        exec(code, namespace)
        # A program that calls its entry point itself must not be called again: its input is used up.
        if not job["calls_itself"]:
            _find(namespace, job["entry_point"])()
    except SystemExit as error:
        claim |= _fault(error, PROGRAM)
        claim["status"] = _exit_status(error.code)
    except BaseException as error:
        claim |= _fault(error, PROGRAM)
    _end_script(namespace)
    frames.send(link, frames.CLAIM, _dump(claim))
    frames.receive(link)


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


def _run_calls(link: int, job: dict[str, Any], code: CodeType, namespace: dict[str, Any]) -> None:
    try:
        exec(code, namespace)
        _find(namespace, job["entry_point"])
    except BaseException as error:
        frames.send(link, frames.LOADED, _dump(_fault(error, PROGRAM)))
        return
    frames.send(link, frames.LOADED, b"{}")
    while True:
        _, payload = frames.receive(link)
        test = _decode_json(payload.decode())
        args = [values.decode(value) for value in test["args"]]
        kwargs = {name: values.decode(value) for name, value in test["kwargs"].items()}
        claim: dict[str, Any] = {"test": test["test"]}
        try:
            value = _find(namespace, job["entry_point"])(*args, **kwargs)
            claim["value"] = values.encode(value)
        except values.TooDeepError:
            claim["too_deep"] = True
        except BaseException as error:
            claim |= _fault(error, PROGRAM)
        try:
            sys.stdout.flush()
        except Exception:  # the program closed or replaced it
            claim["flushed"] = False
        reply = _dump(claim)
        if len(reply) > job["output"]:
            reply = _dump({"test": test["test"], "too_long": len(reply)})
        frames.send(link, frames.CLAIM, reply)


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


def _fault(error: BaseException, filename: str) -> dict[str, Any]:
    """What a person needs to know of an exception, as data."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        message = str(error)
    except BaseException:  # a program's own `__str__`
        message = "<no message>"
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return {"exception": text[:MESSAGE_CHARACTERS], "line": line, "memory": isinstance(error, MemoryError)}


def _dump(data: Any) -> bytes:
    return _encode_json(data).encode()


# Kept from before the program ran: a program may replace what the module `json` holds.
_encode_json = json.JSONEncoder(separators=(",", ":")).encode
_decode_json = json.JSONDecoder().decode
