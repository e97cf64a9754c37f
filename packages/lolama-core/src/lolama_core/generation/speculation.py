"""Tokens that rows try ahead of their turn: they run in one pass, and a text keeps those that it chooses.

A pass takes about as long for a few positions of a row as for one, since it waits for the weights. So a row
runs the tokens that are guessed to come next (a draft) beside its last token. Then its request chooses token
by token, as it always does: by the logits of each position, with its own settings and random numbers. The
logits behind a guess are right as long as the request chooses what was guessed. A draft changes how fast a
text comes, and not which text. (Leviathan et al., "Fast Inference from Transformers via Speculative
Decoding", 2023, accept guesses by chance instead.) What a constraint forces is a draft, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeAlias

from torch import Tensor

from lolama_core.generation.draft_model import MOST_ROWS, DraftModel, MemoryOf
from lolama_core.generation.pass_costs import MOST_POSITIONS, PassCosts
from lolama_core.generation.prompt_lookup import PromptLookup
from lolama_core.generation.request import Request
from lolama_core.generation.scheduled import NO_DRAFT, Draft, Part, Scheduled
from lolama_core.model.kv_cache import own_cache
from lolama_core.protocols import CausalLM
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.generation import Emission
from lolama_core.runtime.int8_cache import CacheDtype
from lolama_core.runtime.pages import position_bytes
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import Runner

Drafting: TypeAlias = CausalLM | Literal["auto", "lookup", "off"]
"""Where drafts come from.

``lookup`` guesses what followed when the text last ended like this. A model, smaller than the one that
generates and with the same vocabulary, guesses by itself. ``off`` guesses nothing. ``auto`` looks up where no
text can change by it: where native kernels give a position the same bits whatever runs beside it.
"""

MOST_DRAFTED = 8
"""Tokens that a row tries ahead at most."""

MOST_FORCED = 16
"""Tokens that a constraint forces and that run in one pass, at most: each has logits of its own, (V,)."""

_FORCED = -1
"""The kind of drafts that constraints force. They are no guesses, so nobody counts how many are right."""

_UNMEASURED = 2
"""Tokens that a row tries ahead as long as nobody knows what they cost."""

_ASSUMED_COST = 0.2
"""What a token tried ahead costs, as a part of a step, where no time is measured."""

_TRY_AGAIN = 64
"""Drafts that are not worth their time are tried again after 64 times, since texts change."""

_TRIES = 8
"""So often they are tried, since a draft model first catches up, in several steps."""


class Drafter(Protocol):
    """Guesses how texts go on.

    Attributes:
        read: Positions that were read for the last drafts, to catch up with texts.
    """

    read: int

    def start(self, runner: CausalLM) -> None:
        """Look at what it guesses with, as it is now, before texts of ``runner`` begin."""
        ...

    def draft(
        self,
        rows: Sequence[Scheduled],
        most: Sequence[int],
        worth: Callable[[int], int],
        may_read: int,
    ) -> list[Draft]:
        """A draft of each text, maybe empty.

        Args:
            rows: Texts whose next token is to be chosen.
            most: Tokens that may be guessed for each.
            worth: A kind of drafts → how many tokens are worth their time.
            may_read: Positions that may be read to catch up with texts, of all together.
        """
        ...


@dataclass
class _Rate:
    """How often a guess of some kind is right.

    Attributes:
        right: Guesses that were chosen. Old ones count less and less.
        tried: Guesses of which somebody knows.
        left_out: Drafts that were not worth it, one after another.
    """

    right: float = 1.0
    tried: float = 2.0
    left_out: int = 0

    def note(self, right: int, tried: int) -> None:
        self.right, self.tried = 0.9 * self.right + right, 0.9 * self.tried + tried
        self.left_out = 0

    def worth(self, cost: float) -> int:
        """How many tokens are worth ``cost`` steps each: the last is right often enough to save that."""
        rate = self.right / self.tried
        if rate > cost:
            return MOST_DRAFTED if rate > 0.99 else int(math.log(max(cost, 1e-9)) / math.log(rate))
        self.left_out += 1
        return int(self.left_out >= _TRY_AGAIN and self.left_out % _TRY_AGAIN < _TRIES)


class Speculation:
    """Lets rows try tokens ahead, as many as pay.

    Args:
        drafting: Where drafts come from.
        costs: What passes cost. Where time cannot change a text, it tells what drafts cost; elsewhere a fifth
            of a step is assumed, so that the same settings always lead to the same text.
        draft_memory_of: A runner of a draft model → where its rows are; see `DraftModel`.

    Raises:
        UsageError: if ``drafting`` is nothing that makes drafts.
    """

    def __init__(
        self, drafting: Drafting, costs: PassCosts, draft_memory_of: MemoryOf | None = None
    ) -> None:
        self._drafter: Drafter | None = None
        if isinstance(drafting, str) and drafting in ("auto", "lookup"):
            self._drafter = PromptLookup()
        elif isinstance(drafting, CausalLM):
            self._drafter = DraftModel(drafting, draft_memory_of)
        elif drafting != "off":
            reason, remedy = (
                f"{shown(drafting)} makes no drafts",
                "give a model, or auto, lookup, off",
            )
            raise UsageError("draft", reason, remedy)
        self._by_itself, self.costs = drafting == "auto", costs
        self._rates: dict[int, _Rate] = {}
        self._active = self._measures = False
        self._vocab_size = 0

    def start(self, runner: CausalLM) -> None:
        """Look at the models as they are now."""
        self._vocab_size = runner.vocab_size
        self._measures = isinstance(runner, Runner) and runner.fixed_order
        self._active = self._drafter is not None and (self._measures or not self._by_itself)
        if self._active and self._drafter is not None:
            self._drafter.start(runner)

    def ahead(self, parts: list[Part], memory: RowMemory, *, measure: bool = False) -> list[Part]:
        """The parts of a pass, with what rows try ahead: nothing where prompts run beside them.

        Args:
            parts: What runs in any case.
            memory: Where the rows are.
            measure: Whether prompts wait for the time of a step, so that nothing else is to run in it.
        """
        rows = [one for one, _ in parts]
        # A row whose earlier positions change as it grows cannot be cut back.
        if measure or memory.rows_run_alone or any(one.to_run for one in rows):
            return parts
        drafts = [self._forced(one) for one in rows]
        # A step without drafts is measured now and then: steps with drafts tell nothing of it.
        if self._active and self.costs.knows_step(len(rows)):
            self._guess(rows, drafts)
        counts = [1 + len(draft.tokens) for draft in drafts]
        if max(counts, default=1) == 1 or not memory.has_room([one.row for one in rows], counts):
            return parts
        for one, draft in zip(rows, drafts, strict=True):
            one.draft = draft
        return [*zip(rows, counts, strict=True)]

    def _forced(self, one: Scheduled) -> Draft:
        """What the constraint of a row says comes next, whether or not drafts are asked for."""
        constrained = one.request.constrained
        if constrained is None:
            return NO_DRAFT
        most = min(MOST_FORCED, _may_try(one))
        return Draft(constrained.forced(most, self._vocab_size), _FORCED)

    def _guess(self, rows: Sequence[Scheduled], drafts: list[Draft]) -> None:
        """Drafts of the rows that nothing is forced of."""
        free = [place for place, draft in enumerate(drafts) if not draft.tokens]
        if not free:
            return
        assert self._drafter is not None
        asked = [rows[place] for place in free]
        most = [min(MOST_DRAFTED, _may_try(one)) for one in asked]
        begin = self.costs.clock()
        may_read = self.costs.draft_chunk(len(rows)) if self._measures else MOST_POSITIONS
        worth = partial(self._worth, len(rows))
        guesses = self._drafter.draft(asked, most, worth, may_read)
        self.costs.note_drafting(self.costs.clock() - begin, self._drafter.read)
        for place, draft in zip(free, guesses, strict=True):
            drafts[place] = draft

    def _worth(self, rows: int, kind: int) -> int:
        """How many tokens of a draft are worth it."""
        cost = self.costs.draft_token(rows) if self._measures else _ASSUMED_COST
        rate = self._rates.setdefault(kind, _Rate())
        return _UNMEASURED if cost is None else min(rate.worth(cost), MOST_DRAFTED)

    def chosen(self, one: Scheduled, logits: Tensor, memory: RowMemory) -> Iterator[Emission]:
        """The tokens that a request chooses from logits (1 + k, V) of its last token and its draft.

        The first that is not in the draft is the last one. What the row has run behind it is taken away. A
        request that wants no token ends.
        """
        if not one.request.limit:
            one.request.end_without_tokens()
            return
        (tokens, kind), one.draft = one.draft, NO_DRAFT
        emission, place = one.request.step(logits[:1]), 0
        while (
            place < len(tokens) and emission.token == tokens[place] and not emission.finish_reason
        ):
            yield emission
            place += 1
            emission = one.request.step(logits[place : place + 1])
        if tokens:
            memory.cut_back(one.row, len(tokens) - place)
            self._note(one.request, kind, place, len(tokens))
        yield emission

    def _note(self, request: Request, kind: int, right: int, tried: int) -> None:
        """Learn how many tokens of a draft were right, unless they were no guesses."""
        if kind != _FORCED:
            self._rates[kind].note(right, min(right + 1, tried))
            request.drafted_tokens += tried
            request.accepted_tokens += right


def _may_try(one: Scheduled) -> int:
    """Tokens that a row may have behind the next one."""
    return one.request.limit - len(one.request.tokens) - 1


def speculation_of(
    draft: Drafting | Speculation,
    model: CausalLM,
    cache_bytes: int | None = None,
    cache_dtype: CacheDtype | None = None,
    draft_memory_of: MemoryOf | None = None,
) -> tuple[Speculation, int | None]:
    """What lets rows of an engine try tokens ahead; it is made anew unless several engines share it.

    Args:
        draft: Where drafts come from.
        model: What generates.
        cache_bytes: What keys and values of all models may take.
        cache_dtype: What those of ``model`` are stored in.
        draft_memory_of: Where rows of a draft model are, if ``cache_bytes`` say nothing of it.

    Returns:
        It, and what is left of ``cache_bytes``: each model gets as much of them as a position of it takes.
    """
    if isinstance(draft, Speculation):
        return draft, cache_bytes
    if cache_bytes is not None and isinstance(draft, CausalLM):
        own = position_bytes(own_cache(model.make_cache(1, 1)), cache_dtype)
        drafts = position_bytes(own_cache(draft.make_cache(1, 1)))
        draft_bytes = cache_bytes * drafts // (own + drafts)
        draft_memory_of = partial(RowMemory, rows=MOST_ROWS, max_bytes=draft_bytes)
        cache_bytes -= draft_bytes
    return Speculation(draft, PassCosts(), draft_memory_of), cache_bytes
