"""How a model is run: each block by the fastest way that knows it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from lolama_core.model.block import Block
from lolama_core.model.cache_slots import Slots, last_positions, reserve
from lolama_core.model.dynamic_rope import DynamicCache
from lolama_core.model.kv_cache import KVCache
from lolama_core.model.linear import OutputProjection
from lolama_core.model.llama import Llama
from lolama_core.protocols import CacheSlots, CausalLM
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.protocols.look import Look
from lolama_core.protocols.types import Prompt, Spans
from lolama_core.runtime.angles import AnglesAhead
from lolama_core.runtime.fast_products import FastProducts
from lolama_core.runtime.kernels import Kernels, given_kernels, kernels_of
from lolama_core.runtime.known import is_plain_head, text_model
from lolama_core.runtime.last_block import run_last_block
from lolama_core.runtime.native_step import native_runs
from lolama_core.runtime.paged_cache import PagedCache


class Runner:
    """Runs a model without gradients: a `CausalLM` of the same numbers, to the rounding of float32.

    It is made from the model as it is; `runner_of` looks whether that has changed. Kernels read weights where
    they are, so it keeps their memory as long as it is kept itself; see `forget`.

    A block runs by the first of three ways that knows it: a native step over it and its neighbors; its own
    forward, with its products taken by kernels; its own forward alone.

    Args:
        model: What it runs. It does not keep it alive.
        kernels: What makes it fast.

    Attributes:
        look: The look of the model when this was made.
        products: Which weights kernels multiply with.
        native: First block of a run → the run.
        reasons: Block → why it is in no run.
        fixed_order: Whether a position has the same logits, bit for bit, whatever runs beside it.
    """

    def __init__(self, model: CausalLM, kernels: Kernels) -> None:
        modules = [model] if isinstance(model, nn.Module) else []
        text = text_model(model)
        self._model = weakref.ref(model)
        self._text = None if text is None else weakref.ref(text)
        self.look, self.generation_defaults = Look(*modules), model.generation_defaults
        self.products = FastProducts(modules, kernels.linear)
        # Inside `products` torch calls it for each function, which would only take time without a kernel.
        self._fast = self.products if kernels.linear else nullcontext()
        self._plain_head = text is not None and is_plain_head(text.lm_head)
        self._angles = AnglesAhead(text)
        blocks = [] if text is None else list(text.layers)
        self.native, self._checked, self.reasons = native_runs(blocks, kernels.decoder)
        # Logits are taken in a fixed order where the blocks are.
        steps = [run.step for run in self.native.values()]
        fixed = not self.reasons and all(step.fixed_order for step in steps)
        self.fixed_order = fixed and self._plain_head

    @property
    def text(self) -> Llama | None:
        """The decoder whose blocks it runs; None for a model that runs itself."""
        return None if self._text is None else self._text()

    @property
    def model(self) -> CausalLM:
        """What it runs."""
        model = self._model()
        assert model is not None, "whoever runs a model holds it"
        return model

    @property
    def max_seq_len(self) -> int:
        """Positions the model can attend over."""
        return self.model.max_seq_len

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: each token id is below it."""
        return self.model.vocab_size

    @property
    def device(self) -> torch.device:
        """Where inputs must be."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """How the weights are stored."""
        return self.model.dtype

    def skips_padding(self, cache_dtype: torch.dtype) -> bool:
        """Whether native steps run every block, and leave out what only fills rows up to the longest."""
        text = self.text
        return text is not None and len(text.layers) == sum(
            len(run.layers) for run in self.native.values() if cache_dtype in run.step.prompt_dtypes
        )

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The weights of the model."""
        return self.model.parameters(recurse)

    def make_cache(self, batch_size: int, capacity: int) -> KVCacheProtocol:
        """An empty cache of the model."""
        return self.model.make_cache(batch_size, capacity)

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, T) token ids → (B, T, D)."""
        return self.model.embed(input_ids)

    def embed_prompt(self, input_ids: Tensor, lengths: Sequence[int], **inputs: Any) -> Prompt:
        """As the model's; what encodes pictures runs by fast products."""
        with self._fast:
            return self.model.embed_prompt(input_ids, lengths, **inputs)

    def forward_embeds(
        self,
        embeds: Tensor,
        cache: KVCacheProtocol | None = None,
        lengths: Sequence[int] | None = None,
        logits: Literal["last", "all"] = "last",
        spans: Spans = (),
    ) -> Tensor:
        """(B, T, D) → float32 logits (B, V) or (B, T, V); see `CausalLM.forward_embeds`.

        With gradients it is the model's own, without any kernel.
        """
        text, more = self.text, {"spans": spans} if spans else {}
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.model.forward_embeds(embeds, cache, lengths, logits, **more)
        if text is None:
            with self._fast:
                return self.model.forward_embeds(embeds, cache, lengths, logits, **more)
        slots = reserve(embeds, cache, lengths, spans)
        if isinstance(cache, DynamicCache):
            hidden = cache.run(partial(self._run_blocks, text), embeds, slots)
            hidden = last_positions(hidden, slots) if logits == "last" else hidden
        else:
            hidden = self._run_blocks(text, embeds, slots, cache, only_last=logits == "last")
            if logits == "all" and isinstance(slots, Slots) and min(slots.counts) < slots.width:
                real = slots.scatter[:2]  # padding would cost as much as positions do
                found = self._head(text, hidden[real])
                padded = found.new_zeros(*hidden.shape[:2], found.shape[-1])
                return padded.index_put_(real, found)
        return self._head(text, hidden)

    def _head(self, text: Llama, hidden: Tensor) -> Tensor:
        """(..., D) → float32 logits (..., V)."""
        if self._plain_head:  # entering `products` takes as long as a tenth of a small model's step
            return text.head(hidden, partial(self._project, text.lm_head))
        with self._fast:
            return text.head(hidden, text.lm_head)

    def _project(self, head: OutputProjection, normed: Tensor) -> Tensor:
        found = self.products.logits(normed, head.weight, head.bias, fixed=self.fixed_order)
        output: Tensor = head(normed) if found is NotImplemented else found
        return output

    def _run_blocks(
        self,
        text: Llama,
        x: Tensor,
        slots: CacheSlots,
        cache: KVCacheProtocol | None,
        *,
        only_last: bool = False,
    ) -> Tensor:
        """(B, T, D) → (B, T, D), or with ``only_last`` the last real position of each row (B, D)."""
        angles = self._angles.of(text, slots)
        plan, place, end = None, 0, len(text.layers)
        while place < end:
            native = self.native.get(place)
            if native is not None and native.takes(x, slots, cache):
                place += len(native.layers)
                shortened = only_last and place == end
                paged = cast(KVCache | PagedCache, cache)
                x = native.run(x, angles, text.kinds, slots, paged, shortened)
                if shortened:
                    return x
                continue
            # Native runs need no mask, which may take much memory for rows of different lengths.
            plan = plan or text.plan(x, slots, cache, angles)
            block = text.layers[place]
            with self._fast:
                shortens = only_last and place == end - 1 and x.shape[1] > 1
                if shortens and place in self._checked and cache is not None:
                    return run_last_block(text, cast(Block, block), x, plan, slots, cache)[:, 0]
                x = block(x, plan, cache)
            place += 1
        return last_positions(x, slots) if only_last else x


_Kept: TypeAlias = tuple[Runner, Kernels | None]
_runners: weakref.WeakKeyDictionary[nn.Module, _Kept] = weakref.WeakKeyDictionary()


def runner_of(model: CausalLM) -> CausalLM:
    """How ``model`` is run, as it is now: a kept `Runner` if it is still the same, else a new one.

    A look takes a quarter of a millisecond for 5 layers and a whole one for 22, so it is taken when a text
    begins, not at each token. A model that is no module of torch runs as it is.

    Raises:
        NotAvailableError: if an installed kernel cannot be loaded.
    """
    if not isinstance(model, nn.Module):
        return model
    given = given_kernels(model)
    kept, made_for = _runners.get(model, (None, None))
    same = kept is not None and made_for is given and kept.text is text_model(model)
    if kept is None or not same or kept.look != Look(model):
        forget(model)  # its weights may go before more is asked for
        kept = Runner(model, kernels_of(model))
        _runners[model] = kept, given
    return kept


def forget(model: CausalLM) -> None:
    """Let go of what was derived from ``model``, and of the weights that it had then."""
    if isinstance(model, nn.Module):
        _runners.pop(model, None)
