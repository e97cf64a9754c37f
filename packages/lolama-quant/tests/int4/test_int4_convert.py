"""Which layers become grouped ones, in which format, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lolama_core
from lolama_core import Llama, LlamaConfig
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_quant.grouped.linear import GroupedEmbedding, GroupedLinear
from lolama_quant.int4.convert import declared, formats_of, prepare_, quantize_
from lolama_quant.int8.linear import Int8Linear

SHAPE: dict[str, Any] = {
    "vocab_size": 60,
    "d_model": 64,
    "num_heads": 4,
    "num_layers": 2,
    "hidden_dim": 100,
    "max_seq_len": 64,
}
USUAL = {"embed_tokens": "int4", "lm_head": "int8"}


def scheme(**fields: Any) -> QuantizationScheme:
    return QuantizationScheme(**{"name": "int4", "skipped": (), "formats": USUAL} | fields)


def model(**shape: Any) -> Llama:
    torch.manual_seed(0)
    return Llama(LlamaConfig(**{**SHAPE, **shape})).eval()


def test_embedding_and_head_have_formats_of_their_own() -> None:
    made = model()
    report = quantize_(made, scheme())
    assert len(report.replaced) == 16 and report.bytes_after < report.bytes_before / 4
    assert isinstance(made.embed_tokens, GroupedEmbedding)
    assert isinstance(made.lm_head, Int8Linear)
    assert isinstance(made.get_submodule("layers.1.feed_forward.w_down"), GroupedLinear)
    assert made.dtype == torch.float32 and made.make_cache(1, 4).dtype == torch.float32


def test_what_is_skipped_stays() -> None:
    made = model()
    quantize_(made, scheme(skipped=("lm_head", "layers.0"), formats={}))
    assert type(made.embed_tokens) is nn.Embedding
    first, second = (made.get_submodule(f"layers.{n}.attention.q_proj") for n in range(2))
    assert not isinstance(first, GroupedLinear) and isinstance(second, GroupedLinear)


def test_tied_weights_stay_tied() -> None:
    for device, form in (("cpu", "int4"), ("meta", "int8_16")):
        with torch.device(device):
            made = model(tie_word_embeddings=True)
        change = quantize_ if device == "cpu" else prepare_
        change(made, scheme(skipped=(), formats={"embed_tokens": form}))
        assert isinstance(made.lm_head, GroupedLinear)
        assert made.lm_head.weight is made.embed_tokens.weight
        assert made.lm_head.block_scale is made.embed_tokens.block_scale


def test_a_tied_weight_that_is_skipped_keeps_its_precision() -> None:
    made = model(tie_word_embeddings=True)
    before = made.lm_head.weight
    quantize_(made, scheme(skipped=("lm_head",), formats={"embed_tokens": "int4"}))
    assert made.lm_head.weight is before and not isinstance(made.lm_head, GroupedLinear)
    assert made.embed_tokens.weight.dtype == torch.uint8


def test_a_saved_model_is_the_same_to_the_bit(tmp_path: Path) -> None:
    made, same = model(), scheme()
    quantize_(made, same)
    config: Any = {
        "format": "lolama",
        "format_version": 1,
        "family": "llama",
        "model": dict(SHAPE),
        "dtype": "bfloat16",
        "generation": {},
        "tokenizer": {},
        "quantization": lolama_core.quantization_block(same, declared(made)),
    }
    tensors = made.state_dict()
    lolama_core.write_checkpoint(tmp_path / "m", config, tensors.items(), tokenizer_json=None)
    files = lolama_core.open_checkpoint(tmp_path / "m")
    again = lolama_core.load_model(files, lolama_core.installed_families(), device="cpu")
    assert isinstance(again, Llama)
    found = again.state_dict()
    assert found.keys() == tensors.keys()
    for name, tensor in found.items():
        if not tensor.is_floating_point() or "scale" in name:
            assert torch.equal(tensor, tensors[name]), name
    assert again.dtype == torch.bfloat16 and again.make_cache(1, 4).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"version": 2}, "has version 2 of the int4 layout"),
        ({"formats": {"embed_tokens": "int5"}}, "asks for the format 'int5' of 'embed_tokens'"),
        (
            {"formats": {"tail": "int8"}},
            "asks for 'int8' of 'tail', which this model does not have",
        ),
        ({"formats": {"embed_tokens": "int8"}}, "asks for 'int8' of 'embed_tokens'"),
        ({"outlier_columns": {"lm_head": (1,)}}, "has outlier columns, which int4 does not know"),
    ],
)
def test_schemes_that_do_not_fit_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        formats_of(model(), scheme(**fields))


def test_a_format_that_is_only_read_is_not_made() -> None:
    made = model()
    with pytest.raises(ModelError, match="asks for 'int8_16' of lm_head, which is read from files"):
        quantize_(made, scheme(formats={"lm_head": "int8_16"}))
    assert not any(isinstance(layer, GroupedLinear) for layer in made.modules())


def test_what_is_quantized_is_not_quantized_again() -> None:
    made = model()
    quantize_(made, scheme())
    with pytest.raises(UsageError, match="is quantized already"):
        quantize_(made, scheme())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_and_nothing_is_changed(value: float) -> None:
    made = model()
    with torch.no_grad():
        made.get_parameter("layers.1.feed_forward.w_up.weight")[3, 4] = value
    before = dict(made.named_modules())
    with pytest.raises(ModelError, match="w_up"):
        quantize_(made, scheme())
    assert dict(made.named_modules()) == before
