"""The stock of parts that short problems are composed of: what is read, done with each item, and returned.

A part has one phrase for the statement and one piece of code for the solution. Phrases and code come in the same
order, and a part reads the same wherever it is used, so a reader (or a model) who knows the parts can solve a
composition that they have not met.

Placeholders: `{v}` the variable that holds the item, `{k}` the part's own constant (a small integer, or a letter).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["int", "word", "char"]
"""What one item is: an integer, a word, or a character of a text."""

VARIABLES: dict[Kind, str] = {"int": "value", "word": "word", "char": "char"}

NUMBERS = tuple("23456789")
LETTERS = tuple("aeost")


@dataclass(frozen=True)
class Source:
    """Where the items come from."""

    name: str
    kind: Kind
    parameters: str
    """The parameters of the function to write, as in its signature."""
    given: str
    """Opening of the statement of a call-based problem."""
    read: str
    """Opening of the statement of a standard-input problem."""
    reader: str
    """Code that reads the parameters from standard input."""
    head: tuple[str, ...]
    """Code that walks over the items; its last line decides where the steps go."""
    take: str = ""
    """Phrase after the opening, where the items are not the input itself."""
    single: bool = False
    """One value and no loop."""


@dataclass(frozen=True)
class Step:
    """What is done with each item: a filter (which opens a block, skips or stops) or a change."""

    name: str
    kinds: tuple[Kind, ...]
    phrase: str
    lines: tuple[str, ...]
    nests: bool = False
    """The code that follows goes into the block that the last line opens."""
    constants: tuple[str, ...] = ()
    gives: Kind | None = None
    """The kind of the item afterwards, where it changes."""
    single: str = ""
    """Phrase for one value instead of several; empty where the part makes no sense for one."""


@dataclass(frozen=True)
class Reduction:
    """What becomes of the items: one result."""

    name: str
    kinds: tuple[Kind, ...]
    phrase: str
    start: str
    """Right side of `result = …` before the loop."""
    lines: tuple[str, ...]
    gives: Literal["number", "value", "list"] = "value"
    returns: str = "result"
    prints: str = ""
    """Phrase of what is printed, where it differs from what is returned."""


@dataclass(frozen=True)
class Finish:
    """What is done with a result that is a number."""

    name: str
    phrase: str
    """`{r}` is the phrase of the reduction."""
    lines: tuple[str, ...] = ()
    returns: str = "{r}"
    verdict: bool = False
    """The answer is yes or no by the comparison in `lines`."""
    constants: tuple[str, ...] = ()


SOURCES = (
    Source(
        "numbers",
        "int",
        "numbers",
        "Given a list of integers",
        "Read a line of integers",
        "numbers = list(map(int, input().split()))",
        ("for value in numbers:",),
    ),
    Source(
        "alternate",
        "int",
        "numbers",
        "Given a list of integers",
        "Read a line of integers",
        "numbers = list(map(int, input().split()))",
        ("for value in numbers[::2]:",),
        take="take every other one from the first",
    ),
    Source(
        "gaps",
        "int",
        "numbers",
        "Given a list of integers",
        "Read a line of integers",
        "numbers = list(map(int, input().split()))",
        ("for i in range(1, len(numbers)):", "    value = numbers[i] - numbers[i - 1]"),
        take="subtract from each the one before it",
    ),
    Source(
        "range",
        "int",
        "a, b",
        "Given integers a and b",
        "Read integers a and b",
        "a, b = map(int, input().split())",
        ("for value in range(a, b + 1):",),
        take="take the integers from a to b",
    ),
    Source(
        "divisors",
        "int",
        "n",
        "Given a positive integer n",
        "Read a positive integer n",
        "n = int(input())",
        ("for value in range(1, n + 1):", "    if n % value == 0:"),
        take="take its divisors in rising order",
    ),
    Source(
        "digits",
        "int",
        "n",
        "Given an integer n of at least 0",
        "Read an integer n of at least 0",
        "n = int(input())",
        ("while n > 0:", "    value = n % 10", "    n = n // 10"),
        take="take its digits from the right",
    ),
    Source(
        "text-digits",
        "int",
        "text",
        "Given a text",
        "Read a line of text",
        "text = input()",
        ("for char in text:", "    if char.isdigit():", "        value = int(char)"),
        take="take its digits as numbers",
    ),
    Source(
        "pair-sum",
        "int",
        "a, b",
        "Given integers a and b",
        "Read integers a and b",
        "a, b = map(int, input().split())",
        ("value = a + b",),
        take="add them",
        single=True,
    ),
    Source(
        "pair-difference",
        "int",
        "a, b",
        "Given integers a and b",
        "Read integers a and b",
        "a, b = map(int, input().split())",
        ("value = a - b",),
        take="subtract b from a",
        single=True,
    ),
    Source(
        "pair-product",
        "int",
        "a, b",
        "Given integers a and b",
        "Read integers a and b",
        "a, b = map(int, input().split())",
        ("value = a * b",),
        take="multiply them",
        single=True,
    ),
    Source(
        "words",
        "word",
        "words",
        "Given a list of words",
        "Read a line of words",
        "words = input().split()",
        ("for word in words:",),
    ),
    Source(
        "text",
        "char",
        "text",
        "Given a text",
        "Read a line of text",
        "text = input()",
        ("for char in text:",),
        take="take its characters",
    ),
)

STEPS = (
    # Filters on integers: keep opens a block, skip goes on to the next item, stop ends the loop.
    Step("keep-even", ("int",), "keep the even ones", ("if {v} % 2 == 0:",), nests=True),
    Step("keep-odd", ("int",), "keep the odd ones", ("if {v} % 2 == 1:",), nests=True),
    Step("keep-positive", ("int",), "keep the positive ones", ("if {v} > 0:",), nests=True),
    Step("keep-above", ("int",), "keep the ones above {k}", ("if {v} > {k}:",), nests=True, constants=NUMBERS),
    Step("keep-below", ("int",), "keep the ones below {k}", ("if {v} < {k}:",), nests=True, constants=NUMBERS),
    Step(
        "keep-multiple",
        ("int",),
        "keep the multiples of {k}",
        ("if {v} % {k} == 0:",),
        nests=True,
        constants=NUMBERS[1:],
    ),
    Step("skip-odd", ("int",), "skip the odd ones", ("if {v} % 2 == 1:", "    continue")),
    Step("skip-above", ("int",), "skip the ones above {k}", ("if {v} > {k}:", "    continue"), constants=NUMBERS),
    Step(
        "skip-multiple",
        ("int",),
        "skip the multiples of {k}",
        ("if {v} % {k} == 0:", "    continue"),
        constants=NUMBERS[1:],
    ),
    Step("skip-equal", ("int",), "skip the ones equal to {k}", ("if {v} == {k}:", "    continue"), constants=NUMBERS),
    Step("stop-negative", ("int",), "stop at the first negative one", ("if {v} < 0:", "    break")),
    Step("stop-above", ("int",), "stop at the first one above {k}", ("if {v} > {k}:", "    break"), constants=NUMBERS),
    # Changes of every integer.
    Step("square", ("int",), "square each", ("{v} = {v} * {v}",), single="square it"),
    Step("negate", ("int",), "negate each", ("{v} = -{v}",), single="negate it"),
    Step("add", ("int",), "add {k} to each", ("{v} = {v} + {k}",), constants=NUMBERS, single="add {k} to it"),
    Step(
        "times", ("int",), "multiply each by {k}", ("{v} = {v} * {k}",), constants=NUMBERS, single="multiply it by {k}"
    ),
    Step(
        "modulo",
        ("int",),
        "take each modulo {k}",
        ("{v} = {v} % {k}",),
        constants=NUMBERS[1:],
        single="take it modulo {k}",
    ),
    Step("halve", ("int",), "halve each rounding down", ("{v} = {v} // 2",), single="halve it rounding down"),
    # Changes of some integers.
    Step(
        "halve-even",
        ("int",),
        "halve the even ones",
        ("if {v} % 2 == 0:", "    {v} = {v} // 2"),
        single="halve it if it is even",
    ),
    Step(
        "negate-odd",
        ("int",),
        "negate the odd ones",
        ("if {v} % 2 == 1:", "    {v} = -{v}"),
        single="negate it if it is odd",
    ),
    Step(
        "cap",
        ("int",),
        "lower those above {k} to {k}",
        ("if {v} > {k}:", "    {v} = {k}"),
        constants=NUMBERS,
        single="lower it to {k} if it is above",
    ),
    Step(
        "raise",
        ("int",),
        "raise those below {k} to {k}",
        ("if {v} < {k}:", "    {v} = {k}"),
        constants=NUMBERS,
        single="raise it to {k} if it is below",
    ),
    # Words.
    Step(
        "keep-longer",
        ("word",),
        "keep the ones longer than {k}",
        ("if len({v}) > {k}:",),
        nests=True,
        constants=NUMBERS[:5],
    ),
    Step(
        "keep-shorter",
        ("word",),
        "keep the ones shorter than {k}",
        ("if len({v}) < {k}:",),
        nests=True,
        constants=NUMBERS[1:6],
    ),
    Step(
        "keep-start",
        ("word",),
        "keep the ones that start with {k}",
        ('if {v}[0] == "{k}":',),
        nests=True,
        constants=LETTERS,
    ),
    Step(
        "keep-with",
        ("word",),
        "keep the ones with the letter {k}",
        ('if "{k}" in {v}:',),
        nests=True,
        constants=LETTERS,
    ),
    Step(
        "skip-end",
        ("word",),
        "skip the ones that end with {k}",
        ('if {v}[-1] == "{k}":', "    continue"),
        constants=LETTERS,
    ),
    Step(
        "skip-longer",
        ("word",),
        "skip the ones longer than {k}",
        ("if len({v}) > {k}:", "    continue"),
        constants=NUMBERS[:5],
    ),
    Step("reverse", ("word",), "reverse each", ("{v} = {v}[::-1]",)),
    Step("first-letter", ("word",), "take the first letter of each", ("{v} = {v}[0]",)),
    Step("length", ("word",), "take the length of each", ("value = len({v})",), gives="int"),
    # Characters, and what serves words and characters alike.
    Step("keep-vowel", ("char",), "keep the vowels aeiou", ('if {v} in "aeiou":',), nests=True),
    Step("skip-vowel", ("char",), "skip the vowels aeiou", ('if {v} in "aeiou":', "    continue")),
    Step("keep-letter", ("char",), "keep the letters", ("if {v}.isalpha():",), nests=True),
    Step("stop-blank", ("char",), "stop at the first blank", ('if {v} == " ":', "    break")),
    Step("skip-digit", ("char",), "skip the digits", ("if {v}.isdigit():", "    continue")),
    Step("skip-char", ("char",), "skip the letter {k}", ('if {v} == "{k}":', "    continue"), constants=LETTERS),
    Step("upper", ("word", "char"), "put each in upper case", ("{v} = {v}.upper()",)),
    Step("twice", ("word", "char"), "write each twice", ("{v} = {v} + {v}",)),
)

REDUCTIONS = (
    Reduction("sum", ("int",), "the sum", "0", ("result += {v}",), gives="number"),
    Reduction("product", ("int",), "the product", "1", ("result *= {v}",), gives="number"),
    Reduction("count", ("int", "word", "char"), "the count", "0", ("result += 1",), gives="number"),
    Reduction(
        "largest",
        ("int",),
        "the largest or None if empty",
        "None",
        ("if result is None or {v} > result:", "    result = {v}"),
    ),
    Reduction(
        "smallest",
        ("int",),
        "the smallest or None if empty",
        "None",
        ("if result is None or {v} < result:", "    result = {v}"),
    ),
    Reduction("last", ("int", "word", "char"), "the last one or None if empty", "None", ("result = {v}",)),
    Reduction(
        "list",
        ("int", "word", "char"),
        "the list",
        "[]",
        ("result.append({v})",),
        gives="list",
        prints="them on one line",
    ),
    Reduction(
        "distinct",
        ("int", "word", "char"),
        "the count of different ones",
        "set()",
        ("result.add({v})",),
        gives="number",
        returns="len(result)",
    ),
    Reduction("glue", ("word", "char"), "them glued together", '""', ("result = result + {v}",)),
    Reduction("glue-back", ("word", "char"), "them glued in reverse order", '""', ("result = {v} + result",)),
    Reduction(
        "longest",
        ("word",),
        "the first longest one or an empty word",
        '""',
        ("if len({v}) > len(result):", "    result = {v}"),
    ),
)

FINISHES = (
    Finish("is-even", "whether {r} is even", returns="{r} % 2 == 0"),
    Finish("at-most", "{r} but at most {k}", ("if result > {k}:", "    result = {k}"), constants=NUMBERS),
    Finish("verdict", "yes if {r} is above {k} else no", ("if {r} > {k}:",), verdict=True, constants=NUMBERS),
)
