"""The LLaMA decoder: embeddings, blocks, final norm, output projection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lolama_core.model.block import Block
from lolama_core.model.cache_slots import last_positions, reserve
from lolama_core.model.config import LlamaConfig
from lolama_core.model.device import activation_dtype
from lolama_core.model.dynamic_rope import DynamicCache, new_cache
from lolama_core.model.kv_cache import KVCache
from lolama_core.model.layer_kinds import Angles, config_of_layer, plan_kinds
from lolama_core.model.linear import OutputProjection
from lolama_core.model.masks import PassPlan
from lolama_core.model.norm import RMSNorm
from lolama_core.model.rope import RotaryEmbedding
from lolama_core.model.scaling import final_logits
from lolama_core.protocols import CacheSlots
from lolama_core.protocols import KVCache as KVCacheProtocol
from lolama_core.protocols.causal_module import CausalLMModule
from lolama_core.protocols.inputs import refuse_inputs
from lolama_core.protocols.quantizer import output_dtype
from lolama_core.protocols.types import GenerationDefaults, Prompt, Spans


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
        of_layers = [config_of_layer(config, layer) for layer in range(config.num_layers)]
        # One, but for models whose layers are not all alike.
        self.kinds = tuple(dict.fromkeys(of_layers))
        self.layers = nn.ModuleList(
            Block(own, layer, self.kinds.index(own)) for layer, own in enumerate(of_layers)
        )
        self.norm = RMSNorm(config.d_model, config.eps)
        self.lm_head = OutputProjection(config.d_model, config.vocab_size, bias=False)
        self.rope, *others = map(RotaryEmbedding, self.kinds)
        self.other_ropes = nn.ModuleList(others)
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
        """How the weights are stored; of quantized ones, how they were before."""
        return output_dtype(self.embed_tokens)

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

    def make_cache(self, batch_size: int, capacity: int) -> KVCache:
        """An empty cache of ``capacity`` positions a row.

        Raises:
            UsageError: for more positions than the model can attend over.
        """
        return new_cache(self.config, batch_size, capacity, self.dtype, self.device)

    def embed(self, input_ids: Tensor) -> Tensor:
        """(B, T) token ids → (B, T, D) in the dtype that activations have on this device."""
        embeds: Tensor = self.embed_tokens(input_ids)
        wide = embeds.to(activation_dtype(embeds.device, self.dtype))
        scale = self.config.embedding_scale
        # In the weights' dtype, as transformers does.
        return wide if scale is None else wide * embeds.new_full((), scale)

    def embed_prompt(self, input_ids: Tensor, lengths: Sequence[int], **inputs: Any) -> Prompt:
        """(B, T) right-padded ids → `Prompt`; a text model takes nothing beside them.

        Raises:
            UsageError: for any other input, such as ``pixel_values``.
        """
        refuse_inputs(inputs)
        rows = zip(input_ids.tolist(), lengths, strict=True)
        keys = tuple(tuple(row[:length]) for row, length in rows)
        return Prompt(self.embed(input_ids), tuple(lengths), keys)

    def forward_embeds(
        self,
        embeds: Tensor,
        cache: KVCacheProtocol | None = None,
        lengths: Sequence[int] | None = None,
        logits: Literal["last", "all"] = "last",
        spans: Spans = (),
    ) -> Tensor:
        """(B, T, D) → float32 logits of the last real position (B, V), or of all positions (B, T, V).

        Args:
            embeds: Rows right-padded to T.
            cache: Holds what came before; written to, not advanced.
            lengths: Real positions per row; None if all T are.
            logits: Computing ``all`` of a long prompt costs V · T numbers; generation wants the ``last``.
            spans: Runs of columns that see each other in both directions; see `Prompt`.
        """
        slots = reserve(embeds, cache, lengths, spans)
        if isinstance(cache, DynamicCache):
            hidden = cache.run(self.run_blocks, embeds, slots)
        else:
            hidden = self.run_blocks(embeds, slots, cache)
        if logits == "last":
            hidden = last_positions(hidden, slots)
        return self.head(hidden, self.lm_head)

    def run_blocks(self, x: Tensor, slots: CacheSlots, cache: KVCacheProtocol | None) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        plan = self.plan(x, slots, cache, self.angles(slots))
        for block in self.layers:
            x = block(x, plan, cache)
        return x

    def head(self, hidden: Tensor, project: Callable[[Tensor], Tensor]) -> Tensor:
        """(..., D) behind the blocks → float32 logits (..., V); ``project`` is ``lm_head``, or a kernel."""
        return final_logits(project(self.norm(hidden)).float(), self.config)

    def angles(self, slots: CacheSlots) -> Angles:
        """cos and sin of the new positions, (B or 1, 1, T, head_dim) each, for each kind of layer."""
        ropes = (self.rope, *self.other_ropes)
        return tuple(rope(slots.positions, slots.totals) for rope in ropes)

    def plan(
        self, x: Tensor, slots: CacheSlots, cache: KVCacheProtocol | None, angles: Angles
    ) -> PassPlan:
        """What all blocks share in a pass of (B, T, D); see `plan_pass`."""
        return plan_kinds(x, angles, slots, cache, self.kinds, self.layers)
