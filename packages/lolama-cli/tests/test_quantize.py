"""int8 models, from the command line and from Python: saved, kept, found again, and never half there."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import known_model
import pytest
import torch
from program import environment
from warm_program import on_terminal, run

import lolama
from lolama import memory, names, quantize
from lolama_core import (
    FileCheckpoint,
    FileCheckpointIO,
    GenerationConfig,
    Llama,
    LlamaConfig,
    TextGenerator,
    open_checkpoint,
)
from lolama_core.protocols.errors import ModelError, NotAvailableError, UsageError
from lolama_quant.cpu.library import native_library

GREEDY = GenerationConfig.greedy(max_new_tokens=20)
KILLS = int(os.environ.get("LOLAMA_KILLS", "12"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own for each test."""
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def logits(name: str | Path) -> torch.Tensor:
    model = lolama.load_model(name, device="cpu")
    return model.forward_embeds(model.embed(torch.arange(3, 40)[None]), logits="all")


def test_the_example_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    from lolama import load_model
    from lolama.model import get_model_size_mb, quantize_model_int8

    model = load_model("demo")
    print(f"Original: {get_model_size_mb(model):.0f} MB")

    quantize_model_int8(model)
    print(f"Quantized: {get_model_size_mb(model):.0f} MB")  # ~2x smaller (fp16 → int8)

    assert capsys.readouterr().out == "Original: 6 MB\nQuantized: 3 MB\n"
    assert isinstance(model, Llama)
    ids = lolama.load_tokenizer("demo").encode_ids("Once upon a time")
    result = TextGenerator(model).generate(ids, GREEDY)
    with torch.inference_mode():  # the native step, if there is one, reads the new weights
        logits = model(torch.tensor([[*ids, *result.ids[:-1]]]))[0, len(ids) - 1 :]
    assert tuple(logits.argmax(-1).tolist()) == result.ids


def test_a_saved_model_says_the_same_as_one_in_memory(tmp_path: Path) -> None:
    outcome = run("quantize", "-m", "demo", "-o", tmp_path / "int8")
    assert (outcome.code, outcome.err) == (0, "")
    facts = dict(line.split("\t") for line in outcome.out.decode().splitlines())
    assert facts["saved in"] == str(tmp_path / "int8")
    assert facts["int8 linears"] == "42"
    model = lolama.load_model("demo", device="cpu")
    from lolama.model import quantize_model_int8

    quantize_model_int8(model)
    expected = model.forward_embeds(model.embed(torch.arange(3, 40)[None]), logits="all")
    assert torch.equal(logits(tmp_path / "int8"), expected)
    assert torch.equal(logits(tmp_path / "int8"), expected)
    config = json.loads((tmp_path / "int8" / "config.json").read_text())
    assert config["quantization"]["version"] == 1 and len(config["source"]["sha256"]) == 64
    header = FileCheckpointIO().header(tmp_path / "int8" / "model.safetensors")
    assert header["layers.0.attention.q_proj.weight"].dtype == "I8"
    assert header["layers.0.attention.q_proj.scale"].dtype == "F32"


def test_four_bits_saved_are_those_in_memory(tmp_path: Path) -> None:
    from lolama.model import quantize_model_int4

    outcome = run(
        "quantize", "-m", "demo", "--bits", "4", "--no-calibration", "-o", tmp_path / "int4"
    )
    assert (outcome.code, outcome.err) == (0, "")
    facts = dict(line.split("\t") for line in outcome.out.decode().splitlines())
    assert facts["layers of 4 and 8 bits"] == "44"
    model = lolama.load_model("demo", device="cpu")
    report = quantize_model_int4(model)
    assert len(report.replaced) == 44 and report.bytes_after < report.bytes_before / 2.5
    expected = model.forward_embeds(model.embed(torch.arange(3, 40)[None]), logits="all")
    assert torch.equal(logits(tmp_path / "int4"), expected)
    header = FileCheckpointIO().header(tmp_path / "int4" / "model.safetensors")
    assert header["embed_tokens.group_scale"].dtype == "U8"
    assert header["lm_head.weight"].dtype == "I8"
    about = [memory.parameters(names.resolve(name)) for name in ("demo", tmp_path / "int4")]
    assert about[1] == about[0] + 2048 * 192  # demo's head is its embedding
    lolama.save(model, tmp_path / "again")
    assert torch.equal(logits(tmp_path / "again"), expected)


@pytest.mark.parametrize("embedding_bits", [4, 16])
@pytest.mark.parametrize("lm_head_bits", [4, 8, 16])
def test_both_ends_of_a_model_have_the_bits_that_are_asked(
    tmp_path: Path, embedding_bits: int, lm_head_bits: int
) -> None:
    from lolama.model import quantize_model_int4

    ends = {"embedding_bits": embedding_bits, "lm_head_bits": lm_head_bits}
    options = quantize.Options(bits=4, calibration=False, **ends)  # type: ignore[arg-type]
    files = quantize.save(names.resolve("demo"), tmp_path / "int4", options)
    model = lolama.load_model("demo", device="cpu")
    quantize_model_int4(model, **ends)
    expected = model.forward_embeds(model.embed(torch.arange(3, 40)[None]), logits="all")
    assert torch.equal(logits(tmp_path / "int4"), expected)
    header = FileCheckpointIO().header(tmp_path / "int4" / "model.safetensors")
    dtypes = {4: "U8", 8: "I8", 16: "BF16"}
    assert header["embed_tokens.weight"].dtype == dtypes[embedding_bits]
    if embedding_bits == lm_head_bits:  # demo's head is its embedding, and stays so
        assert "lm_head.weight" not in header
    else:
        assert header["lm_head.weight"].dtype == dtypes[lm_head_bits]
    assert options.is_done(files)
    lolama.save(model, tmp_path / "again")
    assert torch.equal(logits(tmp_path / "again"), expected)


def test_bits_of_the_ends_are_checked_and_kept_apart() -> None:
    from lolama.model import quantize_model_int4

    model = lolama.load_model("demo", device="cpu")
    with pytest.raises(UsageError, match=r"lm_head_bits: 5 is not one of 4, 8 and 16"):
        quantize_model_int4(model, lm_head_bits=5)
    with pytest.raises(UsageError, match=r"embedding_bits: 8 is not one of 4 and 16"):
        quantize_model_int4(model, embedding_bits=8)
    with pytest.raises(UsageError, match=r"lm_head_bits: 0 is not one of 4, 8 and 16"):
        quantize.Options(bits=4, lm_head_bits=0)
    kept = [
        quantize.keep(names.resolve("demo"), quantize.Options(bits=4, calibration=False, **ends))  # type: ignore[arg-type]
        for ends in ({}, {"lm_head_bits": 4}, {"embedding_bits": 16})
    ]
    assert len({next(iter(files.tensors.values())).path for files in kept}) == 3


def test_four_bits_are_fitted_to_text_that_the_model_writes_or_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lolama.calibration.TOKENS", 600)
    texts = lolama_quant_text()[:20]
    (tmp_path / "text").write_text("\n".join(texts), encoding="utf-8")
    source, told = names.resolve("demo"), []
    options = {
        "plain": quantize.Options(bits=4, calibration=False),
        "own": quantize.Options(bits=4),
        "file": quantize.Options(bits=4, text="\n".join(texts)),
    }
    stored = {}
    for name, chosen in options.items():
        steps = (lambda done, count: told.append((done, count))) if name == "own" else None
        quantize.save(source, tmp_path / name, chosen, steps=steps)
        stored[name] = dict(FileCheckpoint(open_checkpoint(tmp_path / name)).tensors())
    linear, ends = "layers.3.feed_forward.w_up.weight", ["embed_tokens.weight", "lm_head.weight"]
    codes = [tensors[linear] for tensors in stored.values()]
    assert not any(torch.equal(one, other) for one, other in combinations(codes, 2))
    for name in (*ends, "layers.3.ffn_norm.weight"):
        assert all(torch.equal(tensors[name], stored["own"][name]) for tensors in stored.values())
    [read] = {count for _, count in told} - {56, 600, 42}
    assert (read, read) in told and read > 600  # whole texts are read
    assert told[-1] == (41, 42)
    with pytest.raises(UsageError, match="too few tokens: 6, where 512 are the least"):
        quantize.save(source, tmp_path / "short", quantize.Options(bits=4, text="Too short."))
    assert not (tmp_path / "short").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--bits", "5"), "--bits: 5 is neither 8 nor 4; use one of them\n"),
        (("--bits", "4", "--outliers", "3"), "--outliers: is for 8 bits; leave it out"),
        (
            ("--no-calibration",),
            "--no-calibration: is for 4 bits; leave it out, or add `--bits 4`\n",
        ),
        (("--calibrate", "x"), "--calibrate: is for 4 bits; leave it out, or add `--bits 4`\n"),
        (("--bits", "4", "--calibrate", "x", "--no-calibration"), "leave out one of them\n"),
        (
            ("--lm-head-bits", "4"),
            "--lm-head-bits: is for 4 bits; leave it out, or add `--bits 4`\n",
        ),
        (
            ("--bits", "4", "--lm-head-bits", "0"),
            "--lm-head-bits: 0 is not one of 4, 8 and 16; use",
        ),
        (
            ("--bits", "4", "--embedding-bits", "8"),
            "--embedding-bits: 8 is not one of 4 and 16; use",
        ),
        (("--bits", "4", "--lm-head-bits", "4", "--lm-head"), "does not go with --lm-head; leave"),
        (("--bits", "4", "--calibrate", "not-there"), "there is no such file; give a text file\n"),
    ],
)
def test_bits_that_there_are_not(options: tuple[str, ...], reason: str) -> None:
    # Before anybody looks for the model.
    run("quantize", "-m", "./not-there", *options).refused(2, reason)


def test_generate_keeps_the_int8_model_and_uses_it_again(tmp_path: Path, home: Path) -> None:
    options = ("--quantize", "--temperature", "0", "--max-tokens", "8", "Once upon a time")
    env = {"LOLAMA_HOME": str(home)}
    first = run("generate", "-m", "demo", *options, env=env)
    assert first.code == 0
    assert first.err.startswith("quantizing demo to int8, to be kept in ")
    [kept] = (home / "int8").iterdir()
    written = kept.stat().st_ctime_ns
    second = run("-v", "generate", "-m", "demo", *options, env=env)
    assert second.out == first.out and second.code == 0
    assert [(path, path.stat().st_ctime_ns) for path in (home / "int8").iterdir()] == [
        (kept, written)
    ]
    assert "quantizing" not in second.err
    assert "multiplications: int8 (" in second.err and ") for 42 linears" in second.err
    how = "block by block" if isinstance(native_library(), str) else "native"
    assert f"decoding: {how}" in second.err


def test_kept_by_contents_and_options_never_by_name(base: Path, tmp_path: Path) -> None:
    def kept(name: Path, **options: int) -> Path:
        files = quantize.keep(names.resolve(name), quantize.Options(**options))  # type: ignore[arg-type]
        return next(iter(files.tensors.values())).path

    first = kept(base)
    copy = shutil.copytree(base, tmp_path / "another name")
    assert kept(copy) == first
    assert kept(copy, lm_head=True) != first
    assert kept(copy, outliers=1) != first
    shutil.rmtree(copy)
    known_model.write(copy, scale=2.0)
    assert kept(copy) != first


def test_a_kept_model_is_mapped_and_quantized_only_once(base: Path) -> None:
    files = quantize.keep(names.resolve(base))
    assert files.immutable
    assert quantize.keep(files) is files


def test_another_process_may_be_faster(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = quantize._write

    def race(*arguments: object, **options: object) -> None:
        write(*arguments, **options)  # type: ignore[arg-type]
        write(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(quantize, "_write", race)
    assert quantize.keep(names.resolve(base)).immutable


def test_lm_head_and_outliers(base: Path, tmp_path: Path) -> None:
    outcome = run(
        "quantize", "-m", base, "-o", tmp_path / "m", "--lm-head", "--outliers", "2", "--json"
    )
    assert outcome.code == 0, outcome.err
    facts = json.loads(outcome.out)
    assert facts["schema"] == "lolama.quantize/1" and facts["quality"] is None
    assert facts["directory"] == str(tmp_path / "m")
    assert "lm_head" in facts["replaced"]
    block = json.loads((tmp_path / "m" / "config.json").read_text())["quantization"]
    assert set(map(len, block["outlier_columns"].values())) == {2}
    assert logits(tmp_path / "m").isfinite().all()


@pytest.mark.parametrize("nested", [False, True])
def test_a_tied_lm_head_gets_a_weight_of_its_own(tmp_path: Path, nested: bool) -> None:
    """Its int8 rows stand in for the embedding's, which keep their precision."""
    if nested:
        source = names.resolve("demo-vision")
        assert source.config["model"]["text_config"]["tie_word_embeddings"]  # type: ignore[index, call-overload]
    else:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=300,
            d_model=64,
            num_heads=4,
            num_kv_heads=2,
            num_layers=2,
            hidden_dim=96,
            max_seq_len=64,
            tie_word_embeddings=True,
        )
        own = lolama.load_tokenizer("demo")
        config = replace(config, vocab_size=own.vocab_size)
        lolama.save(Llama(config).to(torch.bfloat16), tmp_path / "tied", tokenizer=own)
        source = names.resolve(str(tmp_path / "tied"))
    with_head, without = tmp_path / "with", tmp_path / "without"
    quantize.save(source, with_head, quantize.Options(lm_head=True))
    quantize.save(source, without)
    model, kept = (lolama.load_model(folder, device="cpu") for folder in (with_head, without))
    weights, others = model.state_dict(), kept.state_dict()
    (head,) = [name for name in weights if name.endswith("lm_head.weight")]
    embedding = head.replace("lm_head", "embed_tokens")
    assert weights[head].dtype == torch.int8 and others[head].dtype == torch.bfloat16
    assert torch.equal(weights[embedding], others[embedding])
    scale = weights[head.replace("weight", "scale")]
    rows = weights[head].float() * scale[:, None]
    torch.testing.assert_close(rows, others[embedding].float(), atol=2e-2, rtol=2e-2)
    replaced = quantize.describe(source, names.resolve(str(with_head))).replaced
    assert head.removesuffix(".weight") in replaced
    found, expected = logits(with_head), logits(without)
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.05 * float(expected.abs().max()), rtol=0)


def test_report_on_a_terminal(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # In this process, so that the text can be cut short.
    texts = lolama_quant_text()[:4]
    monkeypatch.setattr("lolama_quant.default_text", lambda: texts)
    from lolama_cli.app import run as run_here
    from lolama_cli.errors import Settings

    out = tmp_path / "out"
    with out.open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert run_here(["quantize", "-m", "demo", "--report"], Settings()) == 0
    lines = [line.split("\t") for line in out.read_text().splitlines()]
    assert [line[0] for line in lines[3:]] == [
        *("compared", "perplexity", "mean KL", "median KL", "p90 KL", "same best token")
    ]
    assert lines[3][1].endswith(" tokens") and lines[3][2] == "noise floor"
    shown = on_terminal("quantize", "-m", "demo", env={"LOLAMA_HOME": str(home)})
    assert shown.code == 0 and b"int8 linears" in shown.out and shown.err == ""


def lolama_quant_text() -> list[str]:
    import lolama_quant

    return lolama_quant.default_text()


def test_row_81_an_output_that_exists_or_is_the_input(base: Path, tmp_path: Path) -> None:
    model = shutil.copytree(base, tmp_path / "model")
    files = names.resolve(model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    run("quantize", "-m", model, "-o", model, "--force").refused(
        2, "folder of the model itself; choose another with -o\n"
    )
    with pytest.raises(UsageError, match="is the folder of the model itself"):
        quantize.save(files, model)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    target = tmp_path / "int8"
    quantize.save(files, target)
    run("quantize", "-m", model, "-o", target).refused(2, str(target), "exists already", "--force")
    assert run("quantize", "-m", model, "-o", target, "--force").code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("x")
    with pytest.raises(UsageError, match="is not a lolama checkpoint, so it is not replaced"):
        quantize.save(files, tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "notes").read_text() == "x"
    with pytest.raises(UsageError, match="does not exist"):
        quantize.save(files, tmp_path / "no" / "m")


@pytest.mark.parametrize("bits", ["8", "4"])
def test_row_458_a_gguf_file_is_not_what_is_written(bits: str, base: Path, tmp_path: Path) -> None:
    target = tmp_path / "small.GGUF"
    run("quantize", "-m", base, "--bits", bits, "-o", target).refused(
        2, str(target), "is the name of a GGUF file, and what is written is a folder; choose"
    )
    assert not target.exists()


def test_row_161_a_model_of_full_precision_is_never_replaced(base: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    run("quantize", "-m", base, "-o", copy, "--force").refused(2, str(copy), "not quantized")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_row_81_quantizing_twice_and_foreign_versions(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8"
    quantize.save(names.resolve(base), target)
    run("quantize", "-m", target).refused(2, "is quantized already")
    with pytest.raises(UsageError, match="is quantized already"):
        quantize.save(names.resolve(target), tmp_path / "again")
    config = json.loads((target / "config.json").read_text())

    def change(**block: object) -> None:
        changed = {**config, "quantization": {**config["quantization"], **block}}
        (target / "config.json").write_text(json.dumps(changed))

    change(version=2)
    run("generate", "-m", target, "--raw", "abc").refused(3, "version 2 of the int8 layout")
    change(version="1")
    with pytest.raises(ModelError, match=r"quantization\.version is '1'"):
        lolama.load_model(target)
    change(name="int3")
    with pytest.raises(
        NotAvailableError,
        match="no installed package provides the quantizer 'int3'; run `pip install lolama-quant`",
    ):
        lolama.load_model(target)
    (target / "config.json").write_text(json.dumps({**config, "format_version": 9}))
    with pytest.raises(ModelError, match="format version 9"):
        lolama.load_model(target)


def test_row_43_integers_must_be_declared(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8"
    quantize.save(names.resolve(base), target)
    config = json.loads((target / "config.json").read_text())
    del config["quantization"]["tensors"]["layers.0.attention.q_proj.weight"]
    (target / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"q_proj.weight.* is I8"):
        lolama.load_model(target)


def test_row_78_a_model_with_nan(base: Path, tmp_path: Path) -> None:
    model = shutil.copytree(base, tmp_path / "model")
    weights = model / "model.safetensors"
    entry = FileCheckpointIO().header(weights)["layers.0.attention.q_proj.weight"]
    data = bytearray(weights.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little") + entry.begin
    data[start : start + 4] = b"\xff\xff\xff\xff"
    weights.write_bytes(data)
    run("quantize", "-m", model, "-o", tmp_path / "int8").refused(3, "q_proj.weight", "NaN or Inf")
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize("count", ["1025", "x"])
def test_impossible_options(count: str) -> None:
    run("quantize", "-m", "demo", "--outliers", count).refused(2, "--outliers")


def test_row_80_a_full_disk_leaves_the_old_model(base: Path, home: Path, tmp_path: Path) -> None:
    target = tmp_path / "int8"
    quantize.save(names.resolve(base), target)
    before = logits(target)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40960, 40960))"
    command = ("quantize", "-m", "demo", "-o", target, "--force")
    outcome = run(*command, env={"LOLAMA_HOME": str(home)}, before=limit)
    assert outcome.code == 6, outcome.err
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert torch.equal(logits(target), before)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from lolama import memory, names, quantize
from lolama_core import FileCheckpoint, open_checkpoint

target, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
files = names.resolve("demo")

def work():
    quantize.save(files, target, force=True)

def seconds():
    started = time.perf_counter()
    work()
    return time.perf_counter() - started

whole = min(seconds() for _ in range(3))  # the first also warms up
done, expected = 0, set(files.tensors)
for _ in range(kills):
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    time.sleep(rng.uniform(0, 1.2 * whole))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    done += os.WIFEXITED(status)
    leftovers = [path for path in target.parent.iterdir() if path.name.startswith(f".{target.name}.")]
    assert len(leftovers) <= 1, leftovers
    # Whole, whichever of the two it is.
    assert expected <= {name for name, _ in FileCheckpoint(open_checkpoint(target)).tensors()}
work()
print(done)
"""


def test_row_80_kill_9_while_saving(tmp_path: Path) -> None:
    """The moments are random. Everything is imported before, so that most fall into the work."""
    target = tmp_path / "int8"
    seed = random.randrange(2**32)
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(target), str(KILLS), str(seed)],
        capture_output=True,
        text=True,
        env=environment(dict(os.environ)),
    )
    assert process.returncode == 0, f"seed {seed}: {process.stderr}"
    assert int(process.stdout) < KILLS  # some were killed before they were done
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    files = replace(open_checkpoint(target), name="int8")
    assert logits(target).isfinite().all() and "quantization" in files.config


def test_row_465_what_is_no_language_model_in_memory() -> None:
    from lolama.model import get_model_size_mb, quantize_model_int4, quantize_model_int8

    module = torch.nn.Sequential(torch.nn.Linear(64, 64))
    with pytest.raises(UsageError, match="model: has no embed_tokens; give a language model, or"):
        quantize_model_int4(module)
    assert quantize_model_int8(module).replaced == ("0",)
    for what in (lolama.load("demo", device="cpu"), None, "demo"):
        for function in (quantize_model_int4, quantize_model_int8, get_model_size_mb):
            with pytest.raises(
                UsageError, match=r"is no torch module; give what load_model\(\) returns"
            ):
                function(what)  # type: ignore[arg-type]


def test_a_quantized_model_in_memory_is_refused_a_second_time(base: Path) -> None:
    from lolama.model import quantize_model_int8

    model = lolama.load_model(base)
    quantize_model_int8(model)
    with pytest.raises(UsageError, match="is quantized already"):
        quantize_model_int8(model)
