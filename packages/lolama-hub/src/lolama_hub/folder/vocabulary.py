"""What a tokenizer.json knows: its tokens, their ids, and which of them were added."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, AddedTokenBlock
from lolama_hub.folder.fields import LARGEST_INTEGER, shown

_REMEDY = "get the file again"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer.json.

    Attributes:
        ids: Token → id of all.
        words: How many the model itself has; the others were added.
        added: The added tokens by their text.
        misplaced: The text of an added token whose id is not the one that the ``tokenizers`` library gives
            it, if there is one. The library counts on from the number of words.
    """

    ids: Mapping[str, int]
    words: int
    added: Mapping[str, AddedTokenBlock]
    misplaced: str | None

    @property
    def next_id(self) -> int:
        """The id that the library gives to the next token that is added."""
        return max(self.words, *(self.ids[token] + 1 for token in self.added), 0)


def read_vocabulary(path: Path, io: CheckpointIO) -> Vocabulary:
    """Read a tokenizer.json.

    Raises:
        ModelError: naming what cannot be used.
    """
    # Published files are larger than what `read_json` takes; core parses them again before any use.
    return parse_vocabulary(path, io.read_text(path))


def parse_vocabulary(path: Path, text: str) -> Vocabulary:
    """What the text of a tokenizer.json tells; a vocabulary is a mapping, or a list for Unigram.

    Args:
        path: Where it stands, for messages.
        text: All of it.

    Raises:
        ModelError: naming what cannot be used.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = (
            "is nested too deeply" if isinstance(error, RecursionError) else "is not valid JSON"
        )
        raise ModelError(str(path), reason, _REMEDY) from None
    if not isinstance(values, dict):
        raise ModelError(str(path), "is no JSON object, so it is no tokenizer.json", _REMEDY)
    model = values.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    added = values.get("added_tokens", [])
    token: Any  # text, once its id was checked
    ids: dict[str, int] = {}
    if isinstance(vocab, dict):
        for token, number in vocab.items():
            ids[token] = _checked_id(path, token, number)
    elif isinstance(vocab, list):
        for number, row in enumerate(vocab):
            token = row[0] if isinstance(row, list) and row else None
            ids[token] = _checked_id(path, token, number)
    else:
        raise ModelError(str(path), "has no vocabulary, so it is no tokenizer.json", _REMEDY)
    if not isinstance(added, list):
        raise ModelError(str(path), f"added_tokens is {shown(added)}, expected a list", _REMEDY)
    tokens: dict[str, AddedTokenBlock] = {}
    place, misplaced = len(vocab), None
    for entry in added:
        if not isinstance(entry, dict):
            raise ModelError(str(path), f"the added token {shown(entry)} is not an object", _REMEDY)
        token = entry.get("content")
        number = _checked_id(path, token, entry.get("id"))
        if token and token not in ids:
            place += 1
            misplaced = misplaced or (token if number != place - 1 else None)
        elif token and number != ids[token]:
            misplaced = misplaced or token
        ids[token] = number
        tokens[token] = added_token(path, entry)
    if not ids:
        raise ModelError(str(path), "has an empty vocabulary", _REMEDY)
    return Vocabulary(ids, len(vocab), tokens, misplaced)


def added_token(path: Path, entry: Mapping[str, JSON], *, special: bool = False) -> AddedTokenBlock:
    """An added token as files spell it; flags that are not there are those of the library.

    Args:
        path: The file, for messages.
        entry: Its ``content`` is text.
        special: Whether it is a control token if it does not say.

    Raises:
        ModelError: for a flag that is none.
    """
    flags = {"special": special, "lstrip": False, "rstrip": False, "single_word": False}
    read: dict[str, bool] = {}
    for name in (*flags, "normalized"):
        value = entry.get(name, flags.get(name, not read.get("special")))
        if not isinstance(value, bool):
            reason = f"{name} of the added token {shown(entry['content'])} is {shown(value)}"
            raise ModelError(str(path), f"{reason}, expected true or false", _REMEDY)
        read[name] = value
    content = entry["content"]
    assert isinstance(content, str)
    return AddedTokenBlock(
        content=content,
        special=read["special"],
        normalized=read["normalized"],
        lstrip=read["lstrip"],
        rstrip=read["rstrip"],
        single_word=read["single_word"],
    )


def _checked_id(path: Path, token: object, number: object) -> int:
    if not isinstance(token, str) or not is_integer(number, 0, LARGEST_INTEGER):
        raise ModelError(
            str(path), f"gives the token {shown(token)} the id {shown(number)}", _REMEDY
        )
    return number
