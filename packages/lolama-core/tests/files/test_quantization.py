"""The quantization block: written and read again, and refused where it makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from lolama_core.files.checkpoint_reader import open_checkpoint
from lolama_core.files.quantization import prepare_quantized_, quantization_block, read_scheme
from lolama_core.loading import build_module, load_model
from lolama_core.model.family import LlamaFamily
from lolama_core.protocols.errors import ModelError, NotAvailableError
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.protocols.types import CanonicalConfig
from lolama_core.testing.checkpoint import tiny_config

SCHEME = QuantizationScheme(
    name="int8",
    version=3,
    skipped=("lm_head", "x"),
    outlier_columns={"a.q": (1, 5)},
    formats={"a.k": "int4"},
)


def config(**changes: Any) -> CanonicalConfig:
    made = tiny_config()
    made["quantization"] = {**quantization_block(SCHEME, {"a.q.weight": "I8"}), **changes}
    return made


def test_what_is_written_is_read() -> None:
    assert read_scheme(config(), "m") == SCHEME
    assert config()["quantization"]["tensors"] == {"a.q.weight": "I8"}
    assert read_scheme(tiny_config(), "m") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", value) for value in (None, 8, ["int8"])),
        *(("version", value) for value in (None, "1", 1.0, True)),
        *(("skipped", value) for value in ("lm_head", [1], {"lm_head": 1})),
        *(("formats", value) for value in ([1], "int4", {"a": 1})),
        *(("outlier_columns", value) for value in ([1], {"a": 1}, {"a": ["1"]}, {"a": [True]})),
    ],
)
def test_a_block_that_makes_no_sense_is_refused(key: str, value: object) -> None:
    with pytest.raises(ModelError, match=rf"^m: quantization\.{key} is .*, expected "):
        read_scheme(config(**{key: value}), "m")


def test_a_quantizer_that_nobody_has_is_named() -> None:
    made = config(name="int3")
    files = open_checkpoint(LlamaFamily.builtins["demo"])
    module = build_module(files, {"llama": LlamaFamily()})
    with pytest.raises(
        NotAvailableError, match=r"m: no .* quantizer 'int3'; .*pip install lolama-quant"
    ):
        prepare_quantized_(module, made, "m")


def test_an_unquantized_model_is_left_alone() -> None:
    files = open_checkpoint(LlamaFamily.builtins["demo"])
    module = build_module(files, {"llama": LlamaFamily()})
    before = list(module.modules())
    prepare_quantized_(module, files.config, "m")
    assert list(module.modules()) == before
    assert load_model(files, {"llama": LlamaFamily()}, device="cpu").vocab_size == 2048
