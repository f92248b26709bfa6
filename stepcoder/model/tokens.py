"""Which bytes each token id stands for.

Sampled ids are turned into text through their bytes and never the other way round.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepcoder.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def _byte_of_character() -> dict[str, int]:
    """The alphabet of byte-level BPE: printable bytes stand for themselves, the others for characters from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_of_character()


def _one_byte_each(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "?" * (error.end - error.start), error.end


codecs.register_error("stepcoder-one-byte-each", _one_byte_each)


def text_of(data: bytes) -> str:
    """Decodes UTF-8; each byte that is not part of a character becomes `?`, so byte offsets stay what they were."""
    return data.decode("utf-8", "stepcoder-one-byte-each")


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """The bytes of every id of a tokenizer, by id; a special token has none.

    Handles byte-level BPE (GPT-2, Llama 3, Qwen, DeepSeek) and SentencePiece pieces with byte fallback (Llama 2).

    Raises:
        DataError: the vocabulary is of neither kind.
    """
    special = set(tokenizer.all_special_ids)
    added = {index: token.content for index, token in tokenizer.added_tokens_decoder.items()}
    special |= {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    vocabulary = tokenizer.get_vocab()
    table = [b""] * (max(vocabulary.values()) + 1)
    pieces = {index: piece for piece, index in vocabulary.items() if index not in special and index not in added}
    sentencepiece = any("▁" in piece for piece in pieces.values())
    for index, piece in pieces.items():
        if sentencepiece:
            table[index] = _sentencepiece_bytes(piece)
            continue
        try:
            table[index] = bytes(_BYTE_OF[character] for character in piece)
        except KeyError as error:
            raise DataError(
                f"tokenizer {tokenizer.name_or_path}: token {index} ({piece!r}) is neither byte-level BPE nor "
                "SentencePiece; the execution mask needs the bytes of each token"
            ) from error
    for index, content in added.items():
        if index not in special:
            table[index] = content.encode()
    return table


def _sentencepiece_bytes(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode()


def bytes_of(ids: Sequence[int], table: Sequence[bytes]) -> bytes:
    """The bytes of a sequence of ids. An id beyond the tokenizer's vocabulary (a padded embedding row) has none."""
    return b"".join(table[index] if index < len(table) else b"" for index in ids)
