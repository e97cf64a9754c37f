"""Ids in, safe text out, one id at a time, up to a stop text; there `Request.step` ends the request."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import SupportsIndex

from lolama_core.protocols import Tokenizer
from lolama_core.text.streamed_id import StreamedId
from lolama_core.text.token_ids import TokenIds, token_ids

_BROKEN = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Decodes a growing sequence; the pieces add up to the decode of the whole, and none cuts a character.

    Decoding each id by itself loses the spaces of SentencePiece and breaks characters made of several
    byte tokens. Here ids are decoded together with an *anchor*: the last id after which the text was known
    to be complete. What the anchor alone decodes to is subtracted, so a decoder that strips a leading
    space strips it from both. An id is complete when

    * it is not a byte token: a run of those is valid or broken as a whole, down to its last byte, and
    * the text does not end in U+FFFD, the mark of a character that more bytes may still complete.

    Args:
        tokenizer: What decodes.
        prompt_ids: What comes before, already shown: decides the leading space, and is never given out.
        stop: Texts that end the stream. Neither they nor any part of them is ever given out.
        visible_ids: Control tokens whose text is given out all the same, such as those that begin a call of a
            tool. Others have no text.

    Example:
        >>> stream = TextStream(tokenizer, prompt_ids)
        >>> text = "".join(stream.push(i) for i in new_ids) + stream.finish()
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: TokenIds = (),
        stop: Sequence[str] = (),
        visible_ids: Collection[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._visible = frozenset(visible_ids)
        self._window = self._anchored_tail(token_ids(prompt_ids))
        self._shown = self._decode(self._window)
        self._incomplete: list[int] = []
        # Complete ids, each with the length of the text up to its end.
        self._complete: deque[tuple[StreamedId, int]] = deque()
        self._held = ""
        self.decoded = 0
        """Characters decoded for good so far, whether given out or held back."""
        self.emitted = 0
        """Characters given out so far."""
        self.stop_text: str | None = None
        """The stop text that was met; None so far. Of two that begin at one place it is the shorter one."""

    @property
    def stopped(self) -> bool:
        """Whether a stop text was met; nothing is given out after that."""
        return self.stop_text is not None

    @property
    def pending(self) -> bool:
        """Whether some ids still wait for others before their text is known."""
        return bool(self._incomplete)

    def push(self, token_id: SupportsIndex) -> str:
        """Take the next id; return the text that is now certain, often empty."""
        return self.take(token_id)[1]

    def finish(self) -> str:
        """End the stream; return all text still held back."""
        return self.end()[1]

    def take(self, token_id: SupportsIndex) -> tuple[list[StreamedId], str]:
        """Take the next id; return the ids and the text that are now certain.

        An id is certain when all of its text is. An incomplete one waits for the id that completes it, which
        has the text of both, or for the end.
        """
        [token_id] = token_ids([token_id])
        self._window.append(token_id)
        self._incomplete.append(token_id)
        waits = self._tokenizer.is_byte(token_id) or self._is_hidden(token_id)
        if self.stopped or waits:
            return [], ""
        text = self._decode(self._window)
        if text.endswith(_BROKEN):
            return [], ""
        new = self._unseen(text)
        self._window = [token_id]
        self._shown = self._decode(self._window)
        return self._give_out(new, last=False)

    def end(self) -> tuple[list[StreamedId], str]:
        """End the stream; return all ids and text still held back, apart from those of a stop text."""
        if self.stopped:
            return [], ""
        text = self._decode(self._window)
        new = self._unseen(text)
        self._shown = text
        return self._give_out(new, last=True)

    def _unseen(self, text: str) -> str:
        """What ``text`` adds to the text shown.

        A prompt may end within a character. It was shown as U+FFFD; what follows may complete it, and then
        the whole character is given out, or show that it was broken.
        """
        seen = len(self._shown.rstrip(_BROKEN))
        while seen < len(self._shown) and text[seen : seen + 1] == _BROKEN:
            seen += 1
        return text[seen:]

    def _is_hidden(self, token_id: int) -> bool:
        """Whether an id is a control token without a text."""
        return token_id not in self._visible and self._tokenizer.is_special(token_id)

    def _decode(self, ids: Sequence[int]) -> str:
        if self._visible.isdisjoint(ids):
            return self._tokenizer.decode(ids)
        shown = [token_id for token_id in ids if not self._is_hidden(token_id)]
        return self._tokenizer.decode(shown, skip_special_tokens=False)

    def _anchored_tail(self, ids: list[int]) -> list[int]:
        """The end of ``ids`` from the last anchor on; all of them if there is none."""
        for index in range(len(ids) - 1, -1, -1):
            if self._is_hidden(ids[index]) or self._tokenizer.is_byte(ids[index]):
                continue
            if not self._decode([ids[index]]).endswith(_BROKEN):
                return ids[index:]
        return ids

    def _give_out(self, new: str, *, last: bool) -> tuple[list[StreamedId], str]:
        """The ids and the text that are certain once the incomplete ids have the text ``new``."""
        self.decoded += len(new)
        texts = ["" for _ in self._incomplete[1:]] + [new]
        for token_id, text in zip(self._incomplete, texts, strict=False):
            known = StreamedId.known(token_id, text, self._tokenizer)
            self._complete.append((known, self.decoded))
        self._incomplete = []
        pending = self._held + new
        found = [(pending.find(text), len(text), text) for text in self._stop if text in pending]
        if found:
            at, _, self.stop_text = min(found)
            pending = pending[:at]
        keep = 0 if last or found else self._possible_stop(pending)
        self._held = pending[len(pending) - keep :]
        safe = pending[: len(pending) - keep]
        self.emitted += len(safe)
        ids = []
        while self._complete and self._complete[0][1] <= self.emitted:
            ids.append(self._complete.popleft()[0])
        return ids, safe

    def _possible_stop(self, text: str) -> int:
        """Length of the longest end of ``text`` that a stop text begins with."""
        lengths = (
            length
            for stop in self._stop
            for length in range(min(len(stop), len(text) + 1))
            if text.endswith(stop[:length])
        )
        return max(lengths, default=0)
