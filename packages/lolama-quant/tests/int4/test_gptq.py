"""Codes chosen one after another, against the textbook's way, and against rounding each by itself."""

import pytest
import torch
from torch import Tensor

from lolama_core.protocols.errors import ModelError
from lolama_quant.grouped.codes import GroupedRows, dequantize_rows, pack
from lolama_quant.int4 import gptq, least_squares
from lolama_quant.int4.least_squares import FORM


def weight_and_moment(outputs: int, inputs: int, tokens: int = 2048) -> tuple[Tensor, Tensor]:
    """Inputs that have to do with each other, some of them much larger than others."""
    generator = torch.Generator().manual_seed(inputs)
    mix = torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    size = torch.rand(inputs, generator=generator) * 3
    x = torch.randn(tokens, inputs, generator=generator) @ (mix + 0.3 * torch.eye(inputs)) * size
    return torch.randn(outputs, inputs, generator=generator) * 0.02, x.T @ x / tokens


def lost(weight: Tensor, moment: Tensor, rows: GroupedRows) -> float:
    error = weight - dequantize_rows(rows, FORM)
    return float(((error @ moment) * error).sum())


@pytest.mark.parametrize("inputs", [1, 31, 32, 33, 64, 192, 256, 300, 520])
def test_any_number_of_inputs(inputs: int) -> None:
    weight, moment = weight_and_moment(7, inputs)
    rows = gptq.quantize_rows(weight, "w", moment)
    assert {name: one.shape for name, one in pack(rows, FORM).items()} == {
        name: torch.Size(shape) for name, (_, shape) in FORM.tensors(7, inputs).items()
    }
    assert int(rows.codes.max()) <= 15
    assert lost(weight, moment, rows) < 0.02 * float(((weight @ moment) * weight).sum())


def test_loses_half_of_what_rounding_each_by_itself_loses() -> None:
    weight, moment = weight_and_moment(48, 512)
    plain = least_squares.quantize_rows(weight, "w")
    weighted = least_squares.quantize_rows(weight, "w", moment.diagonal())
    ours = lost(weight, moment, gptq.quantize_rows(weight, "w", moment))
    assert ours < 0.5 * lost(weight, moment, weighted) < 0.5 * lost(weight, moment, plain)


@pytest.mark.parametrize("outputs", [1, 7, 48])
def test_rows_make_up_for_each_other(outputs: int) -> None:
    weight, moment = weight_and_moment(outputs, 300)
    mix = torch.randn(outputs, outputs)
    together = mix @ mix.T
    both = gptq.quantize_rows(weight, "w", moment, together)
    alone = gptq.quantize_rows(weight, "w", moment)

    def lost_together(rows: GroupedRows) -> float:
        error = weight - dequantize_rows(rows, FORM)
        return float(((together @ error @ moment) * error).sum())

    assert lost_together(both) <= (1 if outputs == 1 else 0.7) * lost_together(alone)
    # Each by itself lost less.
    assert lost(weight, moment, both) >= lost(weight, moment, alone)


def test_outputs_that_count_alike_change_nothing() -> None:
    weight, moment = weight_and_moment(33, 96)
    found = gptq.quantize_rows(weight, "w", moment, torch.eye(33))
    for one, other in zip(found, gptq.quantize_rows(weight, "w", moment), strict=True):
        assert one is not None and other is not None and torch.equal(one, other)


def test_choosing_anew_loses_less(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, moment = weight_and_moment(48, 320)
    found = []
    for sweeps in (0, 1, 2):
        monkeypatch.setattr(gptq, "SWEEPS", sweeps)
        found.append(lost(weight, moment, gptq.quantize_rows(weight, "w", moment)))
    assert found == sorted(found, reverse=True)
    assert found[2] < 0.95 * found[0]


def test_codes_are_those_of_the_textbook() -> None:
    weight, moment = weight_and_moment(20, 32)
    moment = gptq.damped(moment)
    scale, minimum = torch.full((20,), 0.006), torch.full((20,), 0.045)
    codes, error = gptq._one_by_one(weight, gptq.upper_triangle(moment), scale, minimum)
    # After each choice all inputs that are left move to where the least is lost, by normal equations.
    left, chosen, exact = weight.double(), [], moment.double()
    for place in range(32):
        code = ((left[:, 0] + minimum) / scale).round().clamp(0, 15)
        chosen.append(code)
        off = left[:, 0] - (code * scale.double() - minimum)
        rest = exact[place + 1 :, place + 1 :]
        pull = torch.linalg.solve(rest, exact[place + 1 :, place]) if len(rest) else exact[:0, 0]
        left = left[:, 1:] + off[:, None] * pull
    assert float((codes == torch.stack(chosen, dim=1)).double().mean()) > 0.995
    stands_for = codes * scale[:, None] - minimum[:, None]
    torch.testing.assert_close(error, weight - stands_for)


def test_the_triangle_is_a_root_of_the_moment() -> None:
    _, moment = weight_and_moment(1, 70)
    triangle = gptq.upper_triangle(gptq.damped(moment))
    assert torch.equal(triangle, triangle.triu())
    torch.testing.assert_close(triangle @ triangle.T, gptq.damped(moment))


def test_rows_do_not_depend_on_each_other() -> None:
    weight, moment = weight_and_moment(33, 96)
    together = dequantize_rows(gptq.quantize_rows(weight, "w", moment), FORM)
    alone = dequantize_rows(gptq.quantize_rows(weight[20:], "w", moment), FORM)
    # Products may be added in another order.
    assert float((together[20:] == alone).double().mean()) > 0.99


def test_row_463_inputs_that_were_always_zero() -> None:
    weight, moment = weight_and_moment(5, 96)
    moment[32:64], moment[:, 32:64] = 0, 0
    found = dequantize_rows(gptq.quantize_rows(weight, "w", moment), FORM)
    assert float((found - weight)[:, 32:64].abs().max()) < 0.2 * float(weight.abs().max())
    nothing = gptq.quantize_rows(weight, "w", torch.zeros(96, 96))
    assert float((dequantize_rows(nothing, FORM) - weight).square().mean()) < 1e-5


@pytest.mark.parametrize("power", [-118, -80, -20, 2, 40, 80, 120])
def test_row_456_moments_of_any_size(power: int) -> None:
    weight, moment = weight_and_moment(20, 96)
    mix = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
    outputs = mix @ mix.T / 20
    factor = torch.tensor(2.0).pow(power)
    expected = gptq.quantize_rows(weight, "w", moment, outputs)
    for sizes in ((moment * factor, outputs), (moment, outputs * factor)):
        found = gptq.quantize_rows(weight, "w", *sizes)
        for one, other in zip(found, expected, strict=True):
            assert one is not None and other is not None and torch.equal(one, other)


@pytest.mark.parametrize("power", [-148, -140, -126])
def test_row_456_moments_that_float32_hardly_has(power: int) -> None:
    weight, moment = weight_and_moment(20, 96)
    found = gptq.quantize_rows(weight, "w", (moment.double() * 2.0**power).float())
    plain = least_squares.quantize_rows(weight, "w")
    assert lost(weight, moment, found) < 1.1 * lost(weight, moment, plain)


def test_row_463_inputs_that_are_all_alike() -> None:
    weight, _ = weight_and_moment(5, 96)
    found = dequantize_rows(gptq.quantize_rows(weight, "w", torch.full((96, 96), 4.0)), FORM)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.sum(1), weight.sum(1), rtol=0, atol=0.02)


def test_row_462_nan_is_refused_by_name() -> None:
    weight, moment = weight_and_moment(4, 32)
    weight[1, 3] = torch.nan
    with pytest.raises(ModelError, match=r"w_up\.weight: holds .* in row 1; "):
        gptq.quantize_rows(weight, "w_up.weight", moment)


def test_row_460_zeros_stay_exact_zeros() -> None:
    weight, moment = weight_and_moment(4, 300)
    weight[2] = 0
    found = dequantize_rows(gptq.quantize_rows(weight, "w", moment), FORM)
    assert found[2].count_nonzero() == 0
