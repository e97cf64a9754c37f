"""The shape of a LLaMA-family model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lolama_core.model.config_checks import PACKAGE, checked
from lolama_core.model.rope_scaling import RopeScaling
from lolama_core.model.switches import Switches, written
from lolama_core.protocols.checks import from_mapping
from lolama_core.protocols.types import JSON


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(Switches):
    """Sizes and switches of a LLaMA-family decoder; the defaults are LLaMA 1's.

    `Switches` has those that only descendants of LLaMA use.

    Args:
        vocab_size: Tokens V.
        d_model: Width D of the residual stream.
        num_heads: Query heads H.
        num_kv_heads: Key/value heads K; H is a multiple of it. None: one for each query head.
        num_layers: Transformer blocks.
        hidden_dim: Inner width of the feed-forward network.
        max_seq_len: Positions the model can attend over.
        rope_base: θ of the rotary embedding.
        eps: Added to the mean square inside RMSNorm.
        tie_word_embeddings: ``lm_head`` is ``embed_tokens``.
        head_dim: Width of one head, even. None: d_model / num_heads.
        attention_bias: Biases on q, k, v and o; ``"qkv"`` leaves o without one (Qwen2).
        mlp_bias: Biases in the feed-forward network.
        sliding_window: A query sees this many positions, its own included. None: all before it.
        rope_scaling: Stretching of the rotary frequencies (a `RopeScaling` or its fields as a mapping).

    Raises:
        ModelError: naming the field, its value and what was expected.
    """

    vocab_size: int
    d_model: int
    num_heads: int
    num_kv_heads: int = None  # type: ignore[assignment]  # resolved to an int below
    num_layers: int
    hidden_dim: int
    max_seq_len: int = 2048
    rope_base: float = 10000.0
    eps: float = 1e-5
    tie_word_embeddings: bool = False
    head_dim: int = None  # type: ignore[assignment]  # resolved to an int below
    attention_bias: bool | Literal["qkv"] = False
    mlp_bias: bool = False
    sliding_window: int | None = None
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        for name, value in checked(vars(self)).items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_json(cls, values: Mapping[str, JSON]) -> LlamaConfig:
        """Read the ``model`` block of a canonical configuration.

        Raises:
            ModelError: for a missing or unknown field, or a value that `LlamaConfig` refuses.
        """
        return from_mapping(cls, values, "model", PACKAGE)

    def to_json(self) -> dict[str, JSON]:
        """The ``model`` block that `from_json` reads."""
        return written(self)
