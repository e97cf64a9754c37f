"""Weights in blocks as tensors of a checkpoint: their values, their rows in order, what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf_files import permuted, read_gguf, write_gguf
from tiny_folders import read, tiny_model
from torch import Tensor

from lolama_core import FileCheckpointIO, LlamaFamily, load_model
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.grouped import FORMATS
from lolama_core.protocols.types import ModelFiles
from lolama_hub.gguf.block_types import BLOCKS

WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 64}
KINDS = {
    "token_embd.weight": "Q8_0",
    "attn_q.weight": "Q4_0",
    "attn_k.weight": "Q4_1",
    "attn_v.weight": "Q8_0",
    "attn_output.weight": "Q5_1",
    "ffn_up.weight": "BF16",
    "ffn_up_exps.weight": "Q4_0",
    "ffn_gate_exps.weight": "Q5_1",
    "ffn_gate_inp.weight": "Q8_0",
}


def rounded(weight: Tensor, kind: str) -> Tensor:
    """What a type keeps of a weight."""
    found = gguf.GGMLQuantizationType[kind]
    return torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), found), found).copy())


def values(tensors: Mapping[str, Tensor], files: ModelFiles, owner: str) -> Tensor:
    """The weight that a file has in blocks, of the tensors that were made of it."""
    block = files.config.get("quantization")
    assert block is not None and isinstance(block["formats"], dict)
    name = block["formats"][owner]
    assert isinstance(name, str)
    kind = FORMATS[name]
    codes, scales = tensors[f"{owner}.weight"], tensors[f"{owner}.block_scale"].float()
    rows = len(codes)
    if kind.bits == 4:
        codes = torch.stack((codes & 15, codes >> 4), 1).view(rows, 2, -1, 32).transpose(1, 2)
    parts = scales.view(rows, -1, 2 if kind.has_minimums else 1)
    found = codes.float().reshape(rows, -1, kind.group) * parts[..., :1]
    return (found - parts[..., 1:] if kind.has_minimums else found).flatten(1)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama", **WIDE)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, model: Any) -> ModelFiles:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, "llama", model, quantized=KINDS)
    return read_gguf(path)


def test_what_is_said_of_them(files: ModelFiles) -> None:
    block = files.config.get("quantization")
    assert block is not None
    assert (block["name"], block["version"], block["outlier_columns"]) == ("gguf", 1, {})
    ends = {"q_proj": "int4_32", "k_proj": "int4_32", "v_proj": "int8_32"}
    assert block["formats"] == {
        "embed_tokens": "int8_32",
        **{
            f"layers.{layer}.attention.{end}": name
            for layer in (0, 1)
            for end, name in ends.items()
        },
    }
    dense = ("attention.o_proj", "feed_forward.w_gate", "feed_forward.w_up", "feed_forward.w_down")
    assert set(block["skipped"]) == {  # type: ignore[arg-type]
        "lm_head",
        *(f"layers.{layer}.{name}" for layer in (0, 1) for name in dense),
    }
    # Two of BF16 and two of Q5_1, against two times two and the head in F32.
    assert files.config["dtype"] == "float32"
    declared = block["tensors"]
    assert isinstance(declared, dict)
    tensors = read(files)
    names = {"U8": torch.uint8, "I8": torch.int8, "F16": torch.float16}
    assert {name: tensors[name].dtype for name in declared} == {
        name: names[str(dtype)] for name, dtype in declared.items()
    }
    assert all(tensors[name].is_floating_point() for name in tensors.keys() - declared.keys())


def test_their_values_are_those_of_the_file(files: ModelFiles, model: Any) -> None:
    state, tensors = model.state_dict(), read(files)
    for layer in (0, 1):
        for ours, heads, kind in (
            ("q_proj", 4, "Q4_0"),
            ("k_proj", 2, "Q4_1"),
            ("v_proj", 0, "Q8_0"),
        ):
            weight = state[f"model.layers.{layer}.self_attn.{ours}.weight"]
            stored = rounded(permuted(weight, heads) if heads else weight, kind)
            found = values(tensors, files, f"layers.{layer}.attention.{ours}")
            assert torch.equal(permuted(found, heads) if heads else found, stored)
        weight = state[f"model.layers.{layer}.self_attn.o_proj.weight"]
        output = tensors[f"layers.{layer}.attention.o_proj.weight"]
        assert output.dtype == torch.bfloat16  # no format has the values of Q5_1
        assert torch.equal(output, rounded(weight, "Q5_1").bfloat16())
    embedding = rounded(state["model.embed_tokens.weight"], "Q8_0")
    assert torch.equal(values(tensors, files, "embed_tokens"), embedding)


def test_experts(tmp_path: Path) -> None:
    model = tiny_model("mixtral", **WIDE)
    path = write_gguf(tmp_path / "experts.gguf", "llama", model, quantized=KINDS)
    files = read_gguf(path)
    tensors, state = read(files), model.state_dict()
    gate_up = state["model.layers.1.mlp.experts.gate_up_proj"]
    for expert in range(8):
        gate, up = gate_up[expert].chunk(2)
        owner = f"layers.1.feed_forward.experts.{expert}"
        assert torch.equal(values(tensors, files, f"{owner}.w_up"), rounded(up, "Q4_0"))
        assert torch.equal(tensors[f"{owner}.w_gate.weight"], rounded(gate, "Q5_1").bfloat16())
    router = tensors["layers.1.feed_forward.router.weight"]
    assert router.dtype == torch.float32  # a router is no linear, and is read as numbers
    assert torch.equal(router, rounded(state["model.layers.1.mlp.gate.weight"], "Q8_0"))


def test_a_model_of_types_without_a_format_is_not_quantized(tmp_path: Path, model: Any) -> None:
    path = write_gguf(
        tmp_path / "tiny.gguf", "llama", model, quantized={"_norm.weight": "F32", "": "Q5_1"}
    )
    files = read_gguf(path)
    assert "quantization" not in files.config and files.config["dtype"] == "bfloat16"
    with torch.inference_mode():
        logits = load_model(files, {"llama": LlamaFamily()}, dtype="float32")(
            torch.tensor([[1, 5]])
        )
    assert logits.isfinite().all()


def test_row_475_scales_that_are_no_numbers(tmp_path: Path, model: Any) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", "llama", model, quantized=KINDS)
    key = "blk.0.attn_v.weight"
    header = FileCheckpointIO().gguf(path)
    content = bytearray(path.read_bytes())
    place = header.data_start + header.tensors[key].begin
    content[place : place + 2] = b"\x00\x7c"  # infinity
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"v_proj\.block_scale' holds NaN or Inf"):
        read(read_gguf(path))


def test_every_grouped_format_is_made() -> None:
    assert {kind.grouped for kind in BLOCKS.values() if kind.grouped} == set(FORMATS)
