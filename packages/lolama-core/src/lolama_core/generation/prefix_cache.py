"""What texts begin with, kept from one generation to the next, so that the next one runs only what is new."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial

from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import UsageError
from lolama_core.runtime.row_memory import RowMemory

_MOST_ROWS = 64
"""Texts as long as the context that may run at the same time with one cache."""


class PrefixCache:
    """Remembers what models have read, up to a number of bytes.

    Attention looks back only, so the keys and values of a position depend on nothing behind it: a text that
    begins like an earlier one may share its pages. The next turn of a conversation, or another question after
    the same long instructions, then costs no more than what is new in it. The results are those of running
    everything, to the rounding of float32 (1e-5 on logits).

    Texts are compared by `Prompt.keys`, never by ids alone, since different pictures have the same ids; and
    only texts of the same model match, as it is: `TextGenerator` sees that one has changed (see `runner_of`),
    unless by writes through ``tensor.data``; call `clear` after those. One cache may serve several models and
    several generators, which take turns. Under dynamic RoPE a position does depend on what follows, and such
    texts are not kept.

    What was not used for longest is dropped first, page by page from the end of a text.

    Args:
        max_bytes: The most bytes of keys and values that are kept for texts to come.

    Example:
        >>> generator = TextGenerator(model, tokenizer, prefix_cache=PrefixCache(max_bytes=1 << 30))
        >>> messages = [{"role": "user", "content": "Tell me a story."}]
        >>> reply = generator.generate(tokenizer.render_chat(messages), temperature=0)
        >>> messages.append({"role": "assistant", "content": reply.text})
        >>> messages.append({"role": "user", "content": "And then?"})
        >>> prompt = tokenizer.render_chat(messages)
        >>> len(prompt), generator.generate(prompt).cached_tokens
        (121, 114)

    Raises:
        UsageError: if ``max_bytes`` is negative.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise UsageError("max_bytes", f"is {max_bytes}", "give a number of bytes, 0 or more")
        self.max_bytes = max_bytes
        self._memories: list[RowMemory] = []  # the one used last comes last
        self._making = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values kept. (The keys they are matched by are small beside them.)"""
        return sum(memory.idle_bytes for memory in self._memories)

    def __len__(self) -> int:
        """Number of texts held, without those that are the beginning of another."""
        return sum(memory.texts for memory in self._memories)

    def clear(self) -> None:
        """Forget everything."""
        for memory in self._memories:
            memory.turns.when_free(memory.forget)

    def memory_of(self, runner: CausalLM) -> RowMemory:
        """Where the rows of a runner are: those of all generators with this cache."""
        with self._making:
            # What belongs to a model that is gone, or was changed, goes.
            others = [m for m in self._memories if m.model is not None and m.model is not runner]
            found = next((m for m in self._memories if m.model is runner), None)
            if found is None:
                found = RowMemory(runner, rows=_MOST_ROWS)
                found.on_end = _dropping_excess(self)
            self._memories = [*others, found]
            return found

    def _drop_excess(self) -> None:
        excess = self.nbytes - self.max_bytes
        for memory in self._memories:
            if excess <= 0:
                return
            held = memory.idle_bytes
            kept = max(0, held - excess)
            # It may be done later only, if a step runs there.
            memory.turns.when_free(partial(memory.reclaim, kept))
            excess -= held - kept


def _dropping_excess(cache: PrefixCache) -> Callable[[], None]:
    """Drops what is too much, as long as the cache is there. It makes no circle of objects with it."""
    itself = weakref.ref(cache)

    def drop() -> None:
        if (found := itself()) is not None:
            found._drop_excess()

    return drop
