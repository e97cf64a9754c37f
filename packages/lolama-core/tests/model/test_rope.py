from __future__ import annotations

import math

import pytest
import torch

from lolama_core import LlamaConfig, RopeScaling
from lolama_core.model.rope import RotaryEmbedding, rotate
from lolama_core.model.rope_frequencies import inverse_frequencies


def test_default_frequencies_follow_the_paper() -> None:
    frequencies, factor = inverse_frequencies(8, 10000.0, None)
    assert factor == 1.0
    assert frequencies.tolist() == pytest.approx([1, 0.1, 0.01, 0.001])


def test_linear_divides() -> None:
    scaling = RopeScaling(type="linear", factor=4.0, original_max_seq_len=2048)
    frequencies, _ = inverse_frequencies(8, 10000.0, scaling)
    assert frequencies.tolist() == pytest.approx([0.25, 0.025, 0.0025, 0.00025])


def test_llama3_has_the_published_numbers() -> None:
    scaling = RopeScaling(type="llama3", factor=8.0, original_max_seq_len=8192)
    frequencies, factor = inverse_frequencies(128, 5e5, scaling)
    assert factor == 1.0
    assert frequencies[30].item() == pytest.approx(1.371893683e-3, rel=1e-6)
    assert frequencies[34].item() == pytest.approx(1.785077911e-4, rel=1e-6)
    assert frequencies[63].item() == pytest.approx(3.068925878e-7, rel=1e-6)
    assert frequencies[0].item() == 1.0


def test_dynamic_depends_on_the_length() -> None:
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=16)
    plain, _ = inverse_frequencies(8, 10000.0, None)
    short, _ = inverse_frequencies(8, 10000.0, scaling, seq_len=16)
    assert torch.equal(short, plain)
    long, _ = inverse_frequencies(8, 10000.0, scaling, seq_len=40)
    base = 10000 * (2 * 40 / 16 - 1) ** (8 / 6)
    assert long.tolist() == pytest.approx([base ** -(i / 8) for i in (0, 2, 4, 6)])


def test_yarn_keeps_fast_pairs_and_divides_slow_ones() -> None:
    scaling = RopeScaling(type="yarn", factor=16.0, original_max_seq_len=4096)
    plain, _ = inverse_frequencies(128, 10000.0, None)
    frequencies, factor = inverse_frequencies(128, 10000.0, scaling)
    assert factor == pytest.approx(0.1 * math.log(16) + 1)
    assert torch.equal(frequencies[:20], plain[:20])
    torch.testing.assert_close(frequencies[-10:], plain[-10:] / 16)


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    config = LlamaConfig(vocab_size=8, d_model=32, num_heads=2, num_layers=1, hidden_dim=8)
    rope = RotaryEmbedding(config)
    torch.manual_seed(0)
    query, key = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(query_at: int, key_at: int) -> float:
        turned = [
            rotate(x, *rope(torch.tensor([[at]]), (at + 1,)))
            for x, at in ((query, query_at), (key, key_at))
        ]
        assert turned[0].norm().item() == pytest.approx(query.norm().item(), rel=1e-5)
        return float((turned[0] * turned[1]).sum())

    assert score(3, 1) == pytest.approx(score(103, 101), abs=1e-4)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-3)


def test_position_zero_is_not_turned() -> None:
    config = LlamaConfig(vocab_size=8, d_model=8, num_heads=1, num_layers=1, hidden_dim=8)
    x = torch.randn(1, 1, 1, 8)
    assert torch.equal(rotate(x, *RotaryEmbedding(config)(torch.tensor([[0]]), (1,))), x)


def test_rows_of_a_batch_have_their_own_dynamic_base() -> None:
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=16)
    config = LlamaConfig(
        vocab_size=8, d_model=16, num_heads=1, num_layers=1, hidden_dim=8, rope_scaling=scaling
    )
    rope = RotaryEmbedding(config)
    positions = torch.tensor([[10], [10]])
    cos, _ = rope(positions, (11, 40))
    alone, _ = rope(positions[:1], (40,))
    assert torch.equal(cos[1], alone[0])
    assert not torch.allclose(cos[0], cos[1])
