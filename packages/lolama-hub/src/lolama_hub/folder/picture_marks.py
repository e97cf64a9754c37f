"""What stands around pictures (Gemma 3) and their tiles (Idefics3, SmolVLM), by the folder's tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from lolama_core.protocols.checks import words_of
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import shown
from lolama_hub.folder.tokenizer_files import TokenizerParts

T = TypeVar("T")

_AROUND, _WHOLE = "<fake_token_around_image>", "<global-img>"
_SPELLED = {
    "boi_token": "<start_of_image>",
    "image_token": "<image_soft_token>",
    "eoi_token": "<end_of_image>",
}
"""Names of the tokens of a picture → their texts where the tokenizer does not say."""


def read_picture_marks(root: Path, tokenizer: TokenizerParts, side: int) -> dict[str, JSON]:
    """The canonical ``marks`` block: ids of the texts that transformers' processor writes around tiles.

    A mark may be a token or a text of several. Control tokens stand on both sides of each, so what is
    around it has no part in its ids.

    Args:
        root: The model's folder, named in errors.
        tokenizer: Its tokenizer.
        side: Rows and columns of tiles at most.

    Raises:
        ModelError: without a tokenizer, or without the token around tiles.
    """
    path = tokenizer.files.tokenizer_json
    if path is None:
        reason = "has no tokenizer, and this model writes texts around the tiles of a picture"
        raise ModelError(str(root), reason, "put its tokenizer.json there")
    names = tokenizer.block.get("special_tokens", {})
    around = names.get("fake_image_token", _AROUND)
    if around not in tokenizer.ids:
        reason = f"has no token {shown(around)}, which stands around the tiles of a picture"
        raise ModelError(str(path), reason, "the tokenizer and config.json must be of one model")
    encoder = _Encoder(path, tokenizer.ids)
    return {
        "around": encoder.ids(around),
        "whole": encoder.ids(names.get("global_image_token", _WHOLE)),
        "tiles": [
            [encoder.ids(f"<row_{row}_col_{column}>") for column in range(1, side + 1)]
            for row in range(1, side + 1)
        ],
        "row_end": encoder.ids("\n"),
        # Where the tokenizer has one token for two line breaks, this is it.
        "rows_end": encoder.ids("\n\n"),
    }


@dataclass(frozen=True)
class SpelledPicture:
    """What stands in a prompt for a picture whose chat template writes one token (Gemma 3).

    Attributes:
        token: That token.
        text: The tokens and line breaks that the model is given in its place. A line break that stands
            beside them may become one token with theirs.
        ids: Their ids, with nothing beside them.
    """

    token: str
    text: str
    ids: Sequence[JSON]

    def in_template(self, tokenizer: TokenizerParts) -> TokenizerParts:
        """The tokenizer with a chat template that writes `text` where it wrote `token`."""
        template = tokenizer.files.chat_template
        if template is None:
            return tokenizer
        arguments = f"{json.dumps(self.token)}, {json.dumps(self.text)}"
        # Jinja drops a line break behind a tag, and at the end of a template.
        begin, end = f"{{% filter replace({arguments}) %}}\n", "{% endfilter %}"
        whole = begin + template.removesuffix("\n") + end
        return replace(tokenizer, files=replace(tokenizer.files, chat_template=whole))


def read_spelled_picture(tokenizer: TokenizerParts, token_id: int) -> SpelledPicture:
    """What transformers' processor of Gemma 3 writes for a picture, with one token for all its positions.

    Args:
        tokenizer: The folder's tokenizer, with a tokenizer.json.
        token_id: config.json's id of a position of a picture.

    Raises:
        ModelError: if the tokenizer has no such tokens.
    """
    path = tokenizer.files.tokenizer_json
    assert path is not None
    names = tokenizer.block.get("special_tokens", {})
    first, token, last = (names.get(name, usual) for name, usual in _SPELLED.items())
    known = tokenizer.ids
    if not {first, token, last} <= known.keys() or known[token] != token_id:
        wanted = f"{shown(first)}, {shown(token)} with the id {token_id}, or {shown(last)}"
        reason = f"lacks a token that stands for a picture: {wanted}"
        raise ModelError(str(path), reason, "the tokenizer and config.json must be of one model")
    breaks = _Encoder(path, known).ids("\n\n")
    ids = (*breaks, known[first], token_id, known[last], *breaks)
    return SpelledPicture(first, f"\n\n{first}{token}{last}\n\n", ids)


class _Encoder:
    """Texts → ids by a tokenizer.json, for those that are no tokens themselves."""

    def __init__(self, path: Path, known: Mapping[str, int]) -> None:
        from tokenizers import Tokenizer

        self._known, self._path = known, path
        self._native = self._called(lambda: Tokenizer.from_file(str(path)))

    def ids(self, text: str) -> list[JSON]:
        if text in self._known:
            return [self._known[text]]
        encoding = self._called(lambda: self._native.encode(text, add_special_tokens=False))
        if not encoding.ids:
            reason = f"makes no ids of {shown(text)}"
            raise ModelError(str(self._path), reason, "get the file again")
        return list(encoding.ids)

    def _called(self, function: Callable[[], T]) -> T:
        try:
            return function()
        except BaseException as error:  # a Rust panic derives from BaseException alone
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            reason = f"cannot be used: {words_of(error)}"
            raise ModelError(str(self._path), reason, "get the file again") from None
