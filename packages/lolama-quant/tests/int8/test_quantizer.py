"""The quantizer ``int8`` keeps to the protocol and is found under its name."""

from importlib.metadata import entry_points

import pytest
from torch import nn

from lolama_core.protocols import Quantizer
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.testing.quantizer import QuantizerSuite
from lolama_quant import Int8Quantizer

INT8: Quantizer = Int8Quantizer()  # checked by mypy: it is what lolama expects to find


class TestInt8Quantizer(QuantizerSuite):
    @pytest.fixture
    def quantizer(self) -> Quantizer:
        return INT8


def test_is_found_by_its_name() -> None:
    (found,) = entry_points(group="lolama.quantizers", name="int8")
    assert found.load() is Int8Quantizer
    assert found.name == INT8.name


def test_tells_which_products_it_uses() -> None:
    line = INT8.describe()
    assert line.startswith("cpu: ") and "; cuda: " in line and "; mps: " in line
    assert line.startswith(f"cpu: {INT8.describe('cpu')}; ")
    assert INT8.describe("xpu") == "weights widened, then torch's product"


def test_counts_what_it_quantized() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert INT8.count(module) == 0
    INT8.quantize_(module, QuantizationScheme(name="int8", skipped=("1",)))
    assert INT8.count(module) == 1
