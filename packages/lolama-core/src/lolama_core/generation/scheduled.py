"""A request in an engine: how far it has run, and what it is to run next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from torch import Tensor

from lolama_core.generation.request import Request
from lolama_core.protocols.types import Prompt, PromptKey
from lolama_core.runtime.paged_cache import Row


class Draft(NamedTuple):
    """Tokens that a text may go on with.

    Attributes:
        tokens: The next one, the one after it, ...
        kind: Drafts of one kind are right about equally often.
    """

    tokens: Sequence[int]
    kind: int


NO_DRAFT = Draft((), 0)


@dataclass(eq=False)
class Scheduled:
    """A request in an engine.

    Attributes:
        ticket: What the caller knows it by. Later requests have greater ones.
        request: Chooses its tokens.
        prompt: As the model reads it, one row.
        embeds: (1, T, D), what is to be run before its next token can be chosen; T is 0 once it decodes.
        row: Its keys and values.
        begun: Whether it may take memory for these.
        ran: Whether it has begun before.
        given: How many of its tokens were given out.
        draft: Tokens that run in this pass behind its last one, if it chooses them.
    """

    ticket: int
    request: Request
    prompt: Prompt
    embeds: Tensor
    row: Row = field(default_factory=Row)
    begun: bool = False
    ran: bool = False
    given: int = 0
    draft: Draft = NO_DRAFT

    @property
    def length(self) -> int:
        """Positions of it so far, those of tokens that are to be run included."""
        return self.prompt.lengths[0] + len(self.request.tokens)

    @property
    def to_run(self) -> int:
        """Positions of its prompt that are to be run."""
        return self.embeds.shape[1]

    def spans(self, count: int) -> tuple[tuple[int, int], ...]:
        """`Prompt.spans` among its next ``count`` positions, counted from these."""
        start = self.length - self.to_run
        return tuple(
            (max(first - start, 0), stop - start)
            for first, stop in self._all_spans
            if start < stop <= start + count
        )

    def uncut(self, most: int) -> int:
        """How many positions of its prompt run where ``most`` may: no pass ends within a span.

        One may begin there, behind positions that another row has run as a part of the same span.
        """
        start, count = self.length - self.to_run, min(self.to_run, most)
        for first, stop in self._all_spans:
            if first < start + count < stop:
                return first - start if first > start else stop - start
        return count

    @property
    def _all_spans(self) -> tuple[tuple[int, int], ...]:
        return self.prompt.spans[0] if self.prompt.spans else ()

    @property
    def most_positions(self) -> int:
        """Positions that it may ever have."""
        return self.prompt.lengths[0] + self.request.limit

    @property
    def first_positions(self) -> int:
        """Positions that it begins with: those so far, and the next one.

        The last token that it may have never runs, so it has no position.
        """
        return min(self.length + 1, max(self.length, self.most_positions - 1))

    @property
    def reads_prompt(self) -> bool:
        """Whether somebody is still to be given the logits of its prompt."""
        return self.request.prompt_reader is not None and not self.request.tokens

    @property
    def keys(self) -> list[PromptKey]:
        """The keys of its positions, tokens included; none if those of its prompt are not known."""
        [own] = self.prompt.keys
        # Where Ctrl-C comes, a draft that is not cut back yet may hold another token than one not given out.
        tokens = self.request.tokens[: self.given]
        return [*own, *tokens] if len(own) == self.prompt.lengths[0] else []


Part: TypeAlias = tuple[Scheduled, int]
"""A request in a pass, and how many of its positions run."""
