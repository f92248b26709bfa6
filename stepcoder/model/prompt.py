"""The prompt with the response opened: the model goes on writing inside a code fence that is already there.

The opened code (starter, or a prefix of the reference solution) is tokenized by itself and concatenated as ids.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepcoder.errors import DataError
from stepcoder.problems import Problem
from stepcoder.problems.code import signature_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTRUCTION = "Write a Python program that solves this problem.\n"
FENCE = "```"
OPENING = f"{FENCE}python\n"
PLAIN = f"### Instruction:\n{INSTRUCTION}{{statement}}\n\n### Response:\n{OPENING}"
"""The prompt of a model without a chat template."""
_STATEMENT = "\x02STATEMENT\x03"
_SPACE = "▁"
"""How SentencePiece writes a space."""


@dataclass(frozen=True)
class Template:
    """The ids around a statement, for one tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    before: tuple[int, ...]
    """Ids up to the statement, begin-of-text included where the tokenizer has it."""
    after: tuple[int, ...]
    """Ids from the end of the statement to the line after the opening fence."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Template:
        """The template of a tokenizer: its chat template with the assistant's turn left open, or the plain form.

        Raises:
            DataError: the chat template cannot hold a statement.
        """
        begin: list[int] = []
        if tokenizer.chat_template:
            text = _opened_turn(tokenizer)
        else:
            text = PLAIN.format(statement=_STATEMENT)
            begin = [index for index in tokenizer("").input_ids if index == tokenizer.bos_token_id]
        head, tail = text.split(_STATEMENT)
        before = tokenizer(head, add_special_tokens=False).input_ids
        return cls(tokenizer, (*begin, *before), tuple(_ids(tokenizer, tail)))

    def prompt(self, problem: Problem, opened: str, longest: int) -> list[int] | None:
        """Token ids of the whole prompt, opened code included.

        A statement that is too long is cut at its left end, the opened code never.

        Args:
            problem: gives the statement.
            opened: the code that the prompt already holds; it ends in a newline.
            longest: most ids that the prompt may have.

        Returns:
            The ids, or `None` when they do not fit even without a statement.
        """
        code = _ids(self.tokenizer, opened)
        room = longest - len(self.before) - len(self.after) - len(code)
        if room < 0:
            return None
        statement = _ids(self.tokenizer, problem.statement.strip())
        return [*self.before, *statement[max(0, len(statement) - room) :], *self.after, *code]

    def target(self, text: str) -> list[int]:
        """Token ids that the model is to write after the opened code: the text, the closing fence, end of text."""
        end = self.tokenizer.eos_token_id
        return [*_ids(self.tokenizer, text.rstrip() + f"\n{FENCE}"), end]


def _opened_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    from jinja2 import TemplateError

    turn = [{"role": "user", "content": INSTRUCTION + _STATEMENT}]
    try:
        text: str = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    except TemplateError as error:
        raise DataError(f"{tokenizer.name_or_path}: its chat template takes no single user turn: {error}") from error
    if text.count(_STATEMENT) != 1:
        raise DataError(
            f"{tokenizer.name_or_path}: its chat template shows the user's text {text.count(_STATEMENT)} times and not "
            "once; mend or remove the chat template"
        )
    # Templates made for code may open the fence themselves.
    stripped = text.rstrip()
    opened = stripped.endswith(OPENING.rstrip())
    return stripped + "\n" if opened else text + OPENING


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text that stands behind others.

    SentencePiece puts a space before whatever it encodes, which would indent the first line by one: such a tokenizer
    is given the text behind a line end, whose ids are dropped.
    """

    def encoded(given: str) -> list[int]:
        return list(tokenizer(given, add_special_tokens=False).input_ids)

    if text and tokenizer.convert_ids_to_tokens(encoded("a")[:1])[0].startswith(_SPACE):
        anchor, ids = encoded("\n"), encoded("\n" + text)
        if ids[: len(anchor)] == anchor:
            return ids[len(anchor) :]
    return encoded(text)


def split_at_signature(problem: Problem) -> tuple[str, str]:
    """The reference solution cut at the end of its entry point's signature: what SFT shows, and what it teaches.

    The first part holds imports or helpers that stand before the signature, so a reference whose form differs from
    the starter's is still taught as a program that works.
    """
    line = signature_end(problem.solution, problem.entry_point)
    lines = problem.solution.split("\n")
    return "".join(part + "\n" for part in lines[:line]), "\n".join(lines[line:])


def program_of(opened: str, written: str) -> str:
    """The program that is judged: the opened code and what was written, up to the closing fence or the end."""
    fence = re.search(f"^{FENCE}", written, re.MULTILINE)
    return opened + (written[: fence.start()] if fence else written)
