"""The opened prompt, and the bytes behind token ids."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stepcoder.errors import DataError
from stepcoder.model.init import InitModelConfig, init_model
from stepcoder.model.load import load_tokenizer
from stepcoder.model.prompt import Template, program_of, split_at_signature
from stepcoder.model.tokens import bytes_of, text_of, token_bytes
from stepcoder.problems import CallTest, Problem
from stepcoder.problems.code import signature_end


def problem(solution: str, starter: str = "def f(x):\n", entry_point: str = "f", statement: str = "Add.") -> Problem:
    return Problem(
        id="p",
        statement=statement,
        starter=starter,
        solution=solution,
        entry_point=entry_point,
        tests=(CallTest.of((1,), 1),),
    )


def test_the_prompt_opens_the_response_with_a_fence_and_the_starter(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = Template.of(tokenizer).prompt(problem("def f(x):\n    return x\n"), "def f(x):\n", 200)
    assert ids is not None
    assert bytes_of(ids, token_bytes(tokenizer)).decode() == (
        "### Instruction:\nWrite a Python program that solves this problem.\nAdd.\n\n"
        "### Response:\n```python\ndef f(x):\n"
    )


def test_a_chat_template_is_used_with_the_assistants_turn_left_open(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    ids = Template.of(tokenizer).prompt(problem("def f(x):\n    return x\n"), "def f(x):\n", 200)
    assert ids is not None
    assert bytes_of(ids, token_bytes(tokenizer)).decode() == (
        "<user>Write a Python program that solves this problem.\nAdd.</user><assistant>```python\ndef f(x):\n"
    )


@pytest.mark.parametrize("ending", ["```python\n", "```python", "```python\n\n"])
def test_a_fence_that_the_chat_template_opens_is_not_opened_twice(
    tokenizer: PreTrainedTokenizerBase, ending: str
) -> None:
    tokenizer.chat_template = "{{ messages[0].content | trim }}" + ending.replace("\n", "{{ '\n' }}")
    ids = Template.of(tokenizer).prompt(problem("def f(x):\n    return x\n"), "def f(x):\n", 200)
    assert ids is not None
    text = bytes_of(ids, token_bytes(tokenizer)).decode()
    assert text == "Write a Python program that solves this problem.\nAdd.```python\ndef f(x):\n"


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("Hello.", "0 times"),
        ("{{ messages[0].content }}{{ messages[0].content }}", "2 times"),
        ("{{ raise_exception('a system turn comes first') }}", "a system turn comes first"),
    ],
)
def test_a_chat_template_that_cannot_hold_a_statement_is_refused(
    tokenizer: PreTrainedTokenizerBase, template: str, fault: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(DataError, match=fault):
        Template.of(tokenizer)


def sentencepiece() -> PreTrainedTokenizerBase:
    """A tokenizer that works as Llama 2's: a space before every text, `▁` for spaces, bytes for what it lacks."""
    letters = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["<unk>", "</s>", *letters, "▁", "▁▁", *"defrtunabcxyz():.#=+1", "re", "▁re"]
    model = models.BPE(
        {piece: index for index, piece in enumerate(pieces)},
        [("▁", "▁"), ("r", "e"), ("▁", "re")],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    whole = Tokenizer(model)
    whole.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=whole, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("text", ["    return x\n    # é", "return x", "x = 1\n\n  y", "\n\n    return"])
def test_sentencepiece_adds_no_space_to_opened_code_or_target(text: str) -> None:
    tokenizer = sentencepiece()
    table = token_bytes(tokenizer)
    assert bytes_of(tokenizer(text).input_ids, table) == b" " + text.encode()  # What it does by itself.
    template = Template.of(tokenizer)
    assert bytes_of(template.target(text), table).decode() == f"{text}\n```"
    ids = template.prompt(problem("def f(x):\n    return x\n"), f"def f(x):\n{text}\n", 400)
    assert ids is not None
    assert bytes_of(ids, table).decode().endswith(f"problem.\nAdd.\n\n### Response:\n```python\ndef f(x):\n{text}\n")


def test_a_long_statement_is_cut_at_its_left_end_and_the_opened_code_never(tokenizer: PreTrainedTokenizerBase) -> None:
    template = Template.of(tokenizer)
    item = problem("def f(x):\n    return x\n", statement="begin " + "word " * 300 + "end.")
    ids = template.prompt(item, "def f(x):\n", 150)
    assert ids is not None
    assert len(ids) == 150
    text = bytes_of(ids, token_bytes(tokenizer)).decode()
    assert text.startswith("### Instruction:\n")
    assert "begin" not in text
    assert text.endswith("end.\n\n### Response:\n```python\ndef f(x):\n")


def test_opened_code_that_does_not_fit_gives_no_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    assert Template.of(tokenizer).prompt(problem("def f(x): pass"), "x = 1\n" * 500, 200) is None


def test_the_target_ends_with_the_fence_and_the_end_of_text(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = Template.of(tokenizer).target("    return x\n\n")
    assert ids[-1] == tokenizer.eos_token_id
    assert bytes_of(ids, token_bytes(tokenizer)).decode() == "    return x\n```"


@pytest.mark.parametrize(
    ("solution", "entry_point", "line"),
    [
        ("def f(x):\n    return x\n", "f", 1),
        ("import math\n\ndef g():\n    pass\n\ndef f(\n    x,\n):\n    # why\n\n    return x\n", "f", 8),
        ("class Solution:\n    def f(self, x):\n        return x\n", "Solution.f", 2),
        ("def f(x): return x\n", "f", 0),
        ("f = ' '.join\n", "f", 0),
        ("class Solution:\n    f = staticmethod(abs)\n", "Solution.f", 0),
        ("def f(x):\n    @cached\n    def g(): return 1\n    return g()\n", "f", 1),
    ],
)
def test_the_signature_ends_where_a_reader_would_say(solution: str, entry_point: str, line: int) -> None:
    item = problem(solution, entry_point=entry_point)
    assert signature_end(item.solution, item.entry_point) == line
    opened, target = split_at_signature(item)
    assert opened + target == solution


@pytest.mark.parametrize(
    ("written", "program"),
    [
        ("    return 1\n```", "def f():\n    return 1\n"),
        ("    return 1\n```\nThat is it.\n```\n", "def f():\n    return 1\n"),
        ("    return '```'\n", "def f():\n    return '```'\n"),
        ("```", "def f():\n"),
        ("    return 1", "def f():\n    return 1"),
    ],
)
def test_the_program_ends_at_the_closing_fence(written: str, program: str) -> None:
    assert program_of("def f():\n", written) == program


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_the_bytes_of_encoded_text_are_its_utf8(text: str) -> None:
    tokenizer = _TOKENIZER[0]
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert bytes_of(ids, token_bytes(tokenizer)) == text.encode("utf-8", "ignore")


_TOKENIZER: list[PreTrainedTokenizerBase] = []


@pytest.fixture(autouse=True)
def _shared(tokenizer: PreTrainedTokenizerBase) -> None:
    _TOKENIZER[:] = [tokenizer]


@given(st.binary(max_size=40))
def test_decoding_keeps_byte_offsets(data: bytes) -> None:
    text = text_of(data)
    assert len(text.encode()) == len(data)
    if text.count("?") == data.count(b"?"):
        assert text.encode() == data


def test_special_tokens_and_ids_beyond_the_vocabulary_have_no_bytes(tokenizer: PreTrainedTokenizerBase) -> None:
    table = token_bytes(tokenizer)
    assert table[tokenizer.eos_token_id] == b""
    assert bytes_of([len(table) + 5], table) == b""


def test_a_model_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"lacks a tokenizer"):
        load_tokenizer(str(tmp_path))


def test_a_model_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    problems = Path(__file__).resolve().parents[2] / "examples" / "problems.jsonl"
    for name in ("a", "b"):
        init_model(InitModelConfig(problems=str(problems), out=str(tmp_path / name), hidden_size=16, layers=1, heads=2))
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
