"""Stand-ins for control tokens, by which a chat template's own are told from those that a user typed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lolama_core.protocols.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import AddedToken


class StandIns:
    """Added tokens with secret spellings, one for each control token; no user can type them.

    Encoding with ``encode_special_tokens`` leaves control tokens in a text alone, but still finds other added
    tokens. So a template's own control tokens are swapped for their stand-ins, the whole conversation is
    encoded in one go (which keeps every space and merge as it would be), and the stand-ins' ids are turned
    back.

    A control token with ``normalized`` is looked for in the normalized text. Behind a normalizer that puts a
    ``▁`` in front it is found after a space alone, and lost everywhere else. A conversation without its
    control tokens is none, so each such token has a second stand-in, which is looked for before the text is
    normalized. The second ones serve only where the first ones do not find all.

    Args:
        controls: Id → control token.
    """

    def __init__(self, controls: Mapping[int, AddedToken]) -> None:
        self._controls = controls
        secret = secrets.token_hex(8)
        self._first, self._second = f"<|{secret}:", f"<|{secret}="
        self.spellings = {
            control.content: f"{self._first}{token_id}|>" for token_id, control in controls.items()
        }
        """Text of a control token → what to write for it."""
        self.ids = {control.content: token_id for token_id, control in controls.items()}
        """Text of a control token → its id."""
        self._pattern = re.compile(re.escape(self._first) + r"(\d+)\|>")
        self._ids: dict[int, int] = {}

    def added_tokens(self) -> list[AddedToken]:
        """What a tokenizer has to know."""
        return [token for _, token in self._pairs()]

    def bind(self, token_to_id: Callable[[str], int | None]) -> None:
        """Learn which ids the tokenizer gave."""
        for token_id, token in self._pairs():
            given = token_to_id(token.content)
            assert given is not None
            self._ids[given] = token_id

    def encode(self, text: str, encode: Callable[[str], Sequence[int]], source: str) -> list[int]:
        """The ids of a text in which control tokens are spelled as `spellings` says.

        Args:
            text: A rendered conversation.
            encode: Text → ids, control tokens left alone.
            source: The tokenizer's file, for messages.

        Raises:
            ModelError: if the tokenizer does not keep a control token whole.
        """
        expected = [int(number) for number in self._pattern.findall(text)]
        attempts = [text]
        if any(control.normalized for control in self._controls.values()):
            attempts.append(text.replace(self._first, self._second))
        for attempt in attempts:
            ids = encode(attempt)
            if [self._ids[i] for i in ids if i in self._ids] == expected:
                return [self._ids.get(i, i) for i in ids]
        raise ModelError(
            source,
            "does not keep the control tokens of a conversation whole",
            "use `generate`, or another tokenizer.json",
        )

    def plain(self, text: str) -> str:
        """The text with control tokens spelled as people know them."""
        return self._pattern.sub(lambda found: self._controls[int(found[1])].content, text)

    def _pairs(self) -> list[tuple[int, AddedToken]]:
        """Each control id with its stand-ins."""
        from tokenizers import AddedToken

        pairs = []
        for token_id, control in sorted(self._controls.items()):
            for start in (self._first, self._second):
                if start == self._first or control.normalized:
                    stand_in = AddedToken(
                        f"{start}{token_id}|>",
                        single_word=control.single_word,
                        lstrip=control.lstrip,
                        rstrip=control.rstrip,
                        normalized=control.normalized and start == self._first,
                        special=False,
                    )
                    pairs.append((token_id, stand_in))
        return pairs
