"""Blocks in four bits, fitted to text that runs through them."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lolama_core import Llama, LlamaConfig
from lolama_core.protocols.errors import ModelError
from lolama_quant.grouped.codes import dequantize, pack
from lolama_quant.int4.calibration import QuantizedBlock, quantize_blocks
from lolama_quant.int4.least_squares import FORM, quantize_rows

SHAPE: dict[str, Any] = {
    "vocab_size": 96,
    "d_model": 64,
    "num_heads": 4,
    "num_kv_heads": 2,
    "num_layers": 3,
    "hidden_dim": 96,
    "max_seq_len": 128,
}
EXPERTS = {"num_experts": 8, "experts_per_token": 2, "expert_dim": 48, "dense_layers": (0,)}


def dense(**changes: Any) -> Llama:
    torch.manual_seed(0)
    return Llama(LlamaConfig(**SHAPE | changes)).eval().requires_grad_(False)


def texts(count: int = 3, width: int = 64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(96, (1, width + 7 * one), generator=generator) for one in range(count)]


def linears(model: nn.Module) -> set[str]:
    return {name for name, one in model.named_modules() if isinstance(one, nn.Linear)}


def weight_of(model: nn.Module, name: str) -> Tensor:
    return model.get_parameter(f"{name}.weight")


def blocks_of(model: Llama, **options: Any) -> list[QuantizedBlock]:
    return list(quantize_blocks(model, texts(), linears(model), **options))


def all_tensors(blocks: list[QuantizedBlock]) -> dict[str, Tensor]:
    return {name: one for block in blocks for name, one in block.tensors.items()}


def filled(model: Llama, tensors: Mapping[str, Tensor]) -> Llama:
    """A copy of the model with what the tensors stand for."""
    copy = dense()
    state = model.state_dict()
    for name in {name.rpartition(".")[0] for name in tensors}:
        parts = {part: tensors[f"{name}.{part}"] for part in FORM.tensors(1, 1)}
        state[f"{name}.weight"] = dequantize(parts, FORM, state[f"{name}.weight"].shape[1])
    copy.load_state_dict(state)
    return copy


def test_hands_out_the_tensors_of_all_linears_inside_blocks() -> None:
    model = dense()
    blocks = blocks_of(model)
    assert [block.name for block in blocks] == ["layers.0", "layers.1", "layers.2"]
    expected = {
        f"{name}.{part}": shape
        for name in linears(model) - {"lm_head"}
        for part, (_, shape) in FORM.tensors(*weight_of(model, name).shape).items()
    }
    found = all_tensors(blocks)
    assert {name: tuple(one.shape) for name, one in found.items()} == expected
    assert all(name.startswith(block.name) for block in blocks for name in block.tensors)
    assert [block.plain for block in blocks] == [()] * 3


def test_the_model_stays_as_it_is() -> None:
    model = dense()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    stopped = quantize_blocks(model, texts(), linears(model))
    next(stopped)
    assert isinstance(stopped, Generator)
    stopped.close()
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_changes_what_the_model_says_less_than_rounding_does() -> None:
    model = dense()
    plain = {
        f"{name}.{part}": one
        for name in linears(model) - {"lm_head"}
        for part, one in pack(quantize_rows(weight_of(model, name), name), FORM).items()
    }
    ids = texts(4)[-1]
    expected = model(ids)
    ours = (filled(model, all_tensors(blocks_of(model)))(ids) - expected).square().mean()
    theirs = (filled(model, plain)(ids) - expected).square().mean()
    assert ours < theirs


def test_blocks_may_be_on_the_meta_device_and_are_read_one_by_one() -> None:
    model, expected = dense(), all_tensors(blocks_of(dense()))
    stored = model.state_dict()
    model.layers.to("meta")
    asked = []

    def read(name: str) -> dict[str, Tensor]:
        asked.append(name)
        return {
            key.removeprefix(f"{name}."): one
            for key, one in stored.items()
            if key.startswith(f"{name}.")
        }

    found: dict[str, Tensor] = {}
    for block in quantize_blocks(model, texts(), linears(model), read=read):
        assert asked[-1] == block.name
        found |= block.tensors
    assert asked == ["layers.0", "layers.1", "layers.2"]
    assert all(torch.equal(one, expected[name]) for name, one in found.items())


def test_goes_on_where_it_was_broken_off() -> None:
    whole = {block.name: block for block in blocks_of(dense())}
    made = {name: whole[name].tensors for name in ("layers.0", "layers.1")}
    told: list[tuple[int, int]] = []
    rest = blocks_of(
        dense(), finished=made.get, steps=lambda done, total: told.append((done, total))
    )
    assert [block.name for block in rest] == ["layers.2"]
    assert told == [(0, 21), (7, 21), *((done, 7) for done in range(7))]
    for name, one in rest[0].tensors.items():
        assert torch.equal(one, whole["layers.2"].tensors[name])


def test_only_the_linears_that_are_named() -> None:
    model = dense()
    found = list(quantize_blocks(model, texts(), {"layers.1.feed_forward.w_up", "lm_head"}))
    assert [sorted(block.tensors) for block in found] == [
        [],
        [f"layers.1.feed_forward.w_up.{part}" for part in ("block_scale", "group_scale", "weight")],
        [],
    ]


def test_steps_are_told() -> None:
    told: list[tuple[int, int]] = []
    blocks_of(dense(), steps=lambda done, total: told.append((done, total)))
    assert told == [(done, 21) for done in range(21)]


def test_row_464_experts_that_are_seldom_chosen_are_rounded_by_themselves() -> None:
    model = dense(**EXPERTS)
    for name, one in model.named_parameters():
        if name.endswith("router.weight"):
            one.data *= 20  # a few experts are chosen often
    blocks = blocks_of(model)
    assert blocks[0].plain == ()
    plain = blocks[1].plain
    assert plain and len(plain) < 24
    assert all(name.startswith("layers.1.feed_forward.experts.") for name in plain)
    for name in plain:
        alone = pack(quantize_rows(weight_of(model, name), name), FORM)
        assert all(
            torch.equal(one, blocks[1].tensors[f"{name}.{part}"]) for part, one in alone.items()
        )


def test_row_464_all_are_rounded_by_themselves_where_there_is_little_text() -> None:
    model = dense()
    found = list(quantize_blocks(model, [torch.arange(70)[None]], linears(model)))
    down = [f"layers.{place}.feed_forward.w_down" for place in range(3)]
    assert [block.plain for block in found] == [(name,) for name in down]


def test_models_of_bfloat16() -> None:
    model = dense().to(torch.bfloat16)
    blocks = blocks_of(model)
    assert len(all_tensors(blocks)) == 21 * 3


def test_there_must_be_text() -> None:
    model = dense()
    with pytest.raises(ValueError, match="no text"):
        next(quantize_blocks(model, [], linears(model)))


def test_row_462_nan_is_refused_by_name() -> None:
    model = dense()
    weight_of(model, "layers.1.attention.o_proj")[3, 5] = torch.nan
    with pytest.raises(ModelError, match=r"layers\.1\.attention\.o_proj\.weight: holds .* row 3; "):
        blocks_of(model)
