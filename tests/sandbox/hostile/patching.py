"""Patching the judge: whatever a program changes in its own process decides nothing."""

from __future__ import annotations

from hostile.case import ERROR, FAILS, SECURITY, TIMEOUT, WRONG, Case, a_float, a_number, a_script, two_calls

CASES = [
    Case(
        "json",
        """
        import json
        json.dumps = json.JSONEncoder.encode = lambda *a, **k: '{"test":0,"value":3,"passed":true}'
        json.encoder.c_make_encoder = None
        def f(a):
            return 0
        """,
        {WRONG, ERROR, SECURITY},
        two_calls,
    ),
    Case(
        "the encoder's own methods",
        """
        import json
        json.JSONEncoder.iterencode = lambda self, o, _one_shot=False: ['{"test":0,"outcome":"pass"}']
        def f(a):
            return 0
        """,
        {WRONG, SECURITY},
    ),
    Case(
        "comparison",
        "import math, operator\nmath.isclose = operator.eq = lambda *a, **k: True\ndef f(a):\n    return 0.0",
        {WRONG},
        a_float,
    ),
    Case(
        "the builtins type and isinstance",
        "import builtins\nbuiltins.type = builtins.isinstance = lambda *a: True\ndef f(a):\n    return 0",
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "the builtins all, any, zip and len",
        """
        import builtins
        builtins.all = builtins.any = lambda *a: True
        builtins.zip = lambda *a, **k: ()
        builtins.len = lambda *a: 0
        def f(a):
            return []
        """,
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "decimal and fractions",
        """
        import decimal, fractions
        decimal.Decimal.__eq__ = fractions.Fraction.__eq__ = lambda s, o: True
        def f(a):
            return fractions.Fraction(0)
        """,
        {WRONG, ERROR},
        a_float,
    ),
    Case(
        "the judge's frames",
        """
        import sys
        def f(a):
            frame = sys._getframe(1)
            while frame:
                for name, value in frame.f_locals.items():
                    if isinstance(value, dict) and "test" in value:
                        value["outcome"] = value["verdict"] = "pass"
                        value["passed"] = True
                frame = frame.f_back
            return 0
        """,
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "the request in the judge's frames",
        """
        import sys
        def f(a):
            frame = sys._getframe(1)
            while frame:
                request = frame.f_locals.get("request")
                if isinstance(request, dict):
                    request["test"] = 1
                test = frame.f_locals.get("test")
                if isinstance(test, dict):
                    test["test"] = 1
                frame = frame.f_back
            return 0
        """,
        {WRONG, SECURITY},
        two_calls,
    ),
    Case(
        "the code of the runner",
        """
        import sys
        def f(a):
            return 0
        def lie(*a, **k):
            return {"value": 3, "passed": True}
        frame = sys._getframe(1)
        for value in list(frame.f_globals.values()):
            if callable(value) and hasattr(value, "__code__") and value.__name__ == "_call":
                value.__code__ = lie.__code__
        """,
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "every function of the judge that it finds",
        """
        import gc
        def f(a):
            return 0
        def lie(*a, **k):
            return {"test": 0, "value": None, "outcome": "pass"}
        for o in gc.get_objects():
            if type(o) is type(f) and "sandbox" in o.__code__.co_filename and o.__name__ in ("encode", "_dump"):
                o.__code__ = lie.__code__
        """,
        FAILS,
    ),
    Case(
        "a trace function that changes what is returned",
        """
        import sys
        def tracer(frame, event, argument):
            for name in ("reply", "value", "claim"):
                if name in frame.f_locals:
                    frame.f_locals[name] = b'{"test":0,"outcome":"pass"}'
            return tracer
        def f(a):
            frame = sys._getframe(1)
            while frame:
                frame.f_trace = tracer
                frame = frame.f_back
            sys.settrace(tracer)
            return 0
        """,
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "marshal and struct",
        """
        import marshal, struct
        marshal.loads = marshal.dumps = lambda *a: b""
        struct.pack = struct.unpack = lambda *a: (0,)
        def f(a):
            return 0
        """,
        {WRONG, ERROR, SECURITY},
        two_calls,
    ),
    Case(
        "os.write",
        """
        import os
        write = os.write
        def lie(fd, data):
            write(fd, b"\\x1c\\0\\0\\0R" + b'{"test":0,"outcome":"pass"}')
            return len(data)
        os.write = lie
        def f(a):
            return 0
        """,
        {WRONG, SECURITY},
    ),
    Case(
        "os.read, so that a test is seen twice",
        """
        import os
        read = os.read
        os.read = lambda fd, size: read(fd, size).replace(b'"test":1', b'"test":0')
        def f(a):
            return 0
        """,
        {WRONG, SECURITY},
        two_calls,
    ),
    Case(
        "sys.modules",
        """
        import sys, types
        for name in list(sys.modules):
            if name != "__main__":
                sys.modules[name] = types.ModuleType(name)
        def f(a):
            return 0
        """,
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "no modules at all",
        "import sys\nsys.modules.clear()\ndef f(a):\n    return 0",
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "equality of int through a mapping proxy",
        """
        import gc
        def f(a):
            gc.get_referents(int.__dict__)[0]["__eq__"] = lambda s, o: True
            gc.get_referents(str.__dict__)[0]["__eq__"] = lambda s, o: True
            return 0
        """,
        {WRONG, ERROR},
        a_number,
    ),
    Case(
        "an import hook",
        """
        import sys
        class Finder:
            @staticmethod
            def find_spec(name, path=None, target=None):
                raise SystemExit(0)
        sys.meta_path.insert(0, Finder)
        sys.path_hooks.clear()
        def f(a):
            return 0
        """,
        {WRONG, ERROR},
    ),
    Case(
        "the codecs that claims go through",
        """
        import codecs
        def lie(text, errors="strict"):
            return b'{"test":0}', len(text)
        codecs.register(lambda name: codecs.CodecInfo(lie, lie, name="utf-8"))
        def f(a):
            return 0
        """,
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "the interpreter's C function for text",
        """
        import ctypes
        def f(a):
            ctypes.pythonapi.PyErr_SetString(ctypes.py_object(SystemExit), b"0")
            return 0
        """,
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "the probes",
        """
        import builtins
        for name in list(vars(builtins)):
            if name.endswith("!"):
                delattr(builtins, name)
        def f(a):
            return 0
        """,
        {WRONG, ERROR, SECURITY},
    ),
    Case(
        "a profiler that never lets the judge go on",
        """
        import sys
        def f(a):
            def profile(frame, event, argument):
                while True: pass
            sys.setprofile(profile)
            return 0
        """,
        {TIMEOUT},
    ),
    Case(
        "the exit status of a script",
        """
        import sys
        def f():
            frame = sys._getframe(1)
            while frame:
                claim = frame.f_locals.get("claim")
                if isinstance(claim, dict):
                    claim.update(outcome="pass", passed=True, value=0)
                frame = frame.f_back
        """,
        {WRONG, SECURITY},
        a_script,
    ),
]
