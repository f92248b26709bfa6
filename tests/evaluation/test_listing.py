import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepcoder.evaluation.listing import MAX_COLUMNS, MAX_LINES, clipped, listing, visible
from stepcoder.sandbox.job import Outcome, Span, Statement, Verdict


def looks(shown):
    return [[(piece.css, piece.text) for piece in line.pieces] for line in shown.lines]


def test_code_that_ran_is_told_from_code_that_did_not(make_sample):
    shown = listing(make_sample("a", 0, Outcome.PASS))
    assert looks(shown) == [
        [("given ran", "def double(number):")],
        [("own ran", "    if number < 0:")],
        [("own idle", "        return -1")],
        [("own ran", "    return number * 2")],
    ]
    assert [line.number for line in shown.lines] == [1, 2, 3, 4]
    assert shown.tail == "```"
    assert shown.traced


def test_two_statements_on_one_line_are_told_apart_behind_wide_characters(make_sample):
    program = "def double(number):\n    x = 'é漢😀'; y = 1\n    z = 2\n    return x\n"
    second = len("    x = 'é漢😀'; ".encode())
    statements = (
        Statement(Span(1, 0, 1, 19), True),
        Statement(Span(2, 4, 2, second - 2), True),
        Statement(Span(2, second, 2, second + 5), False),
        Statement(Span(3, 4, 3, 9), True),
        Statement(Span(4, 4, 4, 12), False),
    )
    verdict = Verdict("a", Outcome.RUNTIME_ERROR, (), statements)
    shown = listing(make_sample("a", 0, Outcome.RUNTIME_ERROR, program=program, verdict=verdict))
    assert looks(shown)[1:] == [
        [("own ran", "    x = 'é漢😀'; "), ("own idle", "y = 1")],
        [("own ran", "    z = 2")],
        [("own idle", "    return x")],
    ]


def test_a_program_that_does_not_compile_has_no_states(make_sample):
    shown = listing(make_sample("a", 0, Outcome.COMPILE_ERROR))
    assert {css for line in looks(shown) for css, _ in line} == {"given unknown", "own unknown"}
    assert not shown.traced


def test_the_line_that_raised_is_marked(make_sample):
    shown = listing(make_sample("a", 0, Outcome.RUNTIME_ERROR))
    assert [line.number for line in shown.lines if line.raised] == [2]


def test_a_huge_program_is_cut_in_both_directions_and_says_so(make_sample):
    program = "def double(number):\n" + "x" * 1_000_000 + "\n" + "    y = 1\n" * 10_000
    begin = time.monotonic()
    shown = listing(make_sample("a", 0, Outcome.COMPILE_ERROR, program=program))
    assert time.monotonic() - begin < 2.0
    assert len(shown.lines) == MAX_LINES
    assert shown.left_out == 10_002 - MAX_LINES
    assert shown.lines[1].left_out == 1_000_000 - MAX_COLUMNS


@pytest.mark.parametrize(
    ("char", "name"),
    [("\u202e", "U+202E"), ("\u200b", "U+200B"), ("\x1b", "U+001B"), ("\r", "U+000D"), ("\u2028", "U+2028")],
)
def test_characters_that_hide_or_turn_text_become_visible(char, name):
    assert visible(f"a{char}b\n\t") == f"a⟨{name}⟩b\n\t"


def test_ordinary_text_of_any_script_stays():
    assert visible("naïve Σ 漢字 😀\n\tx") == "naïve Σ 漢字 😀\n\tx"


@given(st.text(max_size=40))
def test_what_is_shown_never_holds_a_control_character(text):
    assert all(char in "\n\t" or char.isprintable() or char.isspace() for char in visible(text))


def test_a_clipped_text_says_how_much_is_missing():
    assert clipped("abc", 3) == "abc"
    assert clipped("abcdef" * 1000, 3) == "abc … (5,997 more characters)"
