"""FGO, fine-grained optimization (paper section 3.3): which sampled tokens enter the policy loss.

Works on bytes from end to end: a sampled id is a number of bytes, a statement is a range of bytes. Nothing is encoded
again, because sampled ids are often not the split that the tokenizer itself would choose.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

from stepcoder.sandbox.job import Statement

_LINE_END = re.compile(rb"\r\n|\r|\n")


def executed_bytes(program: bytes, statements: Sequence[Statement]) -> bytearray:
    """Marks each byte of a program that belongs to an executed statement.

    A byte inside a statement's span has that statement's state. Between two statements, what stands on the line
    where the first one ends (a trailing comment, `;`) belongs to it; everything else (blank lines, comments,
    decorators, `else:`, `try:`, `finally:`, indentation) belongs to the statement that follows.

    Args:
        program: the program in UTF-8.
        statements: its statements in source order, as the sandbox reports them.

    Returns:
        One byte for each byte of the program: 1 executed, 0 not executed.
    """
    marks = bytearray(len(program))
    line_starts = [0, *(match.end() for match in _LINE_END.finditer(program))]
    line_ends = [*(match.end() for match in _LINE_END.finditer(program)), len(program)]
    begin = 0
    for index, statement in enumerate(statements):
        span = statement.span
        end = line_starts[span.end_line - 1] + span.end_column
        end_of_line = line_ends[bisect_right(line_starts, end) - 1]
        if index + 1 == len(statements):
            end = len(program)
        else:
            following = statements[index + 1].span
            end = max(end, min(end_of_line, line_starts[following.line - 1] + following.column))
        if statement.executed:
            marks[begin:end] = b"\x01" * (end - begin)
        begin = end
    return marks


def policy_loss_mask(
    lengths: Sequence[int],
    opened: int,
    executed: Sequence[int],
    *,
    when_nothing_ran: Literal["all", "skip"] = "all",
    keep_tail: bool = True,
) -> list[bool]:
    """Which sampled tokens contribute to the policy loss.

    Args:
        lengths: number of bytes of each sampled id, 0 for a special token: `(response_length,)`.
        opened: number of bytes of the program that were in the prompt.
        executed: `executed_bytes` of the whole judged program, opened code included.
        when_nothing_ran: what a response without any executed byte of its own gives (it did not compile, or nothing
            ran): `all` keeps the whole response, `skip` leaves it out.
        keep_tail: whether the closing fence, what follows it and the end of text stay in the loss.

    Returns:
        `(response_length,)`; a token counts as executed when any of its bytes does.
    """
    if not any(executed[opened:]):
        return [when_nothing_ran == "all"] * len(lengths)
    mask = []
    begin = opened
    for length in lengths:
        end = begin + length
        in_tail = max(end, begin + 1) > len(executed)
        mask.append(keep_tail if in_tail else any(executed[begin : max(end, begin + 1)]))
        begin = end
    return mask
