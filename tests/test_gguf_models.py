"""Models in GGUF across the packages: the built-in model as such a file, and weights in blocks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from torch import Tensor

import lolama
import lolama_core
from lolama import names
from lolama.convert import convert
from lolama_core import FileCheckpoint, GenerationConfig, TextGenerator
from lolama_core.protocols.grouped import FORMATS
from lolama_hub.gguf.block_types import BLOCKS
from lolama_hub.gguf.blocks import dequantized, grouped
from lolama_hub.testing.gguf_metadata import byte_level_metadata
from lolama_quant.grouped.codes import dequantize

DEMO = Path(lolama_core.__file__).parent / "demo"
NAMES = {
    "embed_tokens": "token_embd",
    "lm_head": "output",
    "attention.q_proj": "attn_q",
    "attention.k_proj": "attn_k",
    "attention.v_proj": "attn_v",
    "attention.o_proj": "attn_output",
    "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "feed_forward.w_gate": "ffn_gate",
    "feed_forward.w_up": "ffn_up",
    "feed_forward.w_down": "ffn_down",
}


def stored_name(name: str) -> str:
    """GGUF's name of a canonical tensor."""
    if name == "norm.weight":
        return "output_norm.weight"
    for ours, theirs in NAMES.items():
        name = (
            name.replace(f".{ours}.", f".{theirs}.")
            if "layers" in name
            else name.replace(ours, theirs)
        )
    return name.replace("layers.", "blk.")


def permuted(weight: Tensor, heads: int) -> Tensor:
    """Rows of q or k as llama.cpp has them: rotated pairs stand side by side."""
    width = len(weight) // heads // 2
    return weight.view(heads, 2, width, -1).transpose(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def demo_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model ``demo``, in F16 as it is stored."""
    files = names.resolve("demo")
    config: dict[str, Any] = files.config["model"]
    path = tmp_path_factory.mktemp("gguf") / "demo-F16.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_layers"])
    writer.add_context_length(config["max_seq_len"])
    writer.add_embedding_length(config["d_model"])
    writer.add_feed_forward_length(config["hidden_dim"])
    writer.add_head_count(config["num_heads"])
    writer.add_head_count_kv(config["num_kv_heads"])
    writer.add_layer_norm_rms_eps(config["eps"])
    writer.add_rope_freq_base(config["rope_base"])
    text = (DEMO / "tokenizer.json").read_text(encoding="utf-8")
    metadata = byte_level_metadata(text, bos_token_id=0, eos_token_id=1, add_bos_token=True)
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif key != "general.architecture":
            writer.add_string(key, value)
    writer.add_chat_template((DEMO / "chat_template.jinja").read_text(encoding="utf-8"))
    for name, tensor in FileCheckpoint(files).tensors():
        for part, heads in (("q_proj", "num_heads"), ("k_proj", "num_kv_heads")):
            if part in name:
                tensor = permuted(tensor, config[heads])
        is_norm = tensor.dim() == 1
        writer.add_tensor(
            stored_name(name), tensor.float().numpy() if is_norm else tensor.half().numpy()
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_it_writes_the_same_text(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    config = GenerationConfig.greedy(max_new_tokens=60)
    prompts = ["Once upon a time there was a dog", "Question: what does a cow say?"]
    texts = []
    for name in ("demo", str(demo_gguf)):
        model = lolama.load(name, device="cpu", dtype="float32")
        generator = TextGenerator(model.model, model.tokenizer)
        texts.append([generator.generate(prompt, config).text for prompt in prompts])
        talk = [{"role": "user", "content": "What does a cow say?"}]
        texts[-1].append(model.tokenizer.render_chat(talk))  # type: ignore[arg-type]
    assert texts[0] == texts[1]


def test_a_checkpoint_made_of_it_is_the_same_model(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    convert(str(demo_gguf), tmp_path / "made")
    shutil.rmtree(tmp_path / "home")  # it stands for itself
    made = dict(FileCheckpoint(names.resolve(str(tmp_path / "made"))).tensors())
    ours = dict(FileCheckpoint(names.resolve("demo")).tensors())
    assert made.keys() == ours.keys()
    assert all((made[name].float() == ours[name].half().float()).all() for name in ours)


@pytest.mark.parametrize("inputs", [256, 1280])
@pytest.mark.parametrize("name", [name for name, kind in BLOCKS.items() if kind.grouped])
def test_blocks_are_what_the_products_take_them_for(name: str, inputs: int) -> None:
    kind, generator = BLOCKS[name], torch.Generator().manual_seed(0)
    shape = (6, inputs // kind.inputs, kind.size)
    blocks = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    blocks &= 0x3B  # no float16 is huge, wherever a type has them
    rows, form = blocks.flatten(1), FORMATS[kind.grouped]
    tensors = {part: grouped(kind, rows, part) for part in form.tensors(6, inputs)}
    found = dequantize(tensors, form, inputs)
    assert found.isfinite().all()
    assert torch.equal(found, dequantized(kind, rows))
