"""The models that are measured: shapes of real ones, random weights."""

from __future__ import annotations

from lolama_core import LlamaConfig

SHAPES: dict[str, LlamaConfig] = {
    "tinyllama": LlamaConfig(
        vocab_size=32000,
        d_model=2048,
        num_heads=32,
        num_kv_heads=4,
        num_layers=22,
        hidden_dim=5632,
        max_seq_len=32768 + 1024,
    ),
    "160m": LlamaConfig(
        vocab_size=32000,
        d_model=768,
        num_heads=12,
        num_kv_heads=12,
        num_layers=12,
        hidden_dim=3072,
        max_seq_len=8192 + 1024,
    ),
    "stories260k": LlamaConfig(
        vocab_size=512,
        d_model=64,
        num_heads=8,
        num_kv_heads=4,
        num_layers=5,
        hidden_dim=172,
        max_seq_len=512 + 1024,
        tie_word_embeddings=True,
    ),
}

# Steps of one measurement: few enough for a large model that a round stays short, and enough for a tiny one
# that they can be timed.
STEPS = {"tinyllama": 12, "160m": 30, "stories260k": 200}

# Where a second thread is no help to anybody. A peer left with two would be slower, not faster.
THREADS = {"stories260k": 1}


def weight_count(config: LlamaConfig) -> int:
    """Weights that one decoded token reads: all of them but the embedding, of which it reads a row."""
    attention = config.d_model * config.head_dim * 2 * (config.num_heads + config.num_kv_heads)
    block = attention + 3 * config.d_model * config.hidden_dim
    return config.num_layers * block + config.vocab_size * config.d_model


def cache_bytes(config: LlamaConfig, positions: int, item: int = 2) -> int:
    """Bytes of keys and values that attention over ``positions`` positions reads."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * positions * item
