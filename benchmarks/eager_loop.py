"""The control: a LLaMA in plain eager PyTorch, as anyone would write it in an afternoon.

No classes of layers, no preallocated cache, no kernels: weights in the dtype of the file, torch's own
operators, keys and values grown by ``torch.cat``. What lolama's care is worth shows beside it.
Legend: B batch, T new positions, S positions so far, D model width, H heads, K key/value heads, V vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F


class EagerLoop:
    """The model in a Hugging Face folder, with a cache of its own.

    Attributes:
        cache: Keys and values (B, K, S, head_dim) of each layer; empty before a prompt.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        weights = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.kv_heads: int = config["num_key_value_heads"]
        self.head_dim: int = config["hidden_size"] // self.heads
        self.eps: float = config["rms_norm_eps"]
        self.embedding = weights["model.embed_tokens.weight"]
        self.norm = weights["model.norm.weight"]
        self.lm_head = weights.get("lm_head.weight", self.embedding)
        self.blocks: list[dict[str, Tensor]] = [{} for _ in range(self.layers)]
        for name, tensor in weights.items():
            if name.startswith("model.layers."):
                _, _, layer, part = name.removesuffix(".weight").split(".", 3)
                self.blocks[int(layer)][part] = tensor
        exponents = torch.arange(0, self.head_dim, 2) / self.head_dim
        angles = torch.outer(
            torch.arange(config["max_position_embeddings"]), config["rope_theta"] ** -exponents
        )
        # (S, head_dim), both halves alike: Hugging Face pairs dimension i with i + head_dim / 2.
        self.cos = torch.cat([angles, angles], -1).cos().to(self.embedding.dtype)
        self.sin = torch.cat([angles, angles], -1).sin().to(self.embedding.dtype)
        self.cache: list[tuple[Tensor, Tensor]] = []

    def __call__(self, ids: Tensor) -> Tensor:
        """(B, T) ids that follow the cache → logits (B, V) of the last position."""
        new = ids.shape[1]
        past = self.cache[0][0].shape[2] if self.cache else 0
        cos, sin = self.cos[past : past + new], self.sin[past : past + new]
        x = F.embedding(ids, self.embedding)  # (B, T, D)
        for layer, weight in enumerate(self.blocks):
            h = self._norm(x, weight["input_layernorm"])
            q = _rotate(self._heads(F.linear(h, weight["self_attn.q_proj"])), cos, sin)
            k = _rotate(self._heads(F.linear(h, weight["self_attn.k_proj"])), cos, sin)
            v = self._heads(F.linear(h, weight["self_attn.v_proj"]))
            if past:
                old_k, old_v = self.cache[layer]
                k, v = torch.cat([old_k, k], 2), torch.cat([old_v, v], 2)
            self.cache[layer : layer + 1] = [(k, v)]
            y = F.scaled_dot_product_attention(
                q, k, v, is_causal=new > 1, enable_gqa=self.kv_heads != self.heads
            )
            x = x + F.linear(y.transpose(1, 2).flatten(2), weight["self_attn.o_proj"])
            h = self._norm(x, weight["post_attention_layernorm"])
            gate = F.silu(F.linear(h, weight["mlp.gate_proj"]))
            x = x + F.linear(gate * F.linear(h, weight["mlp.up_proj"]), weight["mlp.down_proj"])
        last = self._norm(x[:, -1], self.norm)
        return F.linear(last, self.lm_head)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, heads · head_dim) → (B, heads, T, head_dim)."""
        return x.view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, heads, T, head_dim) turned by the angles of its positions."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
