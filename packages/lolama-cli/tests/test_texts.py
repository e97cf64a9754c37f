"""Texts that a user gives: a byte order mark is no part of them, and half a surrogate pair is refused."""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from warm_program import on_terminal, run

from lolama_cli.chat import transcript
from lolama_cli.chat.conversation import Conversation, Exchange, PictureFile
from lolama_cli.chat.lines import LineReader
from lolama_cli.chat.transcript import Transcript
from lolama_core.protocols.errors import UsageError

MARK = codecs.BOM_UTF8
GREEDY = ("--temperature", "0", "--max-tokens", "3", "--seed", "1")
UTF_16 = "\ufeffa".encode("utf-16-le")


def prompt_tokens(model: Path, *arguments: str | Path, stdin: bytes = b"") -> int:
    outcome = run("generate", "-m", model, *GREEDY, "--json", *arguments, stdin=stdin)
    assert (outcome.code, outcome.err) == (0, "")
    count = json.loads(outcome.out)["prompt_tokens"]
    assert isinstance(count, int)
    return count


def test_row_106_a_mark_is_no_part_of_a_prompt(base: Path, chatty: Path, tmp_path: Path) -> None:
    assert prompt_tokens(base, stdin=MARK + b"xyz") == prompt_tokens(base, stdin=b"xyz")
    assert prompt_tokens(base, MARK.decode() + "xyz") == prompt_tokens(base, "xyz")
    told = ("--system", "m", "xyz")
    marked = ("--system", MARK.decode() + "m", "xyz")
    template = tmp_path / "template.jinja"
    counts = set()
    for start in (b"", MARK):
        template.write_bytes(start + b"{% for m in messages %}{{ m.content }}{% endfor %}")
        for given in (told, marked):
            counts.add(prompt_tokens(base, "--template", template, *given))
    assert len(counts) == 1


def test_row_106_a_mark_is_no_part_of_a_text_that_is_measured(base: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    found = []
    for start in (b"", MARK):
        text.write_bytes(start + b"abc")
        found.append(json.loads(run("eval", text, "-m", base, "--json").out))
    assert found[0]["tokens"] == found[1]["tokens"] == 4
    assert found[0]["perplexity"] == found[1]["perplexity"]


def test_row_106_a_mark_is_no_part_of_a_batch(base: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts"
    prompts.write_bytes(MARK + b'{"prompt": "a"}\n' + MARK + b'"b"\n' + MARK + b"\n")
    outcome = run("generate", "-m", base, *GREEDY, "--batch", prompts)
    assert (outcome.code, outcome.err) == (0, "")
    assert [json.loads(line)["text"] for line in outcome.out.splitlines()] == ["bcd", "cde"]


def test_row_106_a_mark_is_no_part_of_settings_and_conversations(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(MARK + b"# mine\ntop-k = 7\n")
    env = {"LOLAMA_CONFIG": str(file)}
    assert run("config", "get", "top-k", env=env).out == b"7\n"
    assert run("config", "set", "top-p", "0.5", env=env).code == 0
    assert file.read_text() == "# mine\ntop-k = 7\ntop-p = 0.5\n"
    saved = Transcript(model="demo", settings={}, conversation=Conversation(system="m"))
    path = tmp_path / "chat.json"
    path.write_bytes(MARK + json.dumps(transcript.to_json(saved)).encode())
    assert transcript.load(path) == saved


def test_row_106_a_mark_is_no_part_of_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    given = io.TextIOWrapper(io.BytesIO(MARK + b"/help\n" + UTF_16 + b"\n"))
    monkeypatch.setattr(sys, "stdin", given)
    reader = LineReader(prompt=False)
    assert reader.read() == "/help"
    with pytest.raises(UsageError, match="line 2: is not UTF-8: its byte order mark says UTF-16"):
        reader.read()


def test_row_106_a_mark_of_another_encoding_is_named(base: Path, tmp_path: Path) -> None:
    words = ("not UTF-8", "UTF-16", "convert it")
    file = tmp_path / "file"
    file.write_bytes(UTF_16)
    command = ("generate", "-m", base)
    run(*command, stdin=UTF_16).refused(2, "standard input", *words)
    run(*command, "--batch", file).refused(2, str(file), "line 1", *words)
    run(*command, "--template", file, "a").refused(2, str(file), *words)
    run("eval", file, "-m", base).refused(2, str(file), *words)
    env = {"LOLAMA_CONFIG": str(file)}
    run("config", "get", "top-k", env=env).refused(2, str(file), *words[:2])
    run("config", "set", "top-k", "1", env=env).refused(2, str(file), *words[:2])


def test_row_113_half_a_pair_in_a_line_is_that_lines_error(base: Path, tmp_path: Path) -> None:
    half = "a\ud83d"
    prompts = tmp_path / "prompts"
    lines: list[Any] = [
        "a",
        half,
        {"prompt": half},
        {"prompt": "\udcc3\udca4"},  # bytes of an ä, if these were those of an argument
        {"prompt": "a", "system": half},
        {"prompt": "a", "stop": half},
        {"prompt": "a", "stop": ["b", half]},
        {"prompt": "a", half: 1},
        {"prompt": "b", "id": half},
    ]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome = run("generate", "-m", base, *GREEDY, "--batch", prompts)
    assert outcome.code == 2
    found = [json.loads(line) for line in outcome.out.splitlines()]
    assert [answer.get("text") for answer in found] == ["bcd", *(None,) * 7, "cde"]
    assert all("half of a surrogate pair" in found[i]["error"]["message"] for i in range(1, 7))
    assert found[-1]["id"] == half
    # A file says the same, and a run that goes on finds all of it there.
    for _ in range(2):
        again = run("generate", "-m", base, *GREEDY, "--batch", prompts, "-o", tmp_path / "out")
        assert again.code == 2
        assert (tmp_path / "out").read_bytes() == outcome.out


def test_row_113_bytes_that_are_no_text_on_the_command_line(base: Path) -> None:
    run("generate", "-m", base, "a\udcff").refused(2, "prompt", "not UTF-8")
    run("generate", "-m", base, "--system", "\udcff", "a").refused(2, "--system", "not UTF-8")
    run("generate", "-m", base, "--stop", "\udcff", "a").refused(2, "--stop", "surrogate")
    run("config", "set", "model", "\udcff").refused(2, "model", "not UTF-8", "LOLAMA_MODEL")
    run("config", "set", "system", "\udcff").refused(2, "system", "not UTF-8")


def test_row_113_a_name_that_is_no_text_is_told_as_json_can(base: Path, tmp_path: Path) -> None:
    text = os.fsencode(tmp_path) + b"/a\xff"
    with open(text, "wb") as file:
        file.write(b"abc")
    outcome = run("eval", os.fsdecode(text), "-m", base, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["text"] == os.fsdecode(text)
    assert b'a\\udcff"' in on_terminal("eval", os.fsdecode(text), "-m", base, "--json").out


def test_row_113_what_no_transcript_can_hold_is_refused(tmp_path: Path) -> None:
    shown = Exchange(
        question="a",
        pictures=(PictureFile(path="/a\udcff.png", digest="0"),),
        reply="b",
        finish_reason="eos",
    )
    saved = Transcript(model="m", settings={}, conversation=Conversation(exchanges=(shown,)))
    path = tmp_path / "chat.json"
    with pytest.raises(UsageError, match=r"not UTF-8.*rename the picture"):
        transcript.save(path, saved, replace=False)
    assert list(tmp_path.iterdir()) == []
