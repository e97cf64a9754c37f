"""The shape of a LLaMA-family model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from lolama_core.model.rope_scaling import LONGEST, RopeScaling
from lolama_core.protocols.checks import (
    check_boolean,
    check_integer,
    check_number,
    from_mapping,
    refused,
)
from lolama_core.protocols.types import JSON

_PACKAGE = "lolama-core"

# Far above any published model, far below what would hang or exhaust a machine before it is refused.
_LIMITS = {
    "vocab_size": 1 << 22,
    "d_model": 1 << 17,
    "num_heads": 1 << 12,
    "num_kv_heads": 1 << 12,
    "num_layers": 1 << 10,
    "hidden_dim": 1 << 20,
    "max_seq_len": LONGEST,
    "head_dim": 1 << 12,
    "sliding_window": 1 << 40,
}


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Sizes and switches of a LLaMA-family decoder; the defaults are LLaMA 1's.

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
        for name in (
            "vocab_size",
            "d_model",
            "num_heads",
            "num_layers",
            "hidden_dim",
            "max_seq_len",
        ):
            check_integer(name, getattr(self, name), _LIMITS[name])
        if self.num_kv_heads is None:
            object.__setattr__(self, "num_kv_heads", self.num_heads)
        check_integer("num_kv_heads", self.num_kv_heads, _LIMITS["num_kv_heads"])
        if self.num_heads % self.num_kv_heads:
            raise refused(
                "num_kv_heads", self.num_kv_heads, f"a divisor of num_heads ({self.num_heads})"
            )
        if self.head_dim is None:
            if self.d_model % self.num_heads:
                raise refused("num_heads", self.num_heads, f"a divisor of d_model ({self.d_model})")
            object.__setattr__(self, "head_dim", self.d_model // self.num_heads)
        if check_integer("head_dim", self.head_dim, _LIMITS["head_dim"]) % 2:
            raise refused("head_dim", self.head_dim, "an even number, for rotary pairs")
        if self.sliding_window is not None:
            check_integer("sliding_window", self.sliding_window, _LIMITS["sliding_window"])
        check_number("rope_base", self.rope_base, 1.0, 1e12)
        check_number("eps", self.eps, 0.0, 1.0)
        for name in ("tie_word_embeddings", "mlp_bias"):
            check_boolean(name, getattr(self, name))
        if self.attention_bias not in (True, False, "qkv") or isinstance(
            self.attention_bias, int
        ) != isinstance(self.attention_bias, bool):
            raise refused("attention_bias", self.attention_bias, 'true, false or "qkv"')
        if isinstance(self.rope_scaling, Mapping):
            scaling = from_mapping(RopeScaling, self.rope_scaling, "rope_scaling", _PACKAGE)
            object.__setattr__(self, "rope_scaling", scaling)
        if self.rope_scaling is not None and not isinstance(self.rope_scaling, RopeScaling):
            raise refused("rope_scaling", self.rope_scaling, "an object or null")
        # With base 1 all pairs turn alike, and yarn divides by the logarithm of the base.
        if self.rope_scaling and self.rope_scaling.type == "yarn" and self.rope_base <= 1:
            raise refused("rope_base", self.rope_base, "a number above 1, with yarn")

    @classmethod
    def from_json(cls, values: Mapping[str, JSON]) -> LlamaConfig:
        """Read the ``model`` block of a canonical configuration.

        Raises:
            ModelError: for a missing or unknown field, or a value that `LlamaConfig` refuses.
        """
        return from_mapping(cls, values, "model", _PACKAGE)

    def to_json(self) -> dict[str, JSON]:
        """The ``model`` block that `from_json` reads."""
        return asdict(self)
