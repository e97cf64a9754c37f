"""The LLaMA decoder: embeddings, blocks, final norm, output projection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core.attention import AttentionPlan, LastPositions, plan_mask
from lolama_core.block import Block
from lolama_core.cache_slots import FixedSlots, Slots
from lolama_core.config import LlamaConfig
from lolama_core.decode import BoundStep, bind, decoder_kernels
from lolama_core.device import activation_dtype
from lolama_core.kv_cache import KVCache
from lolama_core.linear import FEW_ROWS, Linear, OutputProjection, processor_multiplies
from lolama_core.norm import RMSNorm
from lolama_core.protocols import CacheSlots, DecoderKernel
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.protocols.causal_module import CausalLMModule
from lolama_core.protocols.decoder_kernel import DecoderShape
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import GenerationDefaults, ImageInputs, Prompt
from lolama_core.rope import RotaryEmbedding


class Llama(CausalLMModule):
    """A LLaMA-family decoder (Touvron et al. 2023), also of Mistral and Qwen2 shape.

    ``Llama(config)`` is randomly initialized and trainable; `lolama_core.load` fills it with weights.
    Legend: B batch, T positions, D model width, V vocabulary.
    """

    layers: nn.ModuleList

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.generation_defaults = GenerationDefaults()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.d_model, config.eps)
        self.lm_head = OutputProjection(config.d_model, config.vocab_size, bias=False)
        self.rope = RotaryEmbedding(config)
        self.decode_step: BoundStep | None = None
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    @property
    def max_seq_len(self) -> int:
        """Positions the model can attend over."""
        return self.config.max_seq_len

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: each token id is below it."""
        return self.config.vocab_size

    @property
    def device(self) -> torch.device:
        """Where inputs must be."""
        return self.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """How the weights are stored."""
        return self.embed_tokens.weight.dtype

    def forward(
        self,
        input_ids: Tensor,
        cache: KVCacheProtocol | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """(B, T) token ids → logits (B, T, V) float32 of all positions.

        With a cache, positions continue after what it holds; call ``cache.advance`` to keep them.
        """
        return self.forward_embeds(self.embed(input_ids), cache, lengths, logits="all")

    def use_kernels(self, kernels: Sequence[DecoderKernel]) -> None:
        """Let the first of ``kernels`` that can take these weights, as they are now, run decoding steps."""
        config = self.config
        shape = DecoderShape(
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            eps=config.eps,
        )
        self.decode_step = bind(self.layers, shape, kernels)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Llama:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if (
            self.decode_step is not None
        ):  # its weights have moved, perhaps to where another kernel runs
            self.use_kernels(decoder_kernels())
        return self

    def make_cache(self, batch_size: int, capacity: int) -> KVCache:
        """An empty cache of ``capacity`` positions a row.

        Raises:
            UsageError: for more positions than the model can attend over.
        """
        config = self.config
        if not 1 <= capacity <= config.max_seq_len:
            raise UsageError(
                "KV cache",
                f"{capacity} positions asked of a model that attends over {config.max_seq_len}",
                "shorten the text",
            )
        return KVCache(
            num_layers=config.num_layers,
            batch_size=batch_size,
            num_kv_heads=config.num_kv_heads,
            capacity=capacity,
            head_dim=config.head_dim,
            dtype=self.dtype,
            device=self.device,
            keep_inputs=config.d_model if self.rope.dynamic_beyond is not None else 0,
        )

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, T) token ids → (B, T, D) in the dtype that activations have on this device."""
        embeds: Tensor = self.embed_tokens(input_ids)
        return embeds.to(activation_dtype(self.device, self.dtype))

    def embed_prompt(self, input_ids: Tensor, lengths: Sequence[int], **inputs: Any) -> Prompt:
        """(B, T) right-padded ids → `Prompt`; a text model takes nothing beside them.

        Raises:
            UsageError: for any other input, such as ``pixel_values``.
        """
        for name in inputs:
            if name in ImageInputs.__annotations__:
                remedy = "pictures need a vision model such as llava-1.5-7b"
                raise UsageError(name, "is no input of a text model", remedy)
            reason = "is neither a generation setting nor an input of a text model"
            raise UsageError(name, reason, "check its spelling")
        keys = tuple(
            tuple(row[:length]) for row, length in zip(input_ids.tolist(), lengths, strict=True)
        )
        return Prompt(self.embed(input_ids), tuple(lengths), keys)

    def forward_embeds(
        self,
        embeds: Tensor,
        cache: KVCacheProtocol | None = None,
        lengths: Sequence[int] | None = None,
        logits: Literal["last", "all"] = "last",
    ) -> Tensor:
        """(B, T, D) → float32 logits of the last real position (B, V), or of all positions (B, T, V).

        Args:
            embeds: Rows right-padded to T.
            cache: Holds what came before; written to, not advanced.
            lengths: Real positions per row; None if all T are.
            logits: Computing ``all`` of a long prompt costs V · T numbers; generation wants the ``last``.
        """
        batch, width, _ = embeds.shape
        counts = tuple(lengths) if lengths is not None else (width,) * batch
        if cache is None:
            slots: CacheSlots = Slots((0,) * batch, counts, width, embeds.device)
        else:
            slots = cache.reserve(counts, width)
        if cache is not None and self.rope.dynamic_beyond is not None:
            hidden = self._continue_dynamic(embeds, cache, slots)
            if logits == "last":
                hidden = _take(hidden, slots)
        else:
            hidden = self._run_blocks(embeds, slots, cache, only_last=logits == "last")
        if logits == "last":
            hidden = hidden[:, -1]
        output: Tensor = self.lm_head(self.norm(hidden))
        return output.float()

    def _run_blocks(
        self,
        x: Tensor,
        slots: CacheSlots,
        cache: KVCacheProtocol | None,
        *,
        only_last: bool = False,
    ) -> Tensor:
        """(B, T, D) through all blocks; with ``only_last`` the last real position of each row (B, 1, D)."""
        width = x.shape[1]
        cos, sin = self.rope(slots.positions, slots.totals)
        step = self.decode_step
        if step is not None and step.takes(x, slots, cache):
            assert isinstance(slots, Slots | FixedSlots) and isinstance(cache, KVCache)
            return step.run(x, cos, sin, slots, cache, self.config.sliding_window, only_last)
        if isinstance(slots, FixedSlots):
            seen = slots.mask(self.config.sliding_window, self.dtype)
            return self._through_blocks(
                x, AttentionPlan(cos, sin, slots, 0, seen, False, x.dtype), cache
            )
        first_key, mask, causal = plan_mask(
            slots.starts, slots.totals, width, self.config.sliding_window, x.device
        )
        if cache is None and mask is not None:
            mask = F.pad(
                mask, (0, width - mask.shape[-1])
            )  # without a cache, keys are as wide as x
        written = slots if cache is not None else None
        # Many rows of bfloat16 are multiplied as such where the processor can (see `Linear`), so what is in
        # between need not be converted there and back. Few are not: memory bounds them, not arithmetic.
        many = x.shape[0] * width > FEW_ROWS
        dtype = torch.bfloat16 if many and self._multiplies_bfloat16() else x.dtype
        plan = AttentionPlan(cos, sin, written, first_key, mask, causal, dtype)
        if not only_last or width == 1:
            return self._through_blocks(x, plan, cache)
        if cache is None:
            return _take(self._through_blocks(x, plan, cache), slots)
        return self._through_blocks(x, plan, cache, self._plan_last(plan, slots))

    def _multiplies_bfloat16(self) -> bool:
        block = self.layers[0]
        assert isinstance(block, Block)
        linear: nn.Module = block.attention.q_proj  # of another kind in a quantized model
        is_bfloat16 = isinstance(linear, Linear) and linear.weight.dtype == torch.bfloat16
        return is_bfloat16 and processor_multiplies(torch.bfloat16)

    def _through_blocks(
        self,
        x: Tensor,
        plan: AttentionPlan,
        cache: KVCacheProtocol | None,
        last: LastPositions | None = None,
    ) -> Tensor:
        final = len(self.layers) - 1
        for layer, block in enumerate(self.layers):
            x = block(x, plan, cache, last if layer == final else None)
        return x

    def _plan_last(self, plan: AttentionPlan, slots: CacheSlots) -> LastPositions:
        """What the last block of a prompt runs for: the next token needs one position of each row."""
        window, device = self.config.sliding_window, plan.cos.device
        columns = torch.tensor([count - 1 for count in slots.counts], device=device)
        rows = torch.arange(len(columns), device=device)
        first_key, mask, causal = plan_mask(
            tuple(max(total - 1, 0) for total in slots.totals), slots.totals, 1, window, device
        )
        return LastPositions(
            columns,
            replace(
                plan,
                cos=plan.cos[rows, :, columns][:, :, None],
                sin=plan.sin[rows, :, columns][:, :, None],
                first_key=first_key,
                mask=mask,
                causal=causal,
            ),
        )

    def _continue_dynamic(
        self, embeds: Tensor, cache: KVCacheProtocol, slots: CacheSlots
    ) -> Tensor:
        """Dynamic RoPE turns *every* position by a base that depends on the length of the whole row.

        Past the original length, keys computed earlier, and all that later layers made of them, are
        therefore wrong. The only exact continuation is to run the whole row again, from the input
        embeddings that the cache keeps.
        """
        assert isinstance(cache, KVCache)
        history = cache.remember_inputs(embeds, slots)  # (B, max(totals), D)
        limit = self.rope.dynamic_beyond
        assert limit is not None
        if max(slots.totals) <= limit and cache.is_written_before(slots):
            return self._run_blocks(embeds, slots, cache)
        batch = embeds.shape[0]
        whole = Slots((0,) * batch, slots.totals, history.shape[1], history.device)
        hidden = self._run_blocks(history.to(embeds.dtype), whole, None)
        # Row b's new positions end at its total; padding repeats the last one.
        columns = slots.positions.clamp(max=history.shape[1] - 1)
        return hidden[torch.arange(batch, device=hidden.device)[:, None], columns]


def _take(hidden: Tensor, slots: CacheSlots) -> Tensor:
    """(B, T, D) → the last real position of each row, (B, 1, D)."""
    columns = [count - 1 for count in slots.counts]
    return hidden[torch.arange(len(columns), device=hidden.device), columns][:, None]
