"""Check tests: the check holds the answers in its own process, and the program is called by proxy."""

from __future__ import annotations

import secrets

import pytest
from conftest import ADD, TIGHT, Judge

from stepcoder.problems import CheckTest
from stepcoder.sandbox import Outcome, Verdict

NODES = """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next

def listed(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head

def unlisted(node):
    values = []
    while node:
        values.append(node.val)
        node = node.next
    return values
"""


def check(judge: Judge, program: str, *codes: str, entry: str = "f", preamble: str = "") -> Verdict:
    return judge(program, tuple(CheckTest(code=code) for code in codes), entry=entry, preamble=preamble)


def outcome(judge: Judge, program: str, code: str, preamble: str = "") -> Outcome:
    return check(judge, program, code, preamble=preamble).outcome


def test_a_check_that_holds_is_a_pass_and_one_that_fails_says_where(judge: Judge) -> None:
    verdict = check(
        judge,
        "def f(x):\n    return x / 3",
        "assert abs(candidate(1) - 0.333) < 1e-2\n",
        "y = 1\nassert candidate(3) > y\n",
    )
    assert [test.outcome.value for test in verdict.tests] == ["pass", "wrong_answer"]
    assert verdict.tests[1].detail == "the check fails: assert candidate(3) > y"


def test_checks_and_calls_share_the_programs_process(judge: Judge) -> None:
    program = "n = 0\ndef f(a, b=0):\n    global n\n    n += 1\n    return n if b == 0 else a + b"
    verdict = judge(program, (ADD[0], CheckTest(code="assert candidate(0) == 2"), ADD[1]))
    assert verdict.passed, verdict.tests


def test_statements_that_a_check_reaches_are_executed(judge: Judge) -> None:
    verdict = check(judge, "def f(x):\n    if x:\n        return 1\n    return 2", "assert candidate(1) == 1")
    assert [statement.executed for statement in verdict.statements] == [True, True, True, False]


def test_what_the_program_raises_is_a_runtime_error_with_its_line(judge: Judge) -> None:
    verdict = check(judge, "def f(x):\n    return [][x]", "assert candidate(1) == 1")
    assert verdict.outcome is Outcome.RUNTIME_ERROR
    assert (verdict.tests[0].exception, verdict.tests[0].line) == ("IndexError: list index out of range", 2)


def test_an_assertion_of_the_program_is_not_one_of_the_check(judge: Judge) -> None:
    assert outcome(judge, "def f(x):\n    assert not x", "candidate(1)") is Outcome.RUNTIME_ERROR


def test_a_check_may_expect_an_exception(judge: Judge) -> None:
    code = "try:\n    candidate(0)\nexcept ZeroDivisionError:\n    pass\nelse:\n    assert False\n"
    assert outcome(judge, "def f(x):\n    return 1 / x", code) is Outcome.PASS
    assert outcome(judge, "def f(x):\n    return 1", code) is Outcome.WRONG_ANSWER
    assert outcome(judge, "def f(x):\n    return {}[x]", code) is Outcome.RUNTIME_ERROR


def test_a_check_that_fails_by_itself_lets_nothing_pass_and_says_so(judge: Judge) -> None:
    program = "def f(x):\n    return x"
    for code, why in [
        ("assert missing(candidate)", "before it calls the program: NameError"),
        ("assert (", "the check does not compile: SyntaxError"),
        ("while True: pass", "the check fails by itself: more than 0.3 s of CPU time"),
        ("import os\nos._exit(0)", "the check fails by itself: exit status 0"),
    ]:
        verdict = check(judge, program, code)
        assert verdict.outcome is Outcome.WRONG_ANSWER
        assert why in verdict.tests[0].detail


def test_a_value_that_the_check_cannot_use_is_a_wrong_answer(judge: Judge) -> None:
    verdict = check(judge, "def f(x):\n    return None", "assert len(candidate(1)) == 1")
    assert verdict.outcome is Outcome.WRONG_ANSWER
    assert "the check cannot use the value: TypeError" in verdict.tests[0].detail


def test_a_value_on_which_the_check_does_not_end_is_a_wrong_answer(judge: Judge) -> None:
    program = "def f(head):\n    head.next = head\n    return head"
    verdict = check(judge, program, "assert unlisted(candidate(listed([1])))", preamble=NODES)
    assert verdict.outcome in (Outcome.WRONG_ANSWER, Outcome.MEMORY)
    assert "the check" in verdict.tests[0].detail


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("def f(x):\n    while True: pass", Outcome.TIMEOUT),
        ("import os\ndef f(x):\n    os._exit(0)", Outcome.RUNTIME_ERROR),
        ("def f(x):\n    return bytearray(10**10)", Outcome.MEMORY),
        ("def f(x):\n    return 'x' * 70_000", Outcome.OUTPUT_LIMIT),
        ("def f(x):\n    while True: print('x' * 999)", Outcome.OUTPUT_LIMIT),
        ("def f(x):\n    t = ()\n    for _ in range(10**4): t = (t,)\n    return t", Outcome.WRONG_ANSWER),
        ("while True: pass", Outcome.TIMEOUT),
        ("raise ValueError", Outcome.RUNTIME_ERROR),
        ("def g(x): pass", Outcome.RUNTIME_ERROR),
    ],
)
def test_the_programs_end_is_the_tests_outcome_and_the_next_test_runs(
    judge: Judge, program: str, expected: Outcome
) -> None:
    verdict = check(judge, program, "assert candidate(1) == 1", "assert candidate(1) == 1")
    assert [test.outcome for test in verdict.tests] == [expected, expected]


def test_many_calls_of_one_check_share_one_limit(judge: Judge) -> None:
    program = "def f(x):\n    for _ in range(10**6): pass\n    return x"
    assert outcome(judge, program, "for i in range(10**6):\n    assert candidate(i) == i") is Outcome.TIMEOUT


def test_objects_of_known_classes_travel_both_ways(judge: Judge) -> None:
    program = """
        def f(head):
            previous = None
            while head:
                head.next, previous, head = previous, head, head.next
            return previous
    """
    code = "assert unlisted(candidate(listed(list(range(5000))))) == list(range(4999, -1, -1))"
    assert outcome(judge, program, code, NODES) is Outcome.PASS
    assert outcome(judge, "def f(head):\n    return head", code, NODES) is Outcome.WRONG_ANSWER


def test_a_class_that_only_the_check_defines_arrives_as_a_plain_object(judge: Judge) -> None:
    code = NODES + "\nassert candidate(listed([4, 5])) == 9\n"
    assert outcome(judge, "def f(head):\n    return head.val + head.next.val", code) is Outcome.PASS


def test_a_class_that_the_program_defines_again_is_its_own(judge: Judge) -> None:
    program = """
        class ListNode:
            def __init__(self, val, next=None):
                self.val, self.next = val, next
            def doubled(self):
                return ListNode(self.val * 2, self.next and self.next.doubled())
        def f(head):
            return head.doubled()
    """
    assert outcome(judge, program, "assert unlisted(candidate(listed([1, 2]))) == [2, 4]", NODES) is Outcome.PASS


def test_identity_sharing_and_cycles_survive(judge: Judge) -> None:
    code = (
        "x = listed([1, 2])\nx.next.next = x\ny = candidate(x)\nassert y is x.next and y.next is x and y.next.next is y"
    )
    assert outcome(judge, "def f(head):\n    return head.next", code, NODES) is Outcome.PASS
    code = "a = [1]\nb = candidate([a, a])\nassert b[0] is a and b[1] is a and a == [1, 2]"
    assert outcome(judge, "def f(x):\n    x[0].append(2)\n    return x", code) is Outcome.PASS


def test_arguments_that_the_program_changes_in_place_change_in_the_check(judge: Judge) -> None:
    program = "def f(x, d, s, k=None):\n    x.reverse()\n    d[(1,)] = x\n    s.add('new')\n    k.append(None)"
    code = """
x, d, s, k = [1, 2], {}, set(), []
assert candidate(x, d, s, k=k) is None
assert x == [2, 1] and d == {(1,): [2, 1]} and d[(1,)] is x and s == {'new'} and k == [None]
"""
    assert outcome(judge, program, code) is Outcome.PASS


def test_types_and_tuples_and_numbers_travel(judge: Judge) -> None:
    code = "assert candidate((4, 'x', 7.5, 10**40), int) == [4, 10**40]"
    assert outcome(judge, "def f(items, kind):\n    return [i for i in items if type(i) is kind]", code) is Outcome.PASS


HOSTILE = {
    "equals everything": "class A:\n    __eq__ = lambda s, o: True\ndef f(x):\n    return A()",
    "inside a list": "class A:\n    def __eq__(self, o): return True\ndef f(x):\n    return [A()]",
    "behaves like a number": """
        class A(float):
            def __sub__(self, other): return A(0)
            def __abs__(self): return 0
        def f(x):
            return A()
    """,
    "a class of the check with other methods": """
        class ListNode:
            def __eq__(self, other): return True
            __hash__ = object.__hash__
        def f(x):
            return ListNode()
    """,
    "truth of an unknown thing": "def f(x):\n    return lambda: 1",
    "an exception with a name of the judge's": """
        class AssertionError(Exception): pass
        def f(x):
            raise AssertionError
    """,
    "a forged graph": """
        import os, struct
        def f(x):
            for graph in ('{"roots":[{"$ref":99}],"heap":[]}',):
                data = b'R{"test":0,"graph":%s}' % graph.encode()
                for fd in range(3, 64):
                    try: os.write(fd, struct.pack("<I", len(data)) + data)
                    except OSError: pass
            os._exit(0)
    """,
    "a claim without a value": """
        import os, struct
        def f(x):
            data = b'R{"test":0}'
            for fd in range(3, 64):
                try: os.write(fd, struct.pack("<I", len(data)) + data)
                except OSError: pass
            os._exit(0)
    """,
    "no value at all": "import os\ndef f(x):\n    os._exit(0)",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(
    "code", ["assert candidate(1) == 42", "assert abs(candidate(1) - 42) < 1e-6", "assert [42] == candidate(1)"]
)
def test_a_hostile_value_gets_no_pass(judge: Judge, name: str, code: str) -> None:
    assert outcome(judge, HOSTILE[name], code, NODES) is not Outcome.PASS
    assert judge("def f(a, b):\n    return a + b").passed


@pytest.mark.parametrize("value", ["lambda: 1", "type('A', (), {})()", "[type('A', (), {})()]", "{1: iter([])}"])
def test_a_thing_that_the_check_does_not_know_is_not_even_true(judge: Judge, value: str) -> None:
    verdict = check(judge, f"def f(x):\n    return {value}", "assert candidate(1)")
    assert verdict.outcome is Outcome.WRONG_ANSWER
    assert "which the check does not know" in verdict.tests[0].detail


def test_the_checks_answers_are_nowhere_near_the_program(judge: Judge) -> None:
    answer = "answer-" + secrets.token_hex(8)
    # A pipe tells which pages can be read: writing from one that cannot fails. 64 MiB either way hold the whole heap.
    program = """
        import ctypes, os, re
        def f(x):
            write, found = ctypes.CDLL(None).write, []
            out, into = os.pipe()
            here, pages = id(found) >> 12, 0
            for page in range(here - (1 << 14), here + (1 << 14)):
                if write(into, ctypes.c_void_p(page << 12), 4096) == 4096:
                    found += re.findall(rb"answer-[0-9a-f]{16}", os.read(out, 4096))
                    pages += 1
            assert pages > 100, pages
            return [item.decode() for item in found]
    """
    code = f"found = candidate(1)\nassert found == [], found\nassert candidate(2) == {answer!r}"
    verdict = check(judge, program, code)
    assert verdict.tests[0].detail.startswith("the check fails: assert candidate(2)")


def test_limits_of_a_check_are_those_of_the_job(judge: Judge) -> None:
    assert TIGHT.cpu_seconds < 1
    code = "total = sum(i for i in range(10**9))\nassert candidate(1) == total"
    assert "the check fails by itself" in check(judge, "def f(x):\n    return 1", code).tests[0].detail
