from __future__ import annotations

from typing import Any

import pytest
import torch

from lolama_core import Llama, LlamaConfig, LlamaFamily, RopeScaling
from lolama_core.model.attention import attend
from lolama_core.model.masks import plan_mask
from lolama_core.protocols import CausalLM, ModelFamily
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import Spans
from lolama_core.testing.model import CausalLMSuite, ModelFamilySuite

SMALL: dict[str, Any] = {
    "vocab_size": 67,
    "d_model": 32,
    "num_heads": 4,
    "num_layers": 2,
    "hidden_dim": 48,
    "max_seq_len": 64,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "mha": {},
    "gqa": {"num_kv_heads": 2},
    "mqa_tied": {"num_kv_heads": 1, "tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "qkv_bias_head_dim": {"attention_bias": "qkv", "head_dim": 12, "num_kv_heads": 2},
    "window": {"sliding_window": 3, "num_kv_heads": 2},
    "linear": {"rope_scaling": RopeScaling(type="linear", factor=2.0, original_max_seq_len=8)},
    "llama3": {"rope_scaling": RopeScaling(type="llama3", factor=8.0, original_max_seq_len=8)},
    "yarn": {"rope_scaling": RopeScaling(type="yarn", factor=4.0, original_max_seq_len=8)},
    "dynamic_within": {
        "rope_scaling": RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=32)
    },
}


def make_model(**changes: Any) -> Llama:
    torch.manual_seed(1)
    model = Llama(LlamaConfig(**{**SMALL, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Larger than a real initialization, and norms and biases too: differences must show.
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (1.0 if "norm" in name else 0.0))
    return model


class TestLlama(CausalLMSuite):
    @pytest.fixture(params=list(VARIANTS))
    def model(self, request: pytest.FixtureRequest) -> CausalLM:
        return make_model(**VARIANTS[request.param])


class TestLlamaFamily(ModelFamilySuite):
    @pytest.fixture
    def family(self) -> ModelFamily:
        return LlamaFamily()

    @pytest.fixture
    def config(self) -> dict[str, Any]:
        return LlamaConfig(**SMALL).to_json()


class TestDynamicRopePastTheOriginalLength:
    """The base depends on the row's total length, so "whole" means a pass over just that much."""

    @pytest.fixture
    def model(self) -> Llama:
        scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=8)
        return make_model(rope_scaling=scaling, num_kv_heads=2)

    @staticmethod
    def last(model: Llama, ids: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = model(ids)
            return logits[:, -1]

    @torch.inference_mode()
    @pytest.mark.parametrize("chunks", [[5, 9], [14], [1] * 14, [8, 1, 5], [3, 5, 6]])
    def test_every_step_equals_a_pass_over_the_whole(self, model: Llama, chunks: list[int]) -> None:
        ids = torch.randint(0, 67, (2, 14))
        cache, start = model.make_cache(2, 20), 0
        for width in chunks:
            logits = model.forward_embeds(model.embed(ids[:, start : start + width]), cache)
            cache.advance([width] * 2)
            start += width
            expected = self.last(model, ids[:, :start])
            torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)

    @torch.inference_mode()
    def test_rows_on_both_sides_of_the_border(self, model: Llama) -> None:
        ids, lengths = torch.randint(0, 67, (3, 12)), [12, 3, 8]
        cache = model.make_cache(3, 20)
        logits = model.forward_embeds(model.embed(ids), cache, lengths)
        cache.advance(lengths)
        following = torch.randint(0, 67, (3, 1))
        after = model.forward_embeds(model.embed(following), cache)
        for row, length in enumerate(lengths):
            alone = torch.cat((ids[row : row + 1, :length], following[row : row + 1]), 1)
            torch.testing.assert_close(
                logits[row], self.last(model, alone[:, :-1])[0], atol=1e-5, rtol=0
            )
            torch.testing.assert_close(after[row], self.last(model, alone)[0], atol=1e-5, rtol=0)

    @torch.inference_mode()
    def test_going_back_below_the_border(self, model: Llama) -> None:
        ids, cache = torch.randint(0, 67, (1, 14)), model.make_cache(1, 20)
        model.forward_embeds(model.embed(ids[:, :4]), cache)
        cache.advance([4])
        model.forward_embeds(model.embed(ids[:, 4:]), cache)
        cache.advance([10])
        cache.truncate([6])
        other = torch.randint(0, 67, (1, 1))
        logits = model.forward_embeds(model.embed(other), cache)
        expected = self.last(model, torch.cat((ids[:, :6], other), 1))
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_parameter_names_are_canonical() -> None:
    names = set(make_model(attention_bias=True, mlp_bias=True).state_dict())
    layer = {
        f"layers.0.{name}"
        for name in [
            *(f"attention.{p}_proj.{kind}" for p in "qkvo" for kind in ("weight", "bias")),
            *(
                f"feed_forward.w_{p}.{kind}"
                for p in ("gate", "up", "down")
                for kind in ("weight", "bias")
            ),
            "attention_norm.weight",
            "ffn_norm.weight",
        ]
    }
    assert {n for n in names if n.startswith("layers.0")} == layer
    outside = {n for n in names if not n.startswith("layers.")}
    assert outside == {"embed_tokens.weight", "norm.weight", "lm_head.weight"}


def test_tied_embeddings_are_one_parameter() -> None:
    model = make_model(tie_word_embeddings=True)
    assert model.lm_head.weight is model.embed_tokens.weight
    assert sum(p.numel() for p in model.parameters()) < sum(
        p.numel() for p in make_model().parameters()
    )


def test_it_can_be_trained() -> None:
    model = make_model()
    ids = torch.randint(0, 67, (2, 9))
    loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
    torch.autograd.backward(loss)
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())


def test_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="pixel_values"):
        make_model().embed_prompt(torch.tensor([[1]]), [1], pixel_values=torch.zeros(1))


def test_sixteen_bit_weights_keep_float32_activations_on_a_cpu() -> None:
    model, wide = make_model().to(torch.bfloat16), make_model()
    ids = torch.randint(0, 67, (1, 12))
    assert model.embed(ids).dtype == torch.float32
    logits = model(ids)
    assert logits.dtype == torch.float32
    # Logits are not rounded to bfloat16: that would leave at most 256 steps between powers of two.
    assert not torch.equal(logits, logits.bfloat16().float())
    error = (logits - wide(ids)).norm() / wide(ids).norm()
    assert error < 0.05


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize(
    ("starts", "counts"), [((0, 0), (5, 5)), ((0, 0), (5, 2)), ((4, 4), (1, 1)), ((6, 2), (3, 1))]
)
@pytest.mark.parametrize("spans", [(), (((0, 1),), ()), (((1, 3),), ((0, 1),)), (((0, 3),), ())])
def test_every_mask_equals_the_definition(
    window: int | None, starts: tuple[int, int], counts: tuple[int, int], spans: Spans
) -> None:
    """The cheap masks against attention written out: key k is seen iff q - W < k <= q.

    Within a span it is seen if it is ahead, too.
    """
    if any(stop > count for own, count in zip(spans, counts, strict=False) for _, stop in own):
        return
    torch.manual_seed(0)
    width = max(counts)
    totals = tuple(s + c for s, c in zip(starts, counts, strict=True))
    queries = torch.randn(2, 4, width, 8)
    keys, values = torch.randn(2, 2, max(totals), 8), torch.randn(2, 2, max(totals), 8)
    first, mask, causal = plan_mask(starts, totals, width, window, torch.device("cpu"), spans)
    fast = attend(queries, keys[:, :, first:], values[:, :, first:], mask, causal)
    for row in range(2):
        for t in range(counts[row]):
            at = starts[row] + t
            own = spans[row] if spans else ()
            last = max((stop - 1 for begin, stop in own if begin <= t < stop), default=t)
            seen = [k for k in range(starts[row] + last + 1) if window is None or k > at - window]
            for head in range(4):
                k, v = keys[row, head // 2, seen], values[row, head // 2, seen]
                weights = (queries[row, head, t] @ k.T / 8**0.5).softmax(-1)
                expected = weights @ v
                actual = fast[row, t, head * 8 : head * 8 + 8]
                torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [{}, {"sliding_window": 6}, {"num_kv_heads": 4}])
@pytest.mark.parametrize("before", [0, 5])
@pytest.mark.parametrize("lengths", [[300], [9, 9], [140, 3], [1, 130]])
@torch.inference_mode()
def test_the_last_logits_are_the_last_of_all(
    shape: dict[str, Any], before: int, lengths: list[int]
) -> None:
    """The last block of a prompt runs for one position of each row, with the same result."""
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "vocab_size": 40,
        "d_model": 32,
        "num_heads": 4,
        "num_kv_heads": 2,
        "num_layers": 3,
        "hidden_dim": 48,
        "max_seq_len": 512,
    }
    model = Llama(LlamaConfig(**{**config, **shape})).eval()
    rows, width = len(lengths), max(lengths)
    start, ids = torch.randint(0, 40, (rows, 5)), torch.randint(0, 40, (rows, width))
    caches = [model.make_cache(rows, before + width + 1) for _ in range(2)]
    if before:
        for cache in caches:
            model(start, cache)
            cache.advance([before] * rows)
    embeds = model.embed(ids)
    last = model.forward_embeds(embeds, caches[0], lengths, logits="last")
    everything = model.forward_embeds(embeds, caches[1], lengths, logits="all")
    for row, length in enumerate(lengths):
        torch.testing.assert_close(last[row], everything[row, length - 1], atol=1e-5, rtol=1e-5)
    if not before:
        without = model.forward_embeds(embeds, None, lengths, logits="last")
        torch.testing.assert_close(without, last, atol=1e-5, rtol=1e-5)
    for cache in caches:
        cache.advance(lengths)
    for row in range(rows):  # what the next step will look at
        for one, other in zip(caches[0].read_row(row), caches[1].read_row(row), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
