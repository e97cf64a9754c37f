"""Drafts by a smaller model that knows the same tokens."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from lolama_core.generation.random_numbers import drawn_in_advance
from lolama_core.generation.request import Request
from lolama_core.generation.scheduled import NO_DRAFT, Draft, Scheduled
from lolama_core.model.kv_cache import own_cache
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.locks import while_locked
from lolama_core.runtime.paged_cache import Row
from lolama_core.runtime.prefix_tree import count_shared
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of

_MOST_BEHIND = 16
"""Ids of a text that may be read for a guess. To read more is to catch up."""

MOST_ROWS = 64
"""Texts as long as the model's context that it follows at the same time."""

MemoryOf: TypeAlias = Callable[[CausalLM], RowMemory]
"""A runner → where its rows are."""


@dataclass
class _Followed:
    """A text as far as the model has read it.

    Attributes:
        row: Its keys and values.
        ids: Those of its positions.
        sure: How many of these were chosen. What follows was guessed.
        begun: Whether the row may take memory.
        kept: Whether other texts may share what it begins with.
    """

    row: Row = field(default_factory=Row)
    ids: list[int] = field(default_factory=list)
    sure: int = 0
    begun: bool = False
    kept: bool = False


def _check_keys_stay(model: CausalLM) -> None:
    changed_by = own_cache(model.make_cache(1, 1)).changed_by
    if changed_by is not None:
        reason = f"changes what it holds of a text as that grows ({changed_by})"
        raise UsageError("draft", reason, "use another model, or none")


class DraftModel:
    """Guesses what a model would say, with the settings and random numbers of the text.

    Args:
        model: It reads ids alone, so texts with pictures have no drafts. It is kept alive.
        memory_of: A runner of it → where its rows are; None for memory of its own. A text that finds none has
            no drafts.

    Raises:
        UsageError: if what it holds of a text changes as that grows (dynamic RoPE, LongRoPE).

    Attributes:
        read: See `Drafter`.
    """

    def __init__(self, model: CausalLM, memory_of: MemoryOf | None = None) -> None:
        _check_keys_stay(model)
        self._model, self.read, self._may_read = model, 0, 0
        self._memory_of = memory_of or partial(RowMemory, rows=MOST_ROWS)
        self._memory: RowMemory | None = None
        # Generators that share it may run in several threads.
        self._lock = threading.RLock()
        self._texts: weakref.WeakKeyDictionary[Scheduled, _Followed] = weakref.WeakKeyDictionary()

    def start(self, runner: CausalLM) -> None:
        """Look at the model as it is now. What it guesses for is ``runner``.

        Raises:
            UsageError: if it has dynamic RoPE or LongRoPE by now.
        """
        while_locked(self._lock, partial(self._look, runner))

    def _look(self, runner: CausalLM) -> None:
        self._runner, self._vocabulary = runner_of(self._model), runner.vocab_size
        if self._memory is None or self._memory.model is not self._runner:
            self._memory = self._memory_of(self._runner)
            self._texts.clear()
        if self._memory.rows_run_alone:  # which looks at its cache
            _check_keys_stay(self._runner)

    def draft(
        self,
        rows: Sequence[Scheduled],
        most: Sequence[int],
        worth: Callable[[int], int],
        may_read: int,
    ) -> list[Draft]:
        """See `Drafter.draft`. All of its drafts are of one kind."""

        def in_turn() -> list[Draft]:
            memory, self.read, self._may_read = self._memory, 0, may_read
            assert memory is not None
            return memory.turns.take(partial(self._drafts, rows, most, worth, memory))

        return while_locked(self._lock, in_turn)

    def _drafts(
        self,
        rows: Sequence[Scheduled],
        most: Sequence[int],
        worth: Callable[[int], int],
        memory: RowMemory,
    ) -> list[Draft]:
        drafts, ready = [NO_DRAFT] * len(rows), []
        for place, (one, count) in enumerate(zip(rows, most, strict=True)):
            count = min(count, worth(0))
            behind = self._behind(one, count, memory) if count > 0 else []
            if behind:
                ready.append((place, count, behind))
        texts = [self._texts[rows[place]] for place, _, _ in ready]
        counts = [len(behind) + count - 1 for _, count, behind in ready]
        if ready and memory.has_room([text.row for text in texts], counts):
            requests = [rows[place].request for place, _, _ in ready]
            first = self._run(texts, [behind for _, _, behind in ready], memory)
            self.read += sum(len(behind) for *_, behind in ready if len(behind) > _MOST_BEHIND)
            guesses = drawn_in_advance(
                [request.guesser.generator for request in requests],
                partial(self._guess, requests, texts, first, [n for _, n, _ in ready]),
            )
            for (place, _, _), tokens in zip(ready, guesses, strict=True):
                drafts[place] = Draft(tokens, 0)
        return drafts

    def _behind(self, one: Scheduled, count: int, memory: RowMemory) -> list[int]:
        """The ids of a text that the model is to read before it can guess ``count``; none if it cannot."""
        ids = [*one.request.prompt_ids, *one.request.tokens]
        text = self._texts.get(one)
        if text is not None and text.row.length != len(text.ids):  # Ctrl-C has broken off a pass
            memory.end(text.row)
            text = None
        if text is None:
            text = self._texts[one] = _Followed()
            # Its pages are free once the request is gone.
            end = weakref.finalize(one, memory.turns.when_free, partial(memory.end, text.row))
            end.atexit = False
        new = ids[text.sure :]
        if one.request.has_inputs or max(new, default=0) >= self._runner.vocab_size:
            return []
        if len(ids) + count > self._runner.max_seq_len:
            return []
        if not text.begun:
            text.begun = memory.begin(text.row, ids, len(ids) + 1, len(ids) + one.request.limit)
            text.ids = ids[: text.row.length]
            text.sure = text.row.length
        if not text.begun:
            return []
        right = text.sure + count_shared(text.ids[text.sure :], ids[text.sure : -1])
        memory.cut_back(text.row, len(text.ids) - right)
        del text.ids[right:]
        text.sure = right
        behind = ids[right:]
        if len(behind) <= _MOST_BEHIND:
            return behind
        # It is read in several steps, so that no step takes long.
        chunk = behind[: self._may_read]
        if not chunk or not memory.has_room([text.row], [len(chunk)]):
            return []
        self._may_read -= len(chunk)
        if len(chunk) == len(behind):
            return behind
        self._run([text], [chunk], memory)
        self.read += len(chunk)
        return []

    def _run(
        self, texts: Sequence[_Followed], new: Sequence[list[int]], memory: RowMemory
    ) -> Tensor:
        """Read new ids of each text: logits (B, V) of what follows."""
        counts = [len(ids) for ids in new]
        padded = torch.zeros((len(new), max(counts)), dtype=torch.int64, device="cpu")
        for row, ids in enumerate(new):
            padded[row, : len(ids)] = torch.tensor(ids, device="cpu")
        embeds = self._runner.embed(padded.to(self._runner.device))
        logits = memory.run([text.row for text in texts], embeds, counts)
        for text, ids in zip(texts, new, strict=True):
            text.ids += ids
            text.sure = len(text.ids)
        return self._fitted(logits)

    def _fitted(self, logits: Tensor) -> Tensor:
        """(B, any) → (B, V): models with the same tokens may have different numbers of unused ones."""
        more = self._vocabulary - logits.shape[1]
        return logits if not more else torch.nn.functional.pad(logits, (0, more), value=-torch.inf)

    def _guess(
        self,
        requests: Sequence[Request],
        texts: Sequence[_Followed],
        logits: Tensor,
        counts: Sequence[int],
    ) -> list[list[int]]:
        """The next tokens of texts, from logits (B, V) of the first."""
        assert self._memory is not None
        for text in texts:
            if not text.kept:
                self._memory.keep(text.row, text.ids)
                text.kept = True
        guesses: list[list[int]] = [[] for _ in texts]
        going, made = [*range(len(texts))], 0
        while True:
            made += 1
            for place, i in enumerate(going):
                with suppress(ModelError):  # who does not guess harms no text
                    guesses[i].append(requests[i].guess(logits[place : place + 1], guesses[i]))
            going = [i for i in going if made == len(guesses[i]) < counts[i]]
            if not going:
                return guesses
            last = [guesses[i][-1] for i in going]
            logits = self._memory.decode([texts[i].row for i in going], last)
            logits = self._fitted(logits)
            for i in going:
                texts[i].ids.append(guesses[i][-1])
