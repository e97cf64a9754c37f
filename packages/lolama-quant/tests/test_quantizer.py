"""The quantizer is found and named, and refuses with a reason instead of pretending."""

from importlib.metadata import entry_points

import pytest
import torch
from torch import nn

from lolama_core.protocols import Quantizer
from lolama_core.protocols.errors import NotAvailableError
from lolama_core.protocols.types import QuantizationScheme
from lolama_core.testing.quantizer import QuantizerSuite
from lolama_quant import Int8Quantizer

INT8: Quantizer = Int8Quantizer()  # checked by mypy: it is what lolama expects to find
SCHEME = QuantizationScheme(name="int8")


# Strict: once the quantizer works, this mark fails every test until it is taken away.
@pytest.mark.xfail(raises=NotAvailableError, strict=True, reason="not in this version")
class TestInt8Quantizer(QuantizerSuite):
    @pytest.fixture
    def quantizer(self) -> Quantizer:
        return INT8


def test_keeps_to_the_protocol() -> None:
    assert isinstance(INT8, Quantizer)


def test_is_found_by_its_name() -> None:
    (found,) = entry_points(group="lolama.quantizers", name="int8")
    assert found.load() is Int8Quantizer
    assert found.name == INT8.name


def test_refuses_and_leaves_the_model_as_it_was() -> None:
    linear = nn.Linear(4, 4)
    module, weight = nn.Sequential(linear), linear.weight.detach().clone()
    with pytest.raises(
        NotAvailableError, match=r"int8: quantising .* lolama-quant; use the model as it is"
    ):
        INT8.quantize_(module, SCHEME)
    assert module[0] is linear
    assert torch.equal(linear.weight, weight)


def test_loading_a_quantised_model_is_refused_too() -> None:
    with pytest.raises(NotAvailableError, match=r"int8: loading a quantised model .* lolama-quant"):
        INT8.prepare_(nn.Linear(4, 4, device="meta"), SCHEME)
