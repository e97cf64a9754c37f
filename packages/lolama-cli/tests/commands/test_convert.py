"""`lolama convert`: what it writes and says, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from warm_program import run

from lolama_core.files.gguf_header import read_gguf_header
from lolama_core.files.gguf_writer import write_gguf
from lolama_core.files.safetensors_header import TensorInfo
from lolama_core.files.tensor_file import TensorFile


def test_a_file_for_llama_cpp(tmp_path: Path) -> None:
    path = tmp_path / "demo.gguf"
    outcome = run("convert", "demo", path)
    assert (outcome.code, outcome.out.decode(), outcome.err) == (0, f"{path}\n", "")
    header = read_gguf_header(path)
    assert header.metadata["general.architecture"] == "llama"
    assert header.tensors["token_embd.weight"].dtype == "BF16"
    run("convert", "demo", path).refused(2, str(path), "exists already", "or add --force")
    outcome = run("convert", "demo", path, "--force", "--outtype", "q8_0", "--json")
    facts = json.loads(outcome.out)
    assert (facts["model"], facts["directory"]) == ("demo", str(path))
    assert read_gguf_header(path).tensors["token_embd.weight"].dtype == "Q8_0"
    assert run("generate", "-m", path, "--max-tokens", "3", "Once").code == 0


def test_row_423_a_file_that_would_take_its_own_place(tmp_path: Path) -> None:
    path, link = tmp_path / "demo.gguf", tmp_path / "link.gguf"
    assert run("convert", "demo", path).code == 0
    link.symlink_to(path)
    before = path.read_bytes()
    for target in (path, link):
        outcome = run("convert", path, target, "--force", "--outtype", "q8_0")
        outcome.refused(2, str(target), "is the file of the model itself", "choose another name")
    assert path.read_bytes() == before and link.is_symlink()


def test_a_checkpoint_in_the_place_of_another(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    assert run("convert", "demo", target).code == 0
    run("convert", "demo", target).refused(2, str(target), "exists already", "or add --force")
    assert run("convert", "demo", target, "--force").code == 0
    (target / "mine").touch()
    run("convert", "demo", target, "--force").refused(2, "also holds 'mine'")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.gguf", "--outtype", "q4_k"), ("--outtype", "'q4_k' is no type of weights here")),
        (("folder", "--outtype", "f16"), ("--outtype", "is for a .gguf file")),
        (("no/such/a.gguf",), ("the folder to write it in does not exist", "create it first")),
        (("A.GGUF/x.gguf",), ("the folder to write it in does not exist",)),
    ],
)
def test_what_is_refused(
    arguments: tuple[str, ...],
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run("convert", "demo", *arguments).refused(2, *words)
    assert list(tmp_path.iterdir()) == []


def test_quantize_takes_what_a_file_has_in_16_bits(tmp_path: Path) -> None:
    """Q5_1 has no form here of equal values; the other weights keep theirs."""
    path, mixed = tmp_path / "q8_0.gguf", tmp_path / "mixed.gguf"
    assert run("convert", "demo", path, "--outtype", "q8_0").code == 0
    run("quantize", "-m", path, "-o", tmp_path / "made").refused(2, "is quantized already")
    header = read_gguf_header(path)
    file, headers, parts = TensorFile(header), {}, []
    for name, info in header.tensors.items():
        rows, kind = file.read(name), info.dtype
        if name.endswith("ffn_down.weight"):  # of 512 inputs: 24 bytes for each 32
            kind, rows = "Q5_1", torch.zeros(len(rows), 16 * 24, dtype=torch.uint8)
        headers[name] = TensorInfo(kind, info.shape, 0, 0)
        parts.append((name, 0, rows))
    write_gguf(mixed, header.metadata, headers, parts)
    outcome = run("quantize", "-m", mixed, "-o", tmp_path / "made")
    said = f"{mixed.name}: 37 layers keep the values of the file, 6 of 16 bits get fewer\n"
    assert (outcome.code, outcome.err.endswith(said)) == (0, True), outcome.err
    text = tmp_path / "text"
    text.write_text("Once upon a time")
    run("quantize", "-m", mixed, "--bits", "4", "--calibrate", text, "-o", tmp_path / "b").refused(
        2, "--calibrate: is for models of 16 bits"
    )


def test_what_a_file_has_no_place_for_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("convert", "demo", "copy").code == 0
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    config["generation"]["sampling"] |= {"typical_p": 0.9}
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    outcome = run("convert", "copy", "a.gguf")
    assert (outcome.code, outcome.err) == (0, "a.gguf has no place for typical_p\n")
