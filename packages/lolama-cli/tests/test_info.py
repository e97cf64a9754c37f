"""``lolama info``: what it tells, and that the memory it predicts is what a process takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from program import environment
from torch import Tensor
from warm_program import WarmProgram, on_terminal, run

import lolama
import lolama_core
from lolama import names, quantize
from lolama.memory import weight_bytes
from lolama_core import Llama, LlamaConfig, write_checkpoint
from lolama_core.protocols.types import CanonicalConfig
from lolama_hub.testing.repository import SMALL_FILES
from lolama_hub.testing.stand_in_hub import StandInHub

ALIAS = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"

PEAK = """
import json, re, sys
from pathlib import Path
import torch

def rss(field):
    return int(re.search(rf"{field}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

before = rss("VmRSS")
from lolama import GenerationConfig, TextGenerator, names, wiring
name, weights, context = sys.argv[1], sys.argv[2], int(sys.argv[3])
files = names.resolve(name)
tokenizer = wiring.tokenizer_of(files)
dtype = None if weights == "int8" else weights
model = wiring.load_files(wiring.quantized(files) if weights == "int8" else files, dtype=dtype)
wiring.suit_threads(model)
ids = (tokenizer.encode("Once upon a time there was a dog. ") * context)[: context - 8]
config = GenerationConfig(max_new_tokens=8, ignore_eos=True, seed=1)
assert len(TextGenerator(model, tokenizer).generate(ids, config).ids) == 8
print(rss("VmHWM") - before)
"""


def facts(*arguments: str | Path, env: dict[str, str] | None = None) -> dict[str, Any]:
    outcome = run("info", *arguments, "--json", env=env)
    assert (outcome.code, outcome.err) == (0, "")
    found: dict[str, Any] = json.loads(outcome.out)
    return found


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """110 MB in bfloat16, of random weights."""
    directory = tmp_path_factory.mktemp("random") / "model"
    shape = LlamaConfig(
        vocab_size=2048,
        d_model=1024,
        num_heads=16,
        num_layers=24,  # so that weights outweigh what operators take, which depends on the processor
        hidden_dim=2816,
        max_seq_len=2048,
    )
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Llama(shape).state_dict().items()}

    def tensors() -> Iterator[tuple[str, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        values = {  # the layers may be alike
            size: torch.empty(size).normal_(0, 0.02, generator=generator).bfloat16()
            for size in set(shapes.values())
        }
        for name, size in shapes.items():
            yield name, values[size]

    config: CanonicalConfig = {
        "format": "lolama",
        "format_version": 1,
        "family": "llama",
        "model": {key: value for key, value in shape.to_json().items() if value is not None},
        "dtype": "bfloat16",
        "generation": {"eos_ids": []},
        "tokenizer": {},
    }
    text = (Path(lolama_core.__file__).parent / "demo" / "tokenizer.json").read_text("utf-8")
    write_checkpoint(directory, config, tensors(), tokenizer_json=text)
    return directory


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is counted by Linux")
@pytest.mark.parametrize(("weights", "context"), [("bfloat16", 300), ("int8", 100)])
def test_predicted_memory_is_within_7_percent_of_the_peak(
    random_model: Path, tmp_path: Path, weights: str, context: int
) -> None:
    home = {"LOLAMA_HOME": str(tmp_path)}
    if weights == "int8":  # kept first, or making it would be measured
        assert run("quantize", "-m", random_model, env=home).code == 0
    command = [sys.executable, "-c", PEAK, str(random_model), weights, str(context)]
    told = subprocess.run(command, env=environment(home), capture_output=True, check=True)
    peak = int(told.stdout)
    memory = facts(random_model, "--context", str(context))["memory"]
    (need,) = (one for one in memory if one["weights"] == weights)
    assert need["context"] == context
    processor = re.findall("model name.*|amx_tile", Path("/proc/cpuinfo").read_text("utf-8"))
    assert need["bytes"] == pytest.approx(peak, rel=0.07), set(processor)


def test_what_it_tells_of_a_model_that_is_here(chatty: Path) -> None:
    found = facts(chatty)
    module = cast(torch.nn.Module, lolama_core.load(chatty, device="cpu")[0])
    assert found["parameters"] == sum(tensor.numel() for tensor in module.state_dict().values())
    assert (found["downloaded"], found["chat_template"], found["dtype"]) == (True, True, "float32")
    assert (found["context_length"], found["shape"]["num_layers"]) == (4096, 1)
    sizes = {Path(file["name"]).name: file["bytes"] for file in found["files"]}
    assert sizes == {
        name: (chatty / name).stat().st_size for name in ("model.safetensors", "tokenizer.json")
    }
    ways = [(need["weights"], need["context"]) for need in found["memory"]]
    assert ways == [
        (weights, context)
        for weights in ("float32", "bfloat16", "int8", "int4")
        for context in (512, 2048, 4096)
    ]
    assert all(need["fits"] for need in found["memory"])


def test_a_published_folder_and_an_int8_model(published: Path, base: Path, tmp_path: Path) -> None:
    assert facts(published)["parameters"] == facts(base)["parameters"]
    small = tmp_path / "small"
    assert run("quantize", "-m", base, "-o", small).code == 0
    found = facts(small)
    assert found["quantization"] == "int8"
    assert found["parameters"] == facts(base)["parameters"]
    assert {need["weights"] for need in found["memory"]} == {"float32"}
    predicted = {need["weights"]: need["bytes"] for need in facts(base)["memory"]}
    assert found["memory"][-1]["bytes"] == predicted["int8"]


def test_of_a_model_that_is_not_downloaded_it_tells_what_is_known_offline() -> None:
    found = facts("tinyllama")
    assert (found["downloaded"], found["repo"], found["license"]) == (False, ALIAS, "Apache-2.0")
    assert (found["size"], found["download_bytes"]) == ("1.1B", 2_200_000_000)
    assert found["parameters"] is None and found["files"] == [] and found["memory"] == []
    run("info", "owner/unknown").refused(4, "owner/unknown", "is not downloaded")


def test_of_a_model_on_the_hub_it_tells_the_files(tmp_path: Path, warm: WarmProgram) -> None:
    weights = bytes(5_000_000)
    files = {**SMALL_FILES, "model.safetensors": weights}
    with StandInHub({"owner/model": dict(files)}) as hub:
        env = {**hub.environment(), "LOLAMA_HOME": str(tmp_path / "home")}
        found = facts("owner/model", env=env)
    assert not found["downloaded"] and len(found["revision"]) == 40
    assert {file["name"]: file["bytes"] for file in found["files"]} == {
        name: len(content) for name, content in files.items()
    }
    # config.json has been read to see whether the model can be used.
    rest = {name: content for name, content in files.items() if name != "config.json"}
    assert found["download_bytes"] == sum(map(len, rest.values()))
    assert not (tmp_path / "home" / "models").exists()


def test_what_does_not_fit_is_said(published: Path, tmp_path: Path) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).write_bytes((published / name).read_bytes())
    config = json.loads((published / "config.json").read_bytes())
    config["max_position_embeddings"] = 1_000_000_000
    (folder / "config.json").write_text(json.dumps(config))
    found = facts(folder, "--context", "1000000000")
    assert not any(need["fits"] for need in found["memory"])
    assert b"does not fit" in run("info", folder, "--context", "1000000000").out


def test_experts_count_in_size_and_memory(tmp_path: Path) -> None:
    shape = LlamaConfig(
        vocab_size=64,
        d_model=64,
        num_heads=4,
        num_layers=2,
        hidden_dim=96,
        max_seq_len=64,
        num_experts=6,
        experts_per_token=2,
        expert_dim=48,
        shared_expert_dim=32,
        dense_layers=(0,),
    )
    model = Llama(shape).bfloat16()
    lolama.save(model, tmp_path / "experts")
    found = facts(tmp_path / "experts")
    assert found["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert found["shape"]["num_experts"] == 6
    shown = run("info", tmp_path / "experts").out.decode()
    assert "2 of 6 experts of width 48 for each token, and a shared one of 32" in shown
    assert "; in 1 of 2 layers none, but width 96" in shown
    files = names.resolve(str(tmp_path / "experts"))
    told = weight_bytes(files, "bfloat16", bits=8)
    saved = quantize.describe(files, quantize.save(files, tmp_path / "int8"))
    int8 = lolama.load_model(str(tmp_path / "int8"), device="cpu", dtype="bfloat16")
    assert len(saved.replaced) == 2 * 4 + 3 + 3 * 7
    assert told == sum(weight.nbytes for weight in int8.parameters())
    assert told == weight_bytes(names.resolve(str(tmp_path / "int8")), "bfloat16")


def test_options_and_names_that_make_no_sense() -> None:
    run("info", "demo", "--context", "0").refused(2, "--context", "1 or more")
    run("info", "demo", "--context", "513").refused(2, "--context", "513", "512", "fewer")
    run("info", "dmeo").refused(2, "dmeo", "did you mean demo?")
    run("info", "tinylama").refused(2, "tinylama", "did you mean tinyllama?")


def test_on_a_terminal_it_fits_80_columns() -> None:
    outcome = on_terminal("info", "demo", env={"NO_COLOR": "1"})
    lines = re.sub(r"\x1b\[[0-9;]*m", "", outcome.out.decode()).replace("\r\n", "\n").splitlines()
    assert outcome.code == 0 and max(map(len, lines)) <= 80
    assert any("fits here" in line for line in lines)


def write_gguf(path: Path) -> Path:
    """A model of one layer in GGUF, whose weights are of several types."""
    import gguf

    torch.manual_seed(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (64, 64))
    shapes |= {"ffn_up": (96, 64), "ffn_gate": (96, 64), "ffn_down": (64, 96)}
    kinds = {"token_embd": "Q8_0", "attn_q": "Q4_0", "attn_k": "Q5_0", "ffn_down": "Q4_1"}
    named = {f"blk.0.{name}": shape for name, shape in shapes.items()}
    norms = {"blk.0.attn_norm": (64,), "blk.0.ffn_norm": (64,), "output_norm": (64,)}
    for name, shape in {"token_embd": (96, 64), **named, **norms}.items():
        kind = gguf.GGMLQuantizationType[kinds.get(name.rpartition(".")[2], "F32")]
        values = torch.randn(shape).numpy()
        if kind.name == "F32":
            writer.add_tensor(f"{name}.weight", values)
        else:
            writer.add_tensor(f"{name}.weight", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_model_in_gguf(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf")
    found = facts(path)
    assert found["parameters"] == 96 * 64 + 4 * 64 * 64 + 3 * 96 * 64 + 3 * 64
    assert found["quantization"] == "gguf"
    files = names.resolve(str(path))
    tensors = dict(lolama_core.FileCheckpoint(files).tensors())
    declared = files.config.get("quantization", {})["tensors"]
    assert isinstance(declared, dict)
    loaded = sum(
        one.nbytes if name in declared or one.dim() == 1 else 4 * one.numel()
        for name, one in tensors.items()
    )
    assert weight_bytes(files, "float32") == loaded
