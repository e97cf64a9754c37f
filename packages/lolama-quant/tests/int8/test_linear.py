"""`Int8Linear` beside the linear it was made from."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lolama_core import Llama, LlamaConfig
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_quant.int8.absmax import dequantize_rows, quantize_rows
from lolama_quant.int8.convert import without_columns
from lolama_quant.int8.linear import Int8Linear
from lolama_quant.int8.quantizer import Int8Quantizer


def made(bias: bool = True, columns: tuple[int, ...] = ()) -> tuple[nn.Linear, Int8Linear]:
    torch.manual_seed(0)
    dense = nn.Linear(70, 33, bias=bias)
    quantized = quantize_rows(without_columns(dense.weight, columns))
    return dense, Int8Linear.from_dense(dense, quantized, columns)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("columns", [(), (3, 69)])
@pytest.mark.parametrize("shape", [(70,), (0, 70), (1, 70), (4, 5, 70), (2, 0, 70), (40, 70)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_is_close_to_the_dense_product(
    bias: bool, columns: tuple[int, ...], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    dense, layer = made(bias, columns)
    x = torch.randn(shape).to(dtype)
    y = layer(x)
    expected = dense(x.float())
    assert y.shape == expected.shape and y.dtype == dtype
    if y.numel():
        assert (y.float() - expected).norm() / expected.norm() < 0.015


def test_outlier_columns_keep_their_precision() -> None:
    dense, _ = made()
    with torch.no_grad():
        dense.weight[:, 5] *= 100  # which would take the precision of all others
    x = torch.randn(20, 70)
    expected = dense(x)
    errors = []
    for columns in ((), (5,)):
        quantized = quantize_rows(without_columns(dense.weight, columns))
        layer = Int8Linear.from_dense(dense, quantized, columns)
        errors.append(float((layer(x) - expected).detach().norm()))
    assert errors[1] < errors[0] / 20


@pytest.mark.parametrize("convert", ["half", "bfloat16", "double"])
def test_row_79_the_scale_stays_float32_when_the_model_is_converted(convert: str) -> None:
    _, layer = made()
    before = layer.scale.clone() * 1e-9
    with torch.no_grad():
        layer.scale.mul_(1e-9)  # float16 would make zeros of it
    getattr(layer, convert)()
    assert layer.scale.dtype == torch.float32 and torch.equal(layer.scale, before)
    assert layer.weight.dtype == torch.int8
    assert layer.bias.dtype != torch.float32


def test_copies_pickles_and_moves() -> None:
    _, layer = made(columns=(1, 2))
    x = torch.randn(3, 70)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer.to("cpu")):
        assert torch.equal(other(x), layer(x))
    assert layer.to("meta").scale.dtype == torch.float32


def test_nothing_of_it_trains_and_gradients_pass_nothing_back() -> None:
    _, layer = made(columns=(1,))
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def test_input_that_is_not_contiguous() -> None:
    _, layer = made()
    x = torch.randn(70, 6, 4).permute(2, 1, 0)
    assert torch.equal(layer(x), layer(x.contiguous()))


def test_zero_rows_of_the_weight_give_exactly_the_bias() -> None:
    dense, _ = made()
    with torch.no_grad():
        dense.weight[4] = 0
    layer = Int8Linear.from_dense(dense, quantize_rows(dense.weight.detach()))
    assert bool((layer(torch.randn(9, 70))[:, 4] == dense.bias[4]).all())
    assert bool((dequantize_rows(quantize_rows(dense.weight.detach()))[4] == 0).all())


def test_a_prompt_is_rounded_by_int8_products_alone() -> None:
    """Dense models keep bfloat16 between products, where the processor multiplies it."""
    config = LlamaConfig(
        vocab_size=20, d_model=16, num_heads=2, num_kv_heads=1, num_layers=2, hidden_dim=24
    )
    model = Llama(config).to(torch.bfloat16)
    Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
    found = set()
    for module in model.modules():
        if isinstance(module, Int8Linear):
            module.register_forward_pre_hook(lambda _, inputs: found.add(inputs[0].dtype))
    model(torch.arange(12)[None])
    assert found == {torch.float32}
