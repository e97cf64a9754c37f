"""Models as GGUF files: they are the same model to lolama, and what llama.cpp's own library would hold."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gguf
import numpy as np
import pytest
import torch
from gguf_cases import CASES, more, tiny_model
from gguf_files import read_gguf, stored_tensors, write_gguf
from tiny_folders import write_json
from torch import Tensor

import lolama_core
from lolama_core import FileCheckpoint, LlamaConfig, LlamaFamily, load_model
from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, CanonicalConfig, ModelFiles
from lolama_core.testing import tiny
from lolama_hub.gguf.export import GGUFContent, as_gguf

Resolve = Callable[[Path], ModelFiles]
FAMILIES = {"llama": LlamaFamily()}
VOCAB = 300
IMPLIED = (
    "rope.scaling.finetuned",
    "rope.freq_base_swa",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_log_multiplier",
)
"""Keys that say what is so without them, or is said by another one."""


def save(model: Any, folder: Path) -> Path:
    """A folder with the model, and a tokenizer of bytes."""
    model.save_pretrained(folder)
    letters = {token: number for number, token in enumerate([*tiny.byte_characters(), "th"])}
    text = tiny.byte_level(letters, [("t", "h")], specials=["<s>", "</s>"], bos="<s>")
    (folder / "tokenizer.json").write_text(text)
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    return folder


def content_of(files: ModelFiles, outtype: str | None = None) -> GGUFContent:
    module = lolama_core.build_module(files, FAMILIES)
    shapes = {name: tuple(module.state_dict()[name].shape) for name in files.tensors}
    return as_gguf(
        files,
        shapes,
        lambda block: LlamaConfig.from_json(block).to_json(),
        FileCheckpointIO(),
        outtype,
    )


def write(files: ModelFiles, path: Path, outtype: str | None = None) -> Path:
    content = content_of(files, outtype)
    parts = content.parts(FileCheckpoint(files).tensors())
    lolama_core.write_gguf(path, content.metadata, content.tensors, parts)
    return path


def logits_of(files: ModelFiles) -> Tensor:
    ids = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return load_model(files, FAMILIES, device="cpu", dtype="float32")(ids)


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_same_model(case: str, tmp_path: Path, resolve: Resolve) -> None:
    _, model_type, changes = CASES[case]
    model = tiny_model(model_type, {**changes, "vocab_size": VOCAB}).bfloat16()
    files = resolve(save(model, tmp_path / "folder"))
    read = read_gguf(write(files, tmp_path / "a.gguf"))
    assert read.config["dtype"] == "bfloat16" and read.tensors.keys() == files.tensors.keys()
    expected, found = logits_of(files), logits_of(read)
    if case == "llama_3_short":  # settings that no published model has become factors, in float32
        assert (found - expected).abs().max() < 1e-4
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("case", CASES)
def test_it_holds_what_llama_cpp_s_converter_writes(
    case: str, tmp_path: Path, resolve: Resolve
) -> None:
    architecture, model_type, changes = CASES[case]
    model = tiny_model(model_type, {**changes, "vocab_size": VOCAB})
    path = write(resolve(save(model, tmp_path / "folder")), tmp_path / "a.gguf", "f32")
    ours: Any = gguf.GGUFReader(path)
    found = {one.name: one.data for one in ours.tensors}
    written = ours.get_field("general.architecture").contents()
    assert written == ("llama" if case == "mistral3" else architecture)
    expected = {name: one.float().numpy() for name, one in stored_tensors(model, written)}
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        exact = not name.startswith("rope_freqs")
        assert np.array_equal(found[name], one) if exact else np.allclose(found[name], one), name
    theirs: Any = gguf.GGUFReader(write_gguf(tmp_path / "b.gguf", written, model, more=more))
    implied = (*IMPLIED, "expert_used_count") if model_type == "granitemoehybrid" else IMPLIED
    for key, field in theirs.fields.items():
        if key.startswith(f"{written}.") and not key.endswith(implied):
            value = ours.get_field(key).contents()
            assert (value, ours.get_field(key).types) == (field.contents(), field.types), key
    assert {one.tensor_type.name for one in ours.tensors} == {"F32"}


@pytest.fixture
def files(tmp_path: Path, resolve: Resolve) -> ModelFiles:
    """A LLaMA whose rows have 64 and 96 inputs, and one of 40."""
    return resolve(save(tiny_model("llama", {"vocab_size": VOCAB}), tmp_path / "folder"))


def test_eight_bits_are_those_of_llama_cpp(files: ModelFiles, tmp_path: Path) -> None:
    exact: Any = gguf.GGUFReader(write(files, tmp_path / "f32.gguf", "f32"))
    rounded: Any = gguf.GGUFReader(write(files, tmp_path / "q8_0.gguf", "q8_0"))
    kind = gguf.GGMLQuantizationType.Q8_0
    for one, other in zip(exact.tensors, rounded.tensors, strict=True):
        if len(one.shape) == 1:
            assert other.tensor_type.name == "F32" and np.array_equal(one.data, other.data)
        else:
            assert other.tensor_type == kind
            assert np.array_equal(other.data, gguf.quantize(one.data, kind))
    assert rounded.get_field("general.file_type").contents() == 7


def test_rows_that_are_no_blocks_keep_16_bits(tmp_path: Path, resolve: Resolve) -> None:
    model = tiny_model("llama", {"vocab_size": VOCAB, "intermediate_size": 40})
    files = resolve(save(model.half(), tmp_path / "folder"))
    reader: Any = gguf.GGUFReader(write(files, tmp_path / "a.gguf", "q8_0"))
    kinds = {one.name: one.tensor_type.name for one in reader.tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16" and kinds["blk.0.ffn_up.weight"] == "Q8_0"


@pytest.mark.parametrize(
    ("dtype", "outtype", "kind", "number"),
    [
        (torch.float16, None, "F16", 1),
        (torch.bfloat16, None, "BF16", 32),
        (torch.float32, None, "BF16", 32),
        (torch.bfloat16, "f16", "F16", 1),
        (torch.bfloat16, "f32", "F32", 0),
    ],
)
def test_types_of_weights(
    dtype: torch.dtype,
    outtype: str | None,
    kind: str,
    number: int,
    tmp_path: Path,
    resolve: Resolve,
) -> None:
    model = tiny_model("llama", {"vocab_size": VOCAB}).to(dtype)
    path = write(resolve(save(model, tmp_path / "folder")), tmp_path / "a.gguf", outtype)
    reader: Any = gguf.GGUFReader(path)
    assert {one.tensor_type.name for one in reader.tensors if len(one.shape) > 1} == {kind}
    assert reader.get_field("general.file_type").contents() == number


@pytest.mark.parametrize(("outtype", "number"), [("f16", 1e5), ("q8_0", -1e7)])
def test_row_421_numbers_that_a_type_lacks_are_refused(
    outtype: str, number: float, tmp_path: Path, resolve: Resolve
) -> None:
    model = tiny_model("llama", {"vocab_size": VOCAB, "hidden_size": 32})
    with torch.no_grad():
        model.lm_head.weight[7, 5] = number
    files = resolve(save(model, tmp_path / "folder"))
    words = rf"'lm_head\.weight' has numbers that {outtype.upper()} does not have; choose `outtype="
    with pytest.raises(ModelError, match=words):
        write(files, tmp_path / "a.gguf", outtype)
    assert not (tmp_path / "a.gguf").exists()
    assert torch.isfinite(logits_of(read_gguf(write(files, tmp_path / "a.gguf")))).all()


def changed(files: ModelFiles, **fields: JSON) -> ModelFiles:
    """The same with other fields in its ``model`` block."""
    config = cast(CanonicalConfig, {**files.config, "model": {**files.config["model"], **fields}})
    return replace(files, config=config)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sliding_window": 16}, "GGUF's llama has no place for sliding_window 16"),
        ({"activation": "gelu"}, "GGUF's llama has no place for activation 'gelu'"),
        ({"rotary_dim": 8}, r"partial_rotary_factor is .*only whole heads"),
        ({"logit_divisor": 2.0, "attention_softcap": 5.0}, "has no place for attention_softcap"),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0, "original_max_seq_len": 80}},
            r"rope\.scaling\.type is 'dynamic', expected none, linear, yarn",
        ),
    ],
)
def test_what_has_no_place_is_named(files: ModelFiles, fields: dict[str, JSON], words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        content_of(changed(files, **fields))
    assert str(caught.value).endswith("use the model in lolama's own format")


def test_a_model_that_does_not_say_what_it_is(files: ModelFiles) -> None:
    """One that was trained here, say: the first architecture that is read as this model is taken."""
    config = cast(CanonicalConfig, {k: v for k, v in files.config.items() if k != "source"})
    bare = replace(files, config=config)
    assert content_of(bare).metadata["general.architecture"] == "llama"
    granite = changed(bare, logit_divisor=2.0, attention_scale=0.25)
    assert content_of(granite).metadata["general.architecture"] == "granite"


def test_a_model_whose_own_architecture_has_no_place(tmp_path: Path, resolve: Resolve) -> None:
    """llama.cpp reads no factors of pairs in a Qwen2; as a LLaMA with biases it does."""
    settings = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    settings |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    rope = {"rope_parameters": {**settings, "rope_theta": 10000.0}}
    model = tiny_model("qwen2", {"vocab_size": VOCAB, **rope})
    files = resolve(save(model, tmp_path / "folder"))
    assert content_of(files).metadata["general.architecture"] == "llama"
    read = read_gguf(write(files, tmp_path / "a.gguf", "f32"))
    assert (logits_of(read) - logits_of(files)).abs().max() < 1e-4


def test_settings_and_names(tmp_path: Path, resolve: Resolve) -> None:
    folder = save(tiny_model("llama", {"vocab_size": VOCAB}), tmp_path / "my-phi3")
    write_json(
        folder / "generation_config.json",
        {"temperature": 0.3, "top_k": 7, "top_p": 0.9, "typical_p": 0.5, "do_sample": True},
    )
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    files = resolve(folder)
    content = content_of(files)
    # llama.cpp takes it that a model of that name has Phi-3's tokens.
    assert "general.name" not in content.metadata
    assert content_of(replace(files, name="x/y")).metadata["general.name"] == "y"
    read = read_gguf(write(files, tmp_path / "a.gguf"))
    kept = {"temperature": 0.3, "top_k": 7, "top_p": 0.9}
    assert read.config["generation"]["sampling"] == kept
    assert read.tokenizer.chat_template == "{{ messages[0].content }}"
    sampling = files.config["generation"]["sampling"]
    assert set(content.left_out) == sampling.keys() - kept.keys()


def test_row_421_settings_and_names_that_a_file_cannot_have(files: ModelFiles) -> None:
    config = cast(CanonicalConfig, dict(files.config))
    sampling: dict[str, JSON] = {"top_k": 10**12, "temperature": 1e30, "top_p": 0.5, "min_p": "a"}
    config["generation"] = {"eos_ids": [], "vocab_size": VOCAB, "sampling": sampling}
    content = content_of(replace(files, name=os.fsdecode(b"models/n\xff"), config=config))
    assert content.metadata["general.name"] == "n\N{REPLACEMENT CHARACTER}"
    kept = {key for key in content.metadata if key.startswith("general.sampling.")}
    assert kept == {"general.sampling.top_p"}
    assert content.left_out == ["top_k", "temperature", "min_p"]


def test_rows_are_written_a_few_at_a_time(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(files, tmp_path / "a.gguf").read_bytes()
    monkeypatch.setattr("lolama_hub.gguf.export._AT_ONCE", 100)
    assert write(files, tmp_path / "b.gguf").read_bytes() == whole


def test_a_model_without_a_tokenizer_is_refused(files: ModelFiles) -> None:
    wordless = replace(files, tokenizer=lolama_core.protocols.types.TokenizerFiles())
    with pytest.raises(ModelError, match="has no tokenizer, without which llama"):
        content_of(wordless)


def test_metadata_are_json_s(files: ModelFiles) -> None:
    """Nothing but what `GGUFValue` allows."""
    json.dumps(dict(content_of(files).metadata))
