"""What every `Quantizer` and `LinearKernel` must do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lolama_core.protocols import LinearKernel, Quantizer
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.quantizer import QuantizationScheme


class QuantizerSuite:
    """Subclass it and define the fixture ``quantizer``."""

    tolerance = 0.02

    @pytest.fixture
    def quantizer(self) -> Quantizer:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    def module(self) -> nn.Sequential:
        """Two linears, the second with a bias."""
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 96, bias=False), nn.SiLU(), nn.Linear(96, 32))

    def test_is_close_and_smaller(self, quantizer: Quantizer) -> None:
        """The quantized module says nearly the same, in fewer bytes, and reports what it replaced."""
        module, x = self.module(), torch.randn(5, 64)
        expected = module(x)
        report = quantizer.quantize_(module, QuantizationScheme(name=quantizer.name))
        assert report.replaced == ("0", "2")
        assert report.bytes_after < report.bytes_before
        error = (module(x) - expected).norm() / expected.norm()
        assert error < self.tolerance

    def test_skipped_names_stay(self, quantizer: Quantizer) -> None:
        """A skipped linear is the very same object."""
        module = self.module()
        kept = module[2]
        quantizer.quantize_(module, QuantizationScheme(name=quantizer.name, skipped=("2",)))
        assert module[2] is kept

    def test_twice_is_refused(self, quantizer: Quantizer) -> None:
        """Quantizing what is quantized would lose twice."""
        module, scheme = self.module(), QuantizationScheme(name=quantizer.name)
        quantizer.quantize_(module, scheme)
        with pytest.raises(UsageError):
            quantizer.quantize_(module, scheme)

    def test_prepare_takes_the_saved_state(self, quantizer: Quantizer) -> None:
        """A prepared empty module has the layout of a quantized one."""
        module, scheme = self.module(), QuantizationScheme(name=quantizer.name)
        quantizer.quantize_(module, scheme)
        empty = self.module().to("meta")
        quantizer.prepare_(empty, scheme)
        layout = {name: (t.shape, t.dtype) for name, t in module.state_dict().items()}
        assert {name: (t.shape, t.dtype) for name, t in empty.state_dict().items()} == layout

    def test_a_dense_checkpoint_becomes_a_quantized_one(self, quantizer: Quantizer) -> None:
        """Tensor by tensor it gives what quantizing in memory does, and says which dtypes are fixed."""
        module, scheme = self.module(), QuantizationScheme(name=quantizer.name)
        empty = self.module().to("meta")
        quantizer.prepare_(empty, scheme)
        found = dict(quantizer.converted(empty, module.state_dict().items()))
        quantizer.quantize_(module, scheme)
        expected = module.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        integers = {name for name, tensor in found.items() if not tensor.is_floating_point()}
        assert integers <= quantizer.declared(empty).keys() <= found.keys()
        assert quantizer.declared(empty) == quantizer.declared(module)

    def test_tells_what_it_did(self, quantizer: Quantizer) -> None:
        """Reports ask how many linears it quantized, and how their products are taken."""
        module = self.module()
        assert quantizer.count(module) == 0
        quantizer.quantize_(module, QuantizationScheme(name=quantizer.name))
        assert quantizer.count(module) == 2
        assert quantizer.describe() and quantizer.describe("cpu")
        assert "\n" not in quantizer.describe()

    def test_finds_the_inputs_with_the_largest_activations(self, quantizer: Quantizer) -> None:
        """They can be kept in full precision."""
        module, scheme = self.module(), QuantizationScheme(name=quantizer.name, skipped=("2",))
        x = torch.ones(3, 64)
        x[1, 7] = -50
        x[2, 40] = 60
        columns = quantizer.outlier_columns(module, scheme, 2, lambda: module(x))
        assert columns == {"0": (7, 40)}


class LinearKernelSuite:
    """Subclass it and define the fixture ``kernel``."""

    tolerance = 2e-2

    @pytest.fixture
    def kernel(self) -> LinearKernel:
        """The implementation under test."""
        raise NotImplementedError("a subclass defines this fixture")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("shape", [(1, 513, 301), (1, 64, 1033), (2, 1000, 117)])
    @pytest.mark.parametrize("bias", [False, True])
    def test_equals_the_float64_product(
        self, kernel: LinearKernel, dtype: torch.dtype, shape: tuple[int, int, int], bias: bool
    ) -> None:
        """Several weights at once, for as many rows as it claims, at shapes that are multiples of nothing."""
        rows, inputs, outputs = shape
        torch.manual_seed(0)
        weight = torch.randn(outputs, inputs).to(dtype)
        addend = torch.randn(outputs).to(dtype) if bias else None
        x = torch.randn(rows, inputs)
        if kernel.max_rows(weight) < rows:
            pytest.skip("not claimed")
        result = kernel.linear(x, [weight, weight[:3]], [addend, None])
        product = x.double() @ weight.double().T
        with_bias = product if addend is None else product + addend.double()
        expected = torch.cat((with_bias, product[:, :3]), dim=-1)
        assert result.dtype == x.dtype
        torch.testing.assert_close(
            result.double(), expected, atol=self.tolerance, rtol=self.tolerance
        )
