"""Keys and values of texts that were run before, so that the next one runs only what is new.

That is for one text at a time. The texts of a batch share pages: `runtime.prefix_tree`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from lolama_core.model.device import memory_errors
from lolama_core.model.kv_cache import KVCache
from lolama_core.protocols import CausalLM
from lolama_core.protocols.errors import ResourceError, UsageError
from lolama_core.protocols.types import PromptKey
from lolama_core.runtime.prefix_tree import count_shared


@dataclass(frozen=True, eq=False)
class _Prefix:
    """A text that was run.

    Attributes:
        model: What ran it. A weak reference: a stored prefix keeps no model alive, and no later object in
            the same place of memory is taken for it.
        keys: One for each position.
        layers: Keys and values of each layer, (K, len(keys), head_dim) each.
        nbytes: Size of ``layers``.
    """

    model: weakref.ref[CausalLM]
    keys: tuple[PromptKey, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]
    nbytes: int


class PrefixCache:
    """Remembers what models have read, up to a number of bytes.

    Attention looks back only, so the keys and values of a position depend on nothing behind it: a text that
    begins like an earlier one may begin with a copy of them. The next turn of a conversation, or another
    question after the same long instructions, then costs no more than what is new in it. The results are
    those of running everything, to the rounding of float32 (1e-5 on logits).

    Texts are compared by `Prompt.keys`, never by ids alone, since different pictures have the same ids; and
    only texts of the same model match, as it is: `TextGenerator` sees that one has changed (see `runner_of`),
    unless by writes through ``tensor.data``; call `clear` after those. One cache may serve several models.
    Under dynamic RoPE a position does depend on what follows, and such texts are not kept.

    What was not used for longest is dropped first. Use it from one thread.

    Args:
        max_bytes: The most bytes of keys and values. A text that alone needs more is not kept.

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

    # The list is replaced and never changed: a stream that somebody dropped stores when Python collects it,
    # which may be in the middle of any line here.

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise UsageError("max_bytes", f"is {max_bytes}", "give a number of bytes, 0 or more")
        self.max_bytes = max_bytes
        self._prefixes: list[_Prefix] = []  # the one used last comes last

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values held. (The keys they are matched by are small beside them.)"""
        return sum(prefix.nbytes for prefix in self._prefixes)

    def __len__(self) -> int:
        """Number of texts held."""
        return len(self._prefixes)

    def clear(self) -> None:
        """Forget everything."""
        self._prefixes = []

    @torch.inference_mode()
    def restore(self, model: CausalLM, keys: Sequence[PromptKey], cache: KVCache) -> int:
        """Fill the beginning of a row with what is known of a prompt.

        Args:
            model: What is going to run the prompt.
            keys: The keys of its positions. The last is never restored: a model has to run it for its logits.
            cache: One empty row, with room for the prompt.

        Returns:
            How many positions ``cache`` now holds; run those that follow.
        """
        assert cache.lengths == (0,)
        wanted = keys[:-1]
        found = [
            (count_shared(prefix.keys, wanted), prefix)
            for prefix in self._prefixes
            if prefix.model() is model
        ]
        length, best = max(found, key=lambda pair: pair[0], default=(0, None))
        if best is None or length == 0:
            return 0
        self._use(best)
        slots = cache.reserve([length], length)
        for layer, pair in enumerate(best.layers):
            k, v = (stored[None, :, :length] for stored in pair)  # (1, K, length, head_dim)
            cache.update(layer, k, v, slots)
        cache.advance([length])
        return length

    @torch.inference_mode()
    def store(self, model: CausalLM, keys: Sequence[PromptKey], cache: KVCache) -> None:
        """Remember a copy of the one row of ``cache``, cut to its length.

        A text that is the beginning of another is held once, as part of the longer one.

        Args:
            model: What ran it.
            keys: The keys of its positions; those past the length of the row are not looked at.
            cache: One row.
        """
        [length] = cache.lengths
        assert len(keys) >= length
        if length == 0 or not cache.stable:
            return
        own = tuple(keys[:length])
        for prefix in self._prefixes:
            if prefix.model() is model and prefix.keys[:length] == own:
                self._use(prefix)
                return
        layers = cache.read_row(0)
        needed = sum(tensor.nbytes for pair in layers for tensor in pair)
        if needed > self.max_bytes:
            return
        others = [
            prefix
            for prefix in self._prefixes
            if (owner := prefix.model()) is not None
            and (owner is not model or own[: len(prefix.keys)] != prefix.keys)
        ]
        # Room first and then the copy, or both would take memory for a moment.
        self._prefixes = _newest(others, self.max_bytes - needed)
        copies = tuple((k.clone(), v.clone()) for k, v in layers)
        added = _Prefix(weakref.ref(model), own, copies, needed)
        self._prefixes = _newest([*self._prefixes, added], self.max_bytes)

    @contextmanager
    def keeping(self, model: CausalLM, keys: Sequence[PromptKey], cache: KVCache) -> Iterator[None]:
        """`store` what the block has run, whether it ends by itself or is broken off.

        Not if it fails, since keys and values behind logits that are not finite may be no better.
        """
        failed = False
        try:
            yield
        except Exception:
            failed = True
            raise
        finally:
            if not failed:
                # Without memory for a copy it is not kept, which is no reason to fail.
                with suppress(ResourceError), memory_errors(model.device):
                    self.store(model, keys, cache)

    def _use(self, prefix: _Prefix) -> None:
        """Make it the one to be dropped last."""
        self._prefixes = [other for other in self._prefixes if other is not prefix] + [prefix]


def _newest(prefixes: list[_Prefix], max_bytes: int) -> list[_Prefix]:
    """``prefixes`` that fit into ``max_bytes``: the first are left out until they do."""
    excess = sum(prefix.nbytes for prefix in prefixes) - max_bytes
    first = 0
    while excess > 0:
        excess -= prefixes[first].nbytes
        first += 1
    return prefixes[first:]
