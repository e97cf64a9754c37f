"""One prompt on its way to its end: settings, history, and what each step gives out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from lolama_core.generation.constrained import Constrained
from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.logprobs import PromptLogprobs, token_logprobs
from lolama_core.generation.random_numbers import drawn_again
from lolama_core.generation.sampling import Sampler
from lolama_core.generation.text_stream import TextStream
from lolama_core.protocols.generation import (
    Emission,
    FinishReason,
    Generation,
    TokenLogprobs,
)
from lolama_core.protocols.inference import ordinary

PromptReader: TypeAlias = Callable[[Tensor, int], None]
"""Is given (T, V) logits of a prompt and the first of their positions, chunk by chunk."""


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
        constrained: Keeps it within a constraint, as one of the sampler's processors.
        guesser: Chooses what it may try ahead: its sampler without what others have put into it.

    Attributes:
        limit: The most new ids that it may have.
        tokens: Those chosen so far, an end token included.
        finish_reason: None while it goes on.
        cached_tokens: Positions of the prompt that its cache held from the beginning.
        drafted_tokens, accepted_tokens: See `Generation`.
        prompt_reader: Reads its prompt's logits, if there is one.
        taken: Whether an engine has it.
        has_inputs: Whether its prompt was made of more than ids, such as pictures.
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
        constrained: Constrained | None = None,
        guesser: Sampler | None = None,
    ) -> None:
        self.prompt_ids, self.config, self.text_stream = prompt_ids, config, text_stream
        self.limit = min(config.max_new_tokens, room)
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.cached_tokens = 0
        self.constrained = constrained
        self.prompt_reader: PromptReader | None = None
        self.has_inputs = False
        self.taken = False
        self.drafted_tokens = self.accepted_tokens = 0
        self._sampler, self.guesser, self._eos_ids = sampler, guesser or sampler, eos_ids
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprobs] = []  # of the tokens chosen so far
        self._text = ""
        # An ordinary tensor wherever the request is made: it is written to at every step, wherever that is.
        length = len(prompt_ids) + self.limit
        self._history = ordinary(lambda: torch.zeros((1, length), dtype=torch.int64, device=device))
        self._history[0, : len(prompt_ids)] = torch.tensor(prompt_ids, device=device)

    def restrict(self, room: int) -> None:
        """Let it go on for ``room`` positions at most: pictures took more of them than their ids did."""
        self.limit = min(self.limit, room)

    def end_without_tokens(self) -> None:
        """End it where no token is wanted, or none has room."""
        assert self.limit == 0
        self.finish_reason = "length"

    @property
    def context_full(self) -> bool:
        """Whether it ended because the model's context did."""
        return self.finish_reason == "length" and self.limit < self.config.max_new_tokens

    def step(self, logits: Tensor) -> Emission:
        """Choose the next token from (1, V) logits."""
        chosen = len(self.tokens)
        length = len(self.prompt_ids) + chosen
        with drawn_again(self._sampler.generator):
            # Nobody else reads the history, which is then not kept.
            history = self._history[:, :length] if self._sampler.chain else self._history
            token = self._sampler(history, logits, step=chosen)
            self.tokens.append(token)
        if self.constrained is not None:
            self.constrained.accept(token)
        reason: FinishReason | None = None
        ids: Sequence[int] = ()
        text, stream = "", self.text_stream
        if token in self._eos_ids:
            reason = "eos"
        else:
            if self._sampler.chain:
                self._history[0, length] = token
            if self.config.logprobs is not None:
                self._logprobs += token_logprobs(logits, [token], self.config.logprobs)
            if len(self.tokens) == self.limit:
                reason = "length"
            ids, text = ([token], "") if stream is None else stream.take(token)
        if stream is not None and (reason is not None or stream.stopped):
            last_ids, last_text = stream.end()
            ids, text = [*ids, *last_ids], text + last_text
            if stream.stopped:  # it may be the last held characters that complete a stop text
                reason = "stop"
        given = len(self._ids)
        self._ids += map(int, ids)
        self._text += text
        self.finish_reason = reason
        logprobs = tuple(self._logprobs[given : len(self._ids)])
        return Emission(token, tuple(ids), text, reason, logprobs)

    def guess(self, logits: Tensor, ahead: Sequence[int]) -> int:
        """The token that it would choose after ``ahead`` from (1, V) logits of another model."""
        length = len(self.prompt_ids) + len(self.tokens)
        end = length + len(ahead)
        if self.guesser.chain and ahead:  # what is chosen there later overwrites it
            self._history[0, length:end] = torch.tensor(ahead, device=self._history.device)
        return self.guesser(self._history[:, :end], logits, step=end - len(self.prompt_ids))

    def result(self) -> Generation[str | None]:
        """What came of it, once ``finish_reason`` is set."""
        assert self.finish_reason is not None
        read, stream = self.prompt_reader, self.text_stream
        return Generation(
            ids=tuple(self._ids),
            text=None if stream is None else self._text,
            stop_text=None if stream is None else stream.stop_text,
            finish_reason=self.finish_reason,
            context_full=self.context_full,
            cached_tokens=self.cached_tokens,
            drafted_tokens=self.drafted_tokens,
            accepted_tokens=self.accepted_tokens,
            logprobs=None
            if self.config.logprobs is None
            else tuple(self._logprobs[: len(self._ids)]),
            prompt_logprobs=tuple(read.tokens) if isinstance(read, PromptLogprobs) else None,
        )
