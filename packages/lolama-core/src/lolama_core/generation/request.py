"""One prompt on its way to its end: settings, history, and what may be given out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal

import torch
from torch import Tensor
from typing_extensions import TypeVar

from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.sampling import Sampler
from lolama_core.generation.text_stream import TextStream

FinishReason = Literal["eos", "stop", "length"]


Text = TypeVar("Text", bound=str | None, default=str, covariant=True)
"""Of the text in results: ``str`` if the generator has a tokenizer, None if it has none."""


@dataclass(frozen=True, kw_only=True)
class Generation(Generic[Text]):
    """What one prompt led to. ``print`` shows its text.

    Attributes:
        ids: New tokens, without the end token and without any that touch a stop text.
        text: Their text after the prompt's; None if the generator has no tokenizer.
        finish_reason: ``eos`` the model ended it, ``stop`` a stop text did, ``length`` there was no room.
        context_full: With ``length``: the model's context was full before ``max_new_tokens``.
        cached_tokens: Positions of the prompt that came from a `PrefixCache` and were not run again.
    """

    ids: tuple[int, ...]
    text: Text
    finish_reason: FinishReason
    context_full: bool = False
    cached_tokens: int = 0

    def __str__(self) -> str:
        return repr(self) if self.text is None else self.text


class Request:
    """One row of a generation.

    Args:
        prompt_ids: What it continues.
        config: Its settings.
        sampler: Its own sampler, with its own random numbers.
        room: Positions that the model's context has left after the prompt.
        eos_ids: Ids that end it; none if they are ignored.
        text_stream: Turns its ids into text and finds stop texts; None to do without both.
        device: Where logits are.

    Attributes:
        finish_reason: None while it goes on.
        released: Ids that may be given out: those that no stop text can still take back.
        pieces: Pieces of text likewise.
        cached_tokens: Positions of the prompt that its cache held from the beginning.
    """

    def __init__(
        self,
        prompt_ids: list[int],
        config: GenerationConfig,
        sampler: Sampler,
        *,
        room: int,
        eos_ids: frozenset[int],
        text_stream: TextStream | None,
        device: torch.device,
    ) -> None:
        self.config = config
        self.limit = min(config.max_new_tokens, room)
        self.finish_reason: FinishReason | None = None
        self.released: list[int] = []
        self.pieces: list[str] = []
        self.cached_tokens = 0
        self._sampler = sampler
        self._eos_ids = eos_ids
        self.text_stream = text_stream
        self._held: list[tuple[int, int]] = []
        self._count = 0
        self._prompt_length = len(prompt_ids)
        # An ordinary tensor wherever the request is made: it is written to at every step, wherever that is.
        with torch.inference_mode(False):
            length = len(prompt_ids) + self.limit
            self._history = torch.zeros((1, length), dtype=torch.int64, device=device)
            self._history[0, : len(prompt_ids)] = torch.tensor(prompt_ids, device=device)
        if self.limit == 0:
            self._finish("length")

    def restrict(self, room: int) -> None:
        """Let it go on for ``room`` positions at most: pictures took more of them than their ids did."""
        if room < self.limit:
            self.limit = room
            if room == 0:
                self._finish("length")

    @property
    def context_full(self) -> bool:
        """Whether it ended because the model's context did."""
        return self.finish_reason == "length" and self.limit < self.config.max_new_tokens

    def step(self, logits: Tensor) -> int:
        """Choose from (1, V) logits, and note whether that was the last token."""
        length = self._prompt_length + self._count
        token_id = self._sampler(self._history[:, :length], logits, step=self._count)
        if token_id in self._eos_ids:
            self._finish("eos")
            return token_id
        if self._sampler.chain:  # nobody else looks at it
            self._history[0, length] = token_id
        self._count += 1
        self._release(token_id)
        if self.text_stream is not None and self.text_stream.stopped:
            self._finish("stop")
        elif self._count == self.limit:
            self._finish("length")
        return token_id

    def _release(self, token_id: int) -> None:
        """Give out the id and its text, unless a stop text may have begun in it."""
        if self.text_stream is None:
            self.released.append(token_id)
            return
        before = self.text_stream.decoded
        self._add(self.text_stream.push(token_id))
        self._held.append((token_id, -1))
        if self.text_stream.decoded > before or not self.text_stream.pending:
            # All ids waiting for their text have it now; it ends here.
            end = self.text_stream.decoded
            self._held = [(held, end if known < 0 else known) for held, known in self._held]
        self._release_held()

    def _release_held(self, *, everything: bool = False) -> None:
        assert self.text_stream is not None
        keep: list[tuple[int, int]] = []
        for held, end in self._held:
            certain = 0 <= end <= self.text_stream.emitted
            if self.config.stop and (keep or not (certain or everything)):
                keep.append((held, end))
            else:
                self.released.append(held)
        self._held = keep

    def _finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        if self.text_stream is not None:
            self._add(self.text_stream.finish())
            if self.text_stream.stopped:  # the last held characters completed a stop text
                self.finish_reason = "stop"
            self._release_held(everything=self.finish_reason != "stop")

    def _add(self, piece: str) -> None:
        if piece:
            self.pieces.append(piece)

    def result(self) -> Generation[str | None]:
        """What came of it, once ``finish_reason`` is set."""
        assert self.finish_reason is not None
        text = "".join(self.pieces) if self.text_stream is not None else None
        return Generation(
            ids=tuple(self.released),
            text=text,
            finish_reason=self.finish_reason,
            context_full=self.context_full,
            cached_tokens=self.cached_tokens,
        )
