"""The quality report against numbers worked out by hand, and the default int8 of the built-in model."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from lolama_core import load
from lolama_core.protocols import CausalLM, Tokenizer
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_quant import Int8Quantizer, default_text, measure_quality


class TwoTokens:
    """Predicts token 1 with probability ``p``, whatever came before; ids are 0 and 1."""

    max_seq_len = 4
    device = torch.device("cpu")

    def __init__(self, p: float, p_in_steps: float | None = None) -> None:
        self.whole, self.steps = p, p if p_in_steps is None else p_in_steps

    def make_cache(self, batch_size: int, capacity: int) -> Any:
        self.capacity = capacity
        return SimpleNamespace(advance=lambda counts: None)

    def embed(self, input_ids: Tensor) -> Tensor:
        return input_ids[..., None].float()

    def forward_embeds(self, embeds: Tensor, cache: Any, logits: str) -> Tensor:
        assert logits == "all"
        p = self.whole if embeds.shape[1] == self.capacity else self.steps
        return torch.tensor([math.log(1 - p), math.log(p)]).expand(1, embeds.shape[1], 2)


class Digits:
    def encode_ids(self, text: str, *, split_special_tokens: bool) -> Sequence[int]:
        assert split_special_tokens
        return [int(character) for character in text]


def measured(reference: TwoTokens, other: TwoTokens, texts: Sequence[str]) -> Any:
    return measure_quality(
        cast(CausalLM, reference), cast(CausalLM, other), cast(Tokenizer, Digits()), texts
    )


def test_row_206_it_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    one = cast(CausalLM, TwoTokens(0.75))
    texts = ["01", "1", "10"]  # one token predicts nothing
    measure_quality(
        one, one, cast(Tokenizer, Digits()), texts, lambda done, count: told.append((done, count))
    )
    assert told == [(0, 2), (1, 2)]


def test_measures_by_hand() -> None:
    report = measured(TwoTokens(0.75), TwoTokens(0.5 - 1e-9), ["0110", "11"])
    assert report.tokens == 6
    # Tokens that are predicted: 1, 1, 0 and 1.
    assert report.reference_perplexity == pytest.approx((0.75**3 * 0.25) ** (-1 / 4), rel=1e-5)
    assert report.perplexity == pytest.approx(2.0, rel=1e-5)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    ours = report.quantized
    for kl in (ours.mean_kl, ours.median_kl, ours.p90_kl, ours.p99_kl):
        assert kl == pytest.approx(divergence, rel=1e-5)
    assert ours.top1_agreement == 0.0  # 1 against 0


def test_a_model_equals_itself() -> None:
    report = measured(TwoTokens(0.75), TwoTokens(0.75), ["0110"])
    assert report.perplexity == report.reference_perplexity
    assert report.quantized.mean_kl == 0.0 and report.quantized.top1_agreement == 1.0


def test_long_texts_are_read_in_windows_of_the_context() -> None:
    assert measured(TwoTokens(0.5), TwoTokens(0.5), ["0110011", "0", "01101"]).tokens == 11


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="no two tokens"):
        measured(TwoTokens(0.5), TwoTokens(0.5), ["", "1"])


def test_table_and_json_tell_the_same() -> None:
    report = measured(TwoTokens(0.75), TwoTokens(0.5 - 1e-9), ["0110", "11"])
    facts = report.to_json()
    assert facts["schema"] == "lolama.quality/1"
    assert facts["quantized"]["top1_agreement"] == 0.0
    rows = {name: (ours, floor) for name, ours, floor in report.rows()}
    assert rows["perplexity"] == ("2.0000", f"{facts['reference_perplexity']:.4f}")
    assert rows["same best token"] == ("0.00%", "100.00%")


def test_the_default_text_suffices() -> None:
    _, tokenizer = load("demo")
    texts = default_text()
    assert sum(len(tokenizer.encode_ids(text)) for text in texts) >= 20_000
    assert len(set(texts)) == len(texts) >= 200


@pytest.mark.parametrize("integers", [False, True])
def test_the_built_in_model_passes_the_gate(
    integers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lolama_quant.int8.backends.cpu.multiplies_integers", lambda: integers)
    # The same integers, for sums below 2^24, in a time that suits a processor without such products too.
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.float() @ b.float()).int())
    model, tokenizer = load("demo", device="cpu")
    quantized = copy.deepcopy(cast(torch.nn.Module, model))
    Int8Quantizer().quantize_(quantized, QuantizationScheme(name="int8"))
    texts = default_text()[:40]  # the published figures are of all of them
    report = measure_quality(model, cast(CausalLM, quantized), tokenizer, texts)
    assert report.tokens > 3_000
    assert report.quantized.top1_agreement >= 0.98
    assert report.quantized.median_kl <= 1e-3
    assert report.noise_floor.median_kl < report.quantized.median_kl
    assert abs(report.perplexity / report.reference_perplexity - 1) < 0.005
