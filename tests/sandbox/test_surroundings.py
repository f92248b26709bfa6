"""What a program finds around it: state between calls, input, environment, hashes, time."""

from __future__ import annotations

from conftest import ADD, TIGHT, Judge

from stepcoder.problems import CallTest, StdinTest


def test_state_stays_between_calls_of_one_program(judge: Judge) -> None:
    program = "n = 0\ndef f(a, b):\n    global n\n    n += 1\n    return n"
    assert judge(program, (CallTest.of((0, 0), 1), CallTest.of((0, 0), 2))).passed


def test_a_standard_input_test_starts_from_nothing(judge: Judge) -> None:
    program = "n = 0\ndef f():\n    global n\n    n += 1\n    print(n)"
    assert judge(program, (StdinTest(stdin="", stdout="1"), StdinTest(stdin="", stdout="1"))).passed


def test_tuples_booleans_and_text_of_any_script(judge: Judge) -> None:
    program = "def f(a, b):\n    return (True, ('ü', b'x'), {1: (2.0,)})"
    assert judge(program, (CallTest.of((0, 0), [1, ["ü", b"x"], {1: [2]}]),)).passed


def test_a_megabyte_of_input_reaches_the_program(judge: Judge) -> None:
    numbers = list(range(200_000))
    assert judge("def f(a):\n    return sum(a)", (CallTest.of((numbers,), sum(numbers)),)).passed
    text = " ".join(map(str, numbers))
    test = StdinTest(stdin=text, stdout=f"{sum(numbers)}\n")
    assert judge("def f():\n    print(sum(map(int, input().split())))", (test,)).passed


def test_the_program_starts_with_constants_for_an_environment_and_no_place_to_write(judge: Judge) -> None:
    program = """
        import os, sys
        def f(a, b):
            assert {"LC_ALL", "PYTHONHASHSEED", "TZ"} <= os.environ.keys() and len(os.environ) <= 9
            assert sys.argv == ["program.py"]
            for attempt in (lambda: open("left.txt", "w"), lambda: os.mkdir("left"), lambda: os.listdir()):
                try: attempt()
                except PermissionError: continue
                return 0
            return a + b
    """
    for _ in range(2):
        assert judge(program, ADD[:1]).passed


def test_hashes_are_the_same_in_every_run_and_random_numbers_are_not(judge: Judge) -> None:
    first, second = (judge("def f(a, b):\n    return hash('x')").tests[0].detail for _ in range(2))
    assert first == second
    first, second = (judge("import random\ndef f(a, b):\n    return random.random()").tests[0].detail for _ in range(2))
    assert first != second


def test_time_is_not_counted_while_other_processes_have_the_core(judge: Judge) -> None:
    program = "import time\ndef f(a, b):\n    time.sleep(0.5)\n    return a + b"
    verdict = judge(program)
    assert verdict.passed
    assert verdict.tests[1].cpu_seconds < TIGHT.cpu_seconds / 4
