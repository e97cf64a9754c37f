"""Drafts from a text itself: what followed the last time that it ended like this."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lolama_core.generation.scheduled import NO_DRAFT, Draft, Scheduled
from lolama_core.protocols import CausalLM

_LEAST = 3
"""Tokens that a text has to end with a second time: what follows two of them says little."""

_MOST = 8
"""Tokens that are compared."""


@dataclass
class _Seen:
    """A text so far.

    Attributes:
        ids: Its prompt and its tokens.
        places: Each run of three ids → the place behind the last time that it was seen.
        known: Up to which place these go.
    """

    ids: list[int]
    places: dict[tuple[int, ...], int] = field(default_factory=dict)
    known: int = _LEAST


class PromptLookup:
    """Guesses that a text goes on as it did before (Saxena, "Prompt Lookup Decoding", 2023)."""

    read = 0

    def __init__(self) -> None:
        self._seen: weakref.WeakKeyDictionary[Scheduled, _Seen] = weakref.WeakKeyDictionary()

    def start(self, runner: CausalLM) -> None:
        """There is nothing to look at."""

    def draft(
        self,
        rows: Sequence[Scheduled],
        most: Sequence[int],
        worth: Callable[[int], int],
        may_read: int,
    ) -> list[Draft]:
        """See `Drafter.draft`. The kind of a draft is how many tokens before it are the same, up to eight."""
        return [self._found(one, count, worth) for one, count in zip(rows, most, strict=True)]

    def _found(self, one: Scheduled, most: int, worth: Callable[[int], int]) -> Draft:
        seen = self._seen.get(one)
        if seen is None:
            seen = self._seen[one] = _Seen([*one.request.prompt_ids])
        ids, places = seen.ids, seen.places
        ids += one.request.tokens[len(ids) - len(one.request.prompt_ids) :]
        end = len(ids)
        for place in range(seen.known, end):
            places[tuple(ids[place - _LEAST : place])] = place
        seen.known = max(seen.known, end)
        before = places.get(tuple(ids[-_LEAST:]))
        if before is None or most < 1:
            return NO_DRAFT
        same = _LEAST
        while same < _MOST and same < before and ids[before - 1 - same] == ids[end - 1 - same]:
            same += 1
        count = min(most, worth(same))
        # What follows may be the draft itself, where a text repeats a few tokens again and again.
        following = ids[before : before + count]
        while following and len(following) < count:
            following.append(following[before - end])
        return Draft(following, same)
