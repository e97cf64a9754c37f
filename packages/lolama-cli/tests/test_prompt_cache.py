"""``--prompt-cache``: a second run goes on where the first ended, and no file is used that does not fit."""

from __future__ import annotations

import json
import shutil
import signal
import stat
from pathlib import Path

import pytest
from known_model import LETTERS, REPLY, write
from program import ENDLESS, Outcome, shell
from warm_program import run, start

LONG = LETTERS * 3
OPTIONS = ("--temperature", "0", "--max-tokens", "5")


def generate(model: Path, file: Path | str, prompt: str = LONG, *options: str) -> Outcome:
    return run("generate", "-m", model, "--prompt-cache", file, *OPTIONS, *options, prompt)


def cached(model: Path, file: Path, prompt: str = LONG) -> tuple[int, int]:
    """Tokens of the prompt, and those that were not run again."""
    outcome = generate(model, file, prompt, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    facts = json.loads(outcome.out)
    assert facts["text"] == "abcde"
    return facts["prompt_tokens"], facts["cached_tokens"]


def test_the_second_run_runs_only_what_is_new(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    assert cached(base, file) == (79, 0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert cached(base, file) == (79, 78)
    # What they begin with alike, and what the model itself said.
    assert cached(base, file, LONG[:50] + LONG[50:].upper() + "z") == (80, 51)
    assert cached(base, file, LONG + "abcdez") == (85, 83)
    assert [entry.name for entry in tmp_path.iterdir()] == ["prompts"]


def test_row_366_a_draft_takes_no_room_from_it(base: Path, tmp_path: Path) -> None:
    """The prompt fills the context."""
    file, prompt = tmp_path / "prompts", LETTERS * 157
    command = ("generate", "-m", base, "--draft", base, "--prompt-cache", file, *OPTIONS, "--json")
    known = [json.loads(run(*command, prompt).out)["cached_tokens"] for _ in range(2)]
    assert known == [0, len(prompt)]


def test_verbose_tells_what_came_from_it(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    known = f"tokens are known from {file}"
    command = ("-v", "generate", "-m", base, "--prompt-cache", file, *OPTIONS, LONG)
    first, second = run(*command), run(*command)
    assert first.out == second.out == b"abcde"
    assert known not in first.err
    assert "79 prompt tokens, 0 of them from the prompt cache, 5 new" in first.err
    assert f"83 {known}" in second.err
    assert "79 prompt tokens, 78 of them from the prompt cache, 5 new" in second.err


def test_keys_and_values_in_int8(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    command = ("-v", "generate", "-m", base, *OPTIONS, "--cache-dtype", "int8")
    outcome = run(*command, "--prompt-cache", file, LONG)
    assert (outcome.code, outcome.out) == (0, b"abcde")
    assert "keys and values: int8\n" in outcome.err
    again = run(*command, "--prompt-cache", file, LONG)
    assert again.out == b"abcde" and "78 of them from the prompt cache" in again.err
    assert run(*command, LONG).out == b"abcde"
    assert "keys and values" not in run("-v", "generate", "-m", base, *OPTIONS, LONG).err


def test_row_295_a_file_of_another_cache_dtype(base: Path, tmp_path: Path) -> None:
    small, plain = tmp_path / "small", tmp_path / "plain"
    generate(base, small, LONG, "--cache-dtype", "int8")
    generate(base, plain)
    before = small.read_bytes(), plain.read_bytes()
    generate(base, small).refused(2, str(small), "in int8; give --cache-dtype int8")
    refused = generate(base, plain, LONG, "--cache-dtype", "int8")
    refused.refused(2, str(plain), "no keys and values in int8; leave out --cache-dtype")
    assert (small.read_bytes(), plain.read_bytes()) == before


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_row_365_what_is_no_file_of_a_model_is_refused_before_weights_are_read(
    base: Path, tmp_path: Path, command: str
) -> None:
    """Also before an int8 model is made."""
    file = tmp_path / "prompts"
    generate(base, file)
    whole = file.read_bytes()
    dynamic = write_dynamic(base, tmp_path / "dynamic")

    def refused(code: int, model: Path | str, reason: str, *options: str) -> None:
        given = ("-m", model, "--prompt-cache", file, *options)
        words = ("z",) if command == "generate" else ()
        outcome = run("-v", command, *given, *words, stdin=b"z\n")
        outcome.refused(code, reason)  # of which "loaded in ..." would be more than a line

    refused(2, "demo", "of another model")
    refused(2, base, "leave out --cache-dtype", "--cache-dtype", "int8")
    refused(2, dynamic, "dynamic RoPE")
    for content in (b"my notes", whole[:-40], whole.replace(b'"pages"', b'"pagez"')):
        file.write_bytes(content)
        refused(3, base, "give another name", "--quantize")


def test_row_280_a_file_of_another_model(base: Path, overflowing: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    generate(base, file)
    before = file.read_bytes()
    generate(overflowing, file).refused(2, str(file), "of another model", "give another name")
    generate(base, file, LONG, "--dtype", "bfloat16").refused(2, str(file), "dtype")
    quantized = generate(base, file, LONG, "--quantize")
    assert quantized.code == 2 and "with other weights, dtype or quantization" in quantized.err
    assert file.read_bytes() == before
    # The same model under another name.
    shutil.copytree(base, tmp_path / "copy")
    assert cached(tmp_path / "copy", file) == (79, 78)


def test_row_281_a_file_that_is_none_stays_what_it_is(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    for content in (b"", b"my notes", (base / "model.safetensors").read_bytes()):
        file.write_bytes(content)
        generate(base, file).refused(3, str(file), "give another name")
        assert file.read_bytes() == content


def test_row_282_a_place_for_no_file_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    for name, reason in ((".", "not a regular file"), ("no/file", "folder does not exist")):
        run("generate", "-m", "none", "--prompt-cache", tmp_path / name, "z").refused(2, reason)
    run("generate", "-m", "none", "--prompt-cache", "", "z").refused(2, "--prompt-cache", "empty")
    options = ("--batch", tmp_path / "b.jsonl", "--prompt-cache", tmp_path / "c")
    run("generate", "-m", "none", *options).refused(2, "--prompt-cache", "--batch")


def test_row_367_a_file_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    tmp_path: Path,
) -> None:
    """A name that is just short enough leaves no room for that of the unfinished file."""
    file = tmp_path / ("x" * 250)
    for command, words in (("generate", ("z",)), ("chat", ())):
        outcome = run(command, "-m", "none", "--prompt-cache", file, *words, stdin=b"z\n")
        outcome.refused(2, str(file), "cannot be written: File name too long", "another name")
    assert not [*tmp_path.iterdir()]


def test_row_282_a_full_disk_leaves_the_old_file(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    generate(base, file)
    before = file.read_bytes()
    command = 'ulimit -f 8; lolama generate -m "$1" --prompt-cache "$2" --max-tokens 5 "$3"'
    outcome = shell(command, base, file, LONG)
    assert (outcome.code, outcome.out) == (6, b"abcde")
    assert "error: " in outcome.err and "free some space" in outcome.err
    assert file.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["prompts"]


def test_a_failure_writes_nothing(base: Path, overflowing: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    generate(overflowing, file).refused(3, "non-finite logits")
    assert not file.exists()
    generate(base, file)
    before = file.read_bytes()
    command = 'lolama generate -m "$1" --prompt-cache "$2" --max-tokens 5 "$3" > /dev/full'
    assert shell(command, base, file, "other").code == 6
    assert file.read_bytes() == before


def test_ctrl_c_keeps_what_was_run(endless: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    process = start("generate", "-m", endless, "--prompt-cache", file, *ENDLESS)
    written = b""
    while len(written) < 80:
        written += process.stdout.read(80)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.wait() == 130
    assert cached(endless, file, "z" + LONG) == (80, 79)


def write_dynamic(base: Path, model: Path) -> Path:
    shutil.copytree(base, model)
    config = json.loads((model / "config.json").read_text())
    scaling = {"type": "dynamic", "factor": 2.0, "original_max_seq_len": 2048}
    config["model"]["rope_scaling"] = scaling
    (model / "config.json").write_text(json.dumps(config))
    return model


def test_under_dynamic_rope_nothing_can_be_kept(base: Path, tmp_path: Path) -> None:
    model = write_dynamic(base, tmp_path / "dynamic")
    generate(model, tmp_path / "prompts").refused(2, "dynamic RoPE", "leave out the prompt cache")
    assert not (tmp_path / "prompts").exists()


def test_a_picture_is_not_read_again(tmp_path: Path) -> None:
    file, pictures = tmp_path / "prompts", Path(__file__).resolve().parents[3] / "docs" / "pictures"

    def cached_with(picture: str) -> tuple[str, int, int]:
        image = ("--image", str(pictures / picture), "--json")
        facts = json.loads(generate(Path("demo-vision"), file, "What is in it?", *image).out)
        return facts["text"], facts["prompt_tokens"], facts["cached_tokens"]

    text, prompt, known = cached_with("4.png")
    assert known == 0
    again, _, known = cached_with("4.png")
    assert (again, known) == (text, prompt - 1)
    # Another picture has the same ids.
    assert cached_with("1.png")[2] < 32


def test_a_chat_goes_on(chatty: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    options = ("-v", "chat", "-m", chatty, "--prompt-cache", file)
    first = run(*options, stdin=f"{LONG}\n".encode())
    second = run(*options, stdin=f"{LONG}\nxyz\n".encode())
    assert first.out.decode() == f"{REPLY}\n" and second.out.decode() == f"{REPLY}\n{REPLY}\n"
    assert "81 prompt tokens, 81 of them new to the model" in first.err
    assert "81 prompt tokens, 1 of them new to the model" in second.err
    assert f"tokens are known from {file}" in second.err


def test_a_chat_that_goes_on_with_another_model_keeps_what_the_first_one_read(
    chatty: Path, tmp_path: Path
) -> None:
    file, other = tmp_path / "prompts", write(tmp_path / "other", scale=2.0)
    lines = f"{LONG}\n/model {other}\n{LONG}\n".encode()
    outcome = run("chat", "-m", chatty, "--prompt-cache", file, "--max-tokens", "3", stdin=lines)
    assert outcome.code == 0
    facts = json.loads(generate(chatty, file, LONG, "--json").out)
    assert facts["cached_tokens"] == facts["prompt_tokens"] - 1
    generate(other, file).refused(2, "of another model")


def test_a_chat_is_refused_before_it_begins(chatty: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    generate(write(tmp_path / "other", scale=2.0), file)
    outcome = run("chat", "-m", chatty, "--prompt-cache", file, stdin=b"xyz\n")
    outcome.refused(2, "of another model")
