"""What texts begin with, kept from one generation to the next, so that the next one runs only what is new."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lolama_core.model.device import memory_errors
from lolama_core.model.kv_cache import own_cache
from lolama_core.protocols import CausalLM
from lolama_core.protocols.arguments import path_of
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.locks import while_locked
from lolama_core.runtime.int8_cache import CacheDtype, check_cache_dtype
from lolama_core.runtime.pages import Pages
from lolama_core.runtime.prefix_tree import PrefixTree
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of
from lolama_core.runtime.saved_prefixes import restore_prefixes, save_prefixes
from lolama_core.text.plain_numbers import whole_number

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
    several generators, which take turns. Under dynamic RoPE and LongRoPE a position does depend on what
    follows, and such texts are not kept.

    What was not used for longest is dropped first, page by page from the end of a text. Draft models have a
    share of ``max_bytes``, as large as their positions are beside those of the others. What they keep beyond
    that is dropped before anything else.

    Args:
        max_bytes: The most bytes of keys and values that are kept for texts to come, of draft models as well.
        cache_dtype: What keys and values are stored in, see `Engine`. All generators with this cache have it.

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
        UsageError: if ``max_bytes`` is negative or no whole number, or for a ``cache_dtype`` that there is
            not. A model that cannot have it is refused when it is to be used.
    """

    def __init__(self, max_bytes: int, *, cache_dtype: CacheDtype | None = None) -> None:
        most = whole_number(max_bytes)
        if most is None or most < 0:
            reason = f"is {shown(max_bytes)}"
            raise UsageError("max_bytes", reason, "give a whole number of bytes, 0 or more")
        check_cache_dtype(cache_dtype)
        self.max_bytes, self.cache_dtype = most, cache_dtype
        # Whether it is for drafts; the one used last comes last.
        self._memories: dict[RowMemory, bool] = {}
        self._making = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values kept, those of draft models included.

        The keys they are matched by are small beside them.
        """
        return sum(memory.idle_bytes for memory in self._memories)

    def __len__(self) -> int:
        """Number of texts held, without those that are the beginning of another.

        What draft models have read of these texts is not counted.
        """
        return sum(memory.texts for memory, drafts in self._memories.items() if not drafts)

    def clear(self) -> None:
        """Forget everything."""
        for memory in self._memories:
            memory.turns.when_free(memory.forget)

    def save(self, path: str | Path, model: CausalLM) -> None:
        """Write what a model has read: whole, or not at all. Nobody else may read the file.

        Args:
            path: A file that is there is replaced.
            model: What has read it. Texts of other models are left out.

        Raises:
            UsageError: if ``path`` is no place for a file, under dynamic RoPE or LongRoPE, or for a model
                that has hooks, replaced functions or compiled code: nobody could tell it from another one.
            ResourceError: if it cannot be written. A file that was there stays.
        """
        place, memory = path_of("path", path), self.memory_of(runner_of(model))
        memory.turns.take(lambda: save_prefixes(*_kept(memory), place, model))

    def load(self, path: str | Path, model: CausalLM, *, missing_ok: bool = False) -> int:
        """Read what a model has read in another process, up to ``max_bytes`` with what is kept already.

        Args:
            path: What `save` wrote. Use no file of somebody else: its texts could hold anything.
            model: What had read it: the same weights in the same dtype, on any device.
            missing_ok: Whether the file may be missing.

        Returns:
            Positions that are known now and are not run again.

        Raises:
            UsageError: if it is of another model or `cache_dtype`, and as `save`.
            ModelError: if it is no such file, or damaged. Nothing is taken from it then.
            ResourceError: if there is no memory to read it.
        """
        place, memory = path_of("path", path), self.memory_of(runner_of(model))

        def read() -> int:
            tree, pages = _kept(memory)
            if not os.path.lexists(place):
                if missing_ok:
                    return 0
                remedy = "check the path, or call it with missing_ok=True"
                raise ModelError(str(place), "does not exist", remedy)
            most = max(0, self.max_bytes - self.nbytes) // pages.page_bytes
            return restore_prefixes(tree, pages, place, model, most)

        with memory_errors(model.device):
            return memory.turns.take(read)

    def memory_of(self, runner: CausalLM, *, drafts: bool = False) -> RowMemory:
        """Where the rows of a runner are: those of all generators with this cache.

        A model that makes ``drafts`` has other rows for these: they change within turns of the model that it
        guesses for, and it may generate itself meanwhile.
        """
        return while_locked(self._making, partial(self._memory_of, runner, drafts))

    def _memory_of(self, runner: CausalLM, drafts: bool) -> RowMemory:
        # What belongs to a model that is gone, or was changed, goes.
        memories = {m: role for m, role in self._memories.items() if m.model is not None}
        same = (m for m, role in memories.items() if m.model is runner and role == drafts)
        found = next(same, None)
        if found is None:
            dtype = None if drafts else self.cache_dtype
            found = RowMemory(runner, rows=_MOST_ROWS, cache_dtype=dtype)
            found.on_end = _dropping_excess(self)
        memories.pop(found, None)
        self._memories = {**memories, found: drafts}
        return found

    def _drop_excess(self) -> None:
        memories, excess = self._memories, self.nbytes - self.max_bytes
        if excess <= 0:
            return
        page = {m: _kept(m)[1].page_bytes for m in memories if m.idle_bytes}
        for memory in sorted(page, key=lambda m: not memories[m]):  # those of draft models first
            if excess <= 0:
                return
            held = memory.idle_bytes
            share = self.max_bytes * page[memory] // sum(page.values()) if memories[memory] else 0
            kept = min(held, max(share, held - excess))
            # It may be done later only, if a step runs there.
            memory.turns.when_free(partial(memory.reclaim, kept))
            excess -= held - kept


def _kept(memory: RowMemory) -> tuple[PrefixTree, Pages]:
    """The texts of a memory, and its pages."""
    if memory.kept is None:
        assert memory.model is not None, "its caller holds it"
        changed_by = own_cache(memory.model.make_cache(1, 1)).changed_by
        reason = f"has {changed_by}, so nothing that it has read can be kept"
        raise UsageError("model", reason, "leave out the prompt cache")
    return memory.kept


def _dropping_excess(cache: PrefixCache) -> Callable[[], None]:
    """Drops what is too much, as long as the cache is there. It makes no circle of objects with it."""
    itself = weakref.ref(cache)

    def drop() -> None:
        if (found := itself()) is not None:
            found._drop_excess()

    return drop
