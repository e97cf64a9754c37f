"""The quantizers of four bits and of GGUF keep to the protocol, and are found under their names."""

from importlib.metadata import entry_points

import pytest
import torch
from torch import nn

from lolama_core.protocols import Quantizer
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.testing.quantizer import QuantizerSuite
from lolama_quant.int4.quantizer import GGUFQuantizer, Int4Quantizer
from lolama_quant.triton import compiler

INT4: Quantizer = Int4Quantizer()  # checked by mypy: it is what lolama expects to find


class TestInt4Quantizer(QuantizerSuite):
    tolerance = 0.12  # of random weights, all of one size: the worst there are for groups

    @pytest.fixture
    def quantizer(self) -> Quantizer:
        return INT4


class TestGGUFQuantizer(QuantizerSuite):
    tolerance = 0.12

    @pytest.fixture
    def quantizer(self) -> Quantizer:
        return GGUFQuantizer()


def test_are_found_by_their_names() -> None:
    found = {entry.name: entry.load() for entry in entry_points(group="lolama.quantizers")}
    assert found["int4"] is Int4Quantizer and found["gguf"] is GGUFQuantizer
    assert (Int4Quantizer.name, GGUFQuantizer.name) == ("int4", "gguf")


def test_tells_which_products_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    line = INT4.describe()
    assert line.startswith(f"cpu: {INT4.describe('cpu')}; ") and "; mps: " in line
    assert INT4.describe("mps") == "a Metal kernel, not run on a GPU yet; many rows widened"
    assert INT4.describe("xpu") == "weights widened, then torch's product"
    monkeypatch.setattr(compiler, "_missing", lambda: "Triton is not installed")
    assert INT4.describe("cuda") == "weights widened: Triton is not installed"
    monkeypatch.setattr(compiler, "_missing", lambda: None)
    assert INT4.describe("cuda").startswith("a Triton kernel, not run on a GPU yet")


def test_row_459_embeddings_are_quantized_and_no_linears() -> None:
    module = nn.Sequential(nn.Embedding(9, 64), nn.Linear(64, 4))
    INT4.quantize_(module, QuantizationScheme(name="int4", skipped=(), formats={"0": "int4"}))
    assert INT4.count(module) == 1
    assert module(torch.tensor([1, 8])).shape == (2, 4)
