"""Models in GGUF across the packages: the built-in model as such a file, and weights in blocks."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from torch import Tensor

import lolama
import lolama_core
from lolama import names, quantize
from lolama.convert import convert
from lolama.requantize import about
from lolama.wiring import load_files
from lolama_core import FileCheckpoint, GenerationConfig, TextGenerator
from lolama_core.files.gguf_header import read_gguf_header
from lolama_core.files.safetensors_header import TensorInfo
from lolama_core.files.tensor_file import TensorFile
from lolama_core.protocols.errors import UsageError
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


@pytest.mark.parametrize("outtype", [None, "f32", "q8_0"])
def test_a_file_made_of_a_model_is_the_same_model(
    outtype: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    convert("demo", tmp_path / "made.gguf", outtype=outtype)
    models = [
        lolama.load(name, device="cpu", dtype="float32")
        for name in ("demo", tmp_path / "made.gguf")
    ]
    ids = models[0].tokenizer.encode_ids("Question: what does a cow say?\nAnswer:")
    assert ids == models[1].tokenizer.encode_ids("Question: what does a cow say?\nAnswer:")
    with torch.inference_mode():
        logits = [model.model(torch.tensor([list(ids)])) for model in models]
    if outtype == "q8_0":
        assert 0 < (logits[0] - logits[1]).abs().max() < 0.5
    else:
        assert torch.equal(logits[0], logits[1])
    sampling = [model.model.generation_defaults for model in models]
    assert sampling[0] == sampling[1]
    talk = [{"role": "user", "content": "What does a cow say?"}]
    chats = [model.tokenizer.render_chat(talk) for model in models]  # type: ignore[arg-type]
    assert chats[0] == chats[1]


def test_what_is_not_written_as_a_file(
    demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    path = tmp_path / "a.gguf"
    for name, words in (
        (
            "demo-vision",
            "is a model that sees, which is not written as a .gguf file; write a folder",
        ),
        (tmp_path / "int8", "is quantized already; convert the model it was made from"),
        (tmp_path / "mixed.gguf", "is quantized already; convert the model it was made from"),
    ):
        if name == tmp_path / "int8":
            quantize.save(names.resolve("demo"), tmp_path / "int8")
        if name == tmp_path / "mixed.gguf":
            mixed(demo_gguf, tmp_path / "mixed.gguf")
        with pytest.raises(UsageError, match=words):
            convert(name, path)
    with pytest.raises(
        UsageError, match="outtype: 'q4_k' is no type of weights here; use f32, f16"
    ):
        convert("demo", path, outtype="q4_k")
    with pytest.raises(UsageError, match=r"outtype: is for a \.gguf file"):
        convert("demo", tmp_path / "folder", outtype="f16")
    path.write_text("mine")
    with pytest.raises(
        UsageError, match="exists already; choose another name, or add `force=True`"
    ):
        convert("demo", path)
    assert path.read_text() == "mine"
    convert("demo", path, force=True)
    assert lolama.load_tokenizer(path).bos_id == 0
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is the file of the model itself; choose another name"):
        convert(path, path, force=True)
    assert path.read_bytes() == before


def mixed(source: Path, path: Path) -> Path:
    """The same model with some weights in Q8_0, which has a form here, and some in Q5_1, which has none."""
    return with_blocks(source, path, {"attn_q.weight": "Q8_0", "ffn_down.weight": "Q5_1"})


def test_row_411_what_is_asked_for_is_checked_before_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    with pytest.raises(UsageError, match="outtype: 'q4_0' is no type of weights here; use f32"):
        convert("tinyllama", tmp_path / "a.gguf", outtype="q4_0")
    convert("demo", tmp_path / ".gguf")
    assert (tmp_path / ".gguf").is_file()


def with_blocks(source: Path, path: Path, kinds: Mapping[str, str]) -> Path:
    """The same model with blocks of these types, by how the names of their tensors end."""
    header = read_gguf_header(source)
    file, parts, headers = TensorFile(header), [], {}
    for name, info in header.tensors.items():
        rows, kind = file.read(name), info.dtype
        for end, found in kinds.items():
            if name.endswith(end):
                kind = found
                blocks = gguf.quantize(rows.float().numpy(), gguf.GGMLQuantizationType[kind])
                rows = torch.from_numpy(blocks)
        headers[name] = TensorInfo(kind, info.shape, 0, 0)
        parts.append((name, 0, rows))
    lolama_core.write_gguf(path, header.metadata, headers, parts)
    return path


@pytest.mark.parametrize("inside", ["Q5_1", "F16"])
def test_row_407_blocks_in_the_embedding_alone(
    inside: str, demo_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    linears = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    kinds = {f"{name}.weight": inside for name in linears} | {"token_embd.weight": "Q8_0"}
    source = names.resolve(with_blocks(demo_gguf, tmp_path / "a.gguf", kinds))
    dense = names.resolve(demo_gguf)
    ids = lolama.load_tokenizer("demo").encode_ids("Once upon a time there was a dog, and")
    logits = []
    for one in (dense, source, quantize.keep(source, quantize.Options(bits=4))):
        model: Any = load_files(one, device="cpu", dtype="float32")
        with torch.inference_mode():
            logits.append(model(torch.tensor([list(ids)])).log_softmax(-1))
    for found in logits[1:]:
        assert 0 < (logits[0].exp() * (logits[0] - found)).sum(-1).mean() < 0.1


@pytest.mark.parametrize("calibration", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_what_has_16_bits_in_a_file_gets_fewer_on_request(
    bits: int,
    calibration: bool,
    demo_gguf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("lolama.calibration.TOKENS", 512)
    source = names.resolve(mixed(demo_gguf, tmp_path / "mixed.gguf"))
    options = quantize.Options(bits=bits, calibration=calibration)
    files = quantize.save(source, tmp_path / "made", options)
    # Five linears of six layers have 16 bits; so have the embedding and the output, which is tied to it.
    new = 6 * 6 + (2 if bits == 4 else 0)
    said = f"{source.name}: 6 layers keep the values of the file, {new} of 16 bits get fewer"
    assert about(source, options.left(source)) == said
    block: Any = files.config["quantization"]
    inside = "int4" if bits == 4 else "int8"
    expected = {f"layers.{n}.attention.q_proj": "int8_32" for n in range(6)}
    for part in ("attention.k_proj", "attention.v_proj", "attention.o_proj"):
        expected |= {f"layers.{n}.{part}": inside for n in range(6)}
    for part in ("w_gate", "w_up", "w_down"):
        expected |= {f"layers.{n}.feed_forward.{part}": inside for n in range(6)}
    if bits == 4:
        expected |= {"embed_tokens": "int4", "lm_head": "int8"}
    assert (block["name"], block["formats"], block["skipped"]) == ("gguf", expected, [])
    ours, theirs = (dict(FileCheckpoint(one).tensors()) for one in (files, source))
    for part in ("weight", "block_scale"):
        name = f"layers.3.attention.q_proj.{part}"
        assert torch.equal(ours[name], theirs[name])
    text = lolama.load_tokenizer("demo").encode_ids("Once upon a time there was a dog, and")
    logits = []
    for one in (source, files):
        model: Any = load_files(one, device="cpu", dtype="float32")
        with torch.inference_mode():
            logits.append(model(torch.tensor([list(text)])).log_softmax(-1))
    loss = (logits[0].exp() * (logits[0] - logits[1])).sum(-1).mean()
    assert 0 < loss < (0.001 if bits == 8 else 0.1)
    # There is nothing more to do.
    assert quantize.keep(files, options) is files
    with pytest.raises(UsageError, match="is quantized already"):
        quantize.save(files, tmp_path / "again", options)
    assert quantize.keep(source, options).config["quantization"] == block


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
