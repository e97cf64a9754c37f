"""LLaMA on one page, as the papers have it: float32, one text, no cache, no kernel, no batch.

    python -m lolama_core.reference "Once upon a time"

Read this first. Every faster way in lolama gives the same numbers, and the tests compare it with this one.
A model here is a mapping from names to tensors; nothing is hidden in classes.

Legend: T positions, D width of the model, H query heads, K key/value heads, hd width of a head, V vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from lolama_core.model.config import LlamaConfig
from lolama_core.model.rope_frequencies import inverse_frequencies

Weights: TypeAlias = Mapping[str, Tensor]
"""Name → tensor, as ``model.state_dict()`` has them."""


def logits(weights: Weights, config: LlamaConfig, ids: Sequence[int]) -> Tensor:
    """T token ids → (T, V): row t is the score of each token to come after token t (Touvron et al. 2023)."""
    return forward(weights, config, weights["embed_tokens.weight"].float()[list(ids)])


def forward(weights: Weights, config: LlamaConfig, x: Tensor) -> Tensor:
    """The embeddings (T, D) of a text, or of a picture and a text → logits (T, V)."""
    cos, sin = angles(config, len(x))
    for layer in range(config.num_layers):
        block = f"layers.{layer}"
        normed = rms_norm(x, weights[f"{block}.attention_norm.weight"], config.eps)
        x = x + attention(weights, f"{block}.attention", config, normed, cos, sin)
        normed = rms_norm(x, weights[f"{block}.ffn_norm.weight"], config.eps)
        x = x + feed_forward(weights, f"{block}.feed_forward", normed)
    return linear(weights, "lm_head", rms_norm(x, weights["norm.weight"], config.eps))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide (T, D) by its root mean square, then scale each dimension (Zhang & Sennrich 2019)."""
    mean_square = x.pow(2).mean(dim=-1, keepdim=True)
    return x / (mean_square + eps).sqrt() * weight.float()


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    """(T, inputs) → (T, outputs), by a weight (outputs, inputs) and a bias (outputs,) if there is one."""
    y = x @ weights[f"{name}.weight"].float().T
    bias = weights.get(f"{name}.bias")
    return y if bias is None else y + bias.float()


def angles(config: LlamaConfig, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin, (T, hd / 2), of the angle by which each position turns each pair (Su et al. 2021).

    Pair i turns by base^(-2i / hd) radians a position. Models of long contexts turn more slowly;
    rope_frequencies.py says how.
    """
    frequencies, factor = inverse_frequencies(
        config.head_dim, config.rope_base, config.rope_scaling, length
    )
    angle = torch.arange(length)[:, None] * frequencies
    return angle.cos() * factor, angle.sin() * factor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs of (T, heads, hd). Dimension i makes a pair with dimension i + hd / 2."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]  # every head alike
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attention(
    weights: Weights, name: str, config: LlamaConfig, x: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """softmax(q kᵀ / √hd) v, head by head: (T, D) → (T, D) (Vaswani et al. 2017).

    H / K query heads share a head of keys and values (Ainslie et al. 2023).
    """
    length = len(x)
    queries = linear(weights, f"{name}.q_proj", x).view(length, config.num_heads, -1)
    keys = linear(weights, f"{name}.k_proj", x).view(length, config.num_kv_heads, -1)
    values = linear(weights, f"{name}.v_proj", x).view(length, config.num_kv_heads, -1)
    queries, keys = rotate(queries, cos, sin), rotate(keys, cos, sin)
    hidden = ~visible(length, config.sliding_window)
    attended = []
    for head in range(config.num_heads):
        shared = head * config.num_kv_heads // config.num_heads
        scores = queries[:, head] @ keys[:, shared].T / config.head_dim**0.5  # (T, T)
        scores = scores.masked_fill(hidden, float("-inf"))
        attended.append(scores.softmax(dim=-1) @ values[:, shared])  # (T, hd)
    return linear(weights, f"{name}.o_proj", torch.cat(attended, dim=-1))


def visible(length: int, window: int | None) -> Tensor:
    """(T, T), True where the position of the row sees that of the column: itself and those before it.

    A window lets it see that many of them, itself included (Jiang et al. 2023).
    """
    distance = torch.arange(length)[:, None] - torch.arange(length)
    return (distance >= 0) & (distance < (window or length))


def feed_forward(weights: Weights, name: str, x: Tensor) -> Tensor:
    """SwiGLU: (T, D) → (T, D) (Shazeer 2020)."""
    gate = F.silu(linear(weights, f"{name}.w_gate", x))
    return linear(weights, f"{name}.w_down", gate * linear(weights, f"{name}.w_up", x))


def greedy(
    weights: Weights, config: LlamaConfig, ids: Sequence[int], eos_ids: Collection[int] = ()
) -> Iterator[int]:
    """Continue a text by the most likely token, again and again, until it ends or the context is full."""
    ids = list(ids)
    while len(ids) < config.max_seq_len:
        token_id = int(logits(weights, config, ids)[-1].argmax())
        if token_id in eos_ids:
            return
        yield token_id
        ids.append(token_id)


def main() -> None:
    """Continue the text of the command line with the built-in model."""
    from lolama_core import load

    model, tokenizer = load("demo", device="cpu", dtype="float32")
    ids = tokenizer.encode_ids(" ".join(sys.argv[1:]) or "Once upon a time")
    continued = greedy(model.state_dict(), model.config, ids, tokenizer.eos_ids)
    print(tokenizer.decode([*ids, *continued]))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
