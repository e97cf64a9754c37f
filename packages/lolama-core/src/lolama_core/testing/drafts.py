"""Drafts of any length, which are right by chance: for tests that texts do not depend on them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from lolama_core.generation.draft_model import MemoryOf
from lolama_core.generation.pass_costs import PassCosts
from lolama_core.generation.request import Request
from lolama_core.generation.scheduled import Draft, Scheduled
from lolama_core.generation.speculation import MOST_DRAFTED, Drafting, Speculation
from lolama_core.protocols import CausalLM


class EagerSpeculation(Speculation):
    """Lets rows try 0 to 8 tokens ahead, by chance and whatever they cost.

    Args:
        drafting: Where drafts come from.
        seed: Decides how many tokens are tried.
        draft_memory_of: See `Speculation`.
    """

    def __init__(
        self, drafting: Drafting, seed: int = 0, draft_memory_of: MemoryOf | None = None
    ) -> None:
        super().__init__(drafting, PassCosts(), draft_memory_of)
        self._draw = random.Random(seed)

    def _worth(self, rows: int, kind: int) -> int:
        super()._worth(rows, kind)
        return self._draw.randrange(MOST_DRAFTED + 1)


class ScriptedDrafts:
    """A `Drafter` that was told how texts go on, and guesses it by chance.

    Args:
        text_of: All tokens of a request, an end token included; none if they are not known.
        vocabulary: Wrong guesses are below.
        seed: Decides which guesses are right.
        right: How often a guess is.
    """

    def __init__(
        self,
        text_of: Callable[[Request], Sequence[int]],
        vocabulary: int,
        seed: int = 0,
        right: float = 0.7,
    ) -> None:
        self._text_of, self._vocabulary, self._right = text_of, vocabulary, right
        self.read = 0
        self._draw = random.Random(seed)

    def start(self, runner: CausalLM) -> None:
        """There is nothing to look at."""

    def draft(
        self,
        rows: Sequence[Scheduled],
        most: Sequence[int],
        worth: Callable[[int], int],
        may_read: int,
    ) -> list[Draft]:
        """See `Drafter.draft`."""
        return [
            self._draft(one.request, min(count, worth(0)))
            for one, count in zip(rows, most, strict=True)
        ]

    def _draft(self, request: Request, count: int) -> Draft:
        draw, known = self._draw, self._text_of(request)[len(request.tokens) :]
        right = [place < len(known) and draw.random() < self._right for place in range(count)]
        return Draft(
            [
                known[place] if right[place] else draw.randrange(self._vocabulary)
                for place in range(count)
            ],
            0,
        )


def scripted(
    text_of: Callable[[Request], Sequence[int]],
    vocabulary: int,
    seed: int = 0,
    right: float = 0.7,
) -> EagerSpeculation:
    """What lets rows try tokens of `ScriptedDrafts` ahead."""
    speculation = EagerSpeculation("lookup", seed)
    speculation._drafter = ScriptedDrafts(text_of, vocabulary, seed, right)
    return speculation
