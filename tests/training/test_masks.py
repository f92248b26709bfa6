"""FGO masks: hand-drawn examples, and properties that hold for every split into tokens."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.masks import executed_bytes, policy_loss_mask
from stepcoder.problems import CallTest, Problem
from stepcoder.sandbox import Span, Statement, job_of, open_sandbox


def statements(source: str, executed_lines: set[int]) -> list[Statement]:
    """Spans of simple one-line statements and headers, computed here from the text of each line."""
    found = []
    for number, line in enumerate(source.split("\n"), 1):
        text = line.strip()
        if not text or text.startswith(("#", "@")) or text in ("else:", "try:", "finally:"):
            continue
        code = line.split("  #")[0]
        begin = len(code) - len(code.lstrip())
        found.append(Statement(Span(number, begin, number, len(code.encode())), number in executed_lines))
    return found


def shown(source: str, executed: bytearray) -> list[str]:
    """For each line: `+` all executed, `-` none, `~` mixed; the line's end counts."""
    marks, begin = [], 0
    for line in source.encode().splitlines(keepends=True):
        states = set(executed[begin : begin + len(line)])
        marks.append("+" if states == {1} else "-" if states == {0} else "~")
        begin += len(line)
    return marks


def test_lines_between_statements_take_the_state_of_what_they_introduce() -> None:
    source = (
        "def f(x):\n"  # 1 ran
        "    if x:\n"  # 2 ran
        "        # about the first arm\n"
        "        return 1  # not taken\n"  # 4 did not
        "    else:\n"
        "\n"
        "        y = 2\n"  # 7 ran
        "    return y\n"  # 8 ran
        "# about g\n"
        "@decorated\n"
        "def g():\n"  # 11 did not
        "    pass\n"  # 12 did not
    )
    assert "".join(shown(source, executed_bytes(source.encode(), statements(source, {1, 2, 7, 8})))) == "++--++++----"


def test_several_statements_on_a_line_count_by_themselves() -> None:
    source = b"if a: b; c\nd\n"
    spans = [
        Statement(Span(1, 0, 1, 5), True),
        Statement(Span(1, 6, 1, 7), True),
        Statement(Span(1, 9, 1, 10), False),
        Statement(Span(2, 0, 2, 1), True),
    ]
    assert bytes(executed_bytes(source, spans)) == bytes([1] * 9 + [0] * 2 + [1] * 2)


def test_columns_are_bytes_and_lines_end_as_python_counts_them() -> None:
    source = 'a = "é"; b = 1\r\nc = 2\rd = 3\n'.encode()
    spans = [
        Statement(Span(1, 0, 1, 8), False),
        Statement(Span(1, 10, 1, 15), True),
        Statement(Span(2, 0, 2, 5), False),
        Statement(Span(3, 0, 3, 5), True),
    ]
    assert bytes(executed_bytes(source, spans)) == bytes([0] * 10 + [1] * 7 + [0] * 6 + [1] * 6)


def test_no_statement_means_nothing_executed() -> None:
    assert not any(executed_bytes(b"# only a comment\n", []))


def test_the_mask_by_hand() -> None:
    # Opened "ab", sampled "cd|ef" of which "ef" did not run, then a fence, trailing text and the end of text.
    executed = bytearray([1, 1, 1, 1, 0, 0])
    lengths = [1, 1, 2, 4, 3, 0]
    assert policy_loss_mask(lengths, 2, executed) == [True, True, False, True, True, True]
    assert policy_loss_mask(lengths, 2, executed, keep_tail=False) == [True, True, False, False, False, False]


def test_a_token_over_both_states_counts_as_executed() -> None:
    assert policy_loss_mask([3, 2], 0, bytearray([0, 0, 1, 0, 0])) == [True, False]


def test_a_token_that_reaches_over_the_end_of_the_program_belongs_to_the_tail() -> None:
    assert policy_loss_mask([1, 4, 0], 0, bytearray([1, 0]), keep_tail=False) == [True, False, False]


@pytest.mark.parametrize(("setting", "state"), [("all", True), ("skip", False)])
def test_a_response_of_which_nothing_ran_is_kept_or_skipped_whole(setting: str, state: bool) -> None:
    assert policy_loss_mask([2, 1, 0], 2, bytearray([1, 1, 0, 0, 0]), when_nothing_ran=setting) == [state] * 3
    assert policy_loss_mask([], 0, bytearray(), when_nothing_ran=setting) == []


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.data())
def test_cutting_tokens_finer_never_loses_an_executed_byte(states: list[bool], data: st.DataObject) -> None:
    executed = bytearray(states)
    lengths = []
    while sum(lengths) < len(states):
        lengths.append(data.draw(st.integers(1, min(5, len(states) - sum(lengths)))))
    mask = policy_loss_mask(lengths, 0, executed, when_nothing_ran="skip")
    begin = 0
    for length, kept in zip(lengths, mask, strict=True):
        assert kept == any(states[begin : begin + length])
        begin += length
    bytewise = policy_loss_mask([1] * len(states), 0, executed, when_nothing_ran="skip")
    assert bytewise == states


def test_real_verdicts_give_masks_that_match_a_reading_of_the_program() -> None:
    source = (
        "def f(n):\n"
        '    """Doc."""\n'
        "    total = 0\n"
        "    for i in range(n):\n"
        "        if i > 99:\n"
        "            total = -1\n"
        "            break\n"
        "        total += i\n"
        "    else:\n"
        "        total += 0\n"
        "    try:\n"
        "        total += 1\n"
        "    except ValueError:\n"
        "        total = 7\n"
        "    finally:\n"
        "        pass\n"
        "    return total\n"
    )
    ast.parse(source)
    item = Problem(
        id="p",
        statement="",
        starter="def f(n):\n",
        solution=source,
        entry_point="f",
        tests=(CallTest.of((3,), 4), CallTest.of((0,), 1)),
    )
    with open_sandbox(slots=1) as sandbox:
        (verdict,) = sandbox.judge([job_of(item, source)])
    assert verdict.passed
    marks = "".join(shown(source, executed_bytes(source.encode(), verdict.statements)))
    assert marks == "+++++--+++++--+++"
