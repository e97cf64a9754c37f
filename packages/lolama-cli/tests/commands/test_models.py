"""``lolama models``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import program
from warm_program import on_terminal, run

ALIASES = ["tinyllama", "open_llama_3b", "open_llama_7b", "llama7b", "llava-1.5-7b", "llava-med"]


def test_piped_it_is_one_line_a_model(tmp_path: Path) -> None:
    outcome = run("models", env={"COLUMNS": "20", "LOLAMA_HOME": str(tmp_path)})
    assert (outcome.code, outcome.err) == (0, "")
    rows = [line.split("\t") for line in outcome.out.decode().splitlines()]
    assert rows[0] == [
        *("alias", "parameters", "kind", "description", "id"),
        *("size", "license", "gated", "downloaded", "last used", "quantized", "context"),
    ]
    assert [row[0] for row in rows[1:]][: 2 + len(ALIASES)] == ["demo", "demo-vision", *ALIASES]
    assert (rows[1][-1], rows[2][-1]) == ("512", "1024")
    assert rows[2][1:4] == ["2.0M", "vision", "Built in: no download"]
    assert rows[3][1:] == [
        "1.1B",
        "text",
        "TinyLlama 1.1B Chat: small, fast, instruction-tuned",
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        *("2200000000", "Apache-2.0", "no", "", "", "", "2048"),
    ]


def test_on_a_terminal_it_is_a_table_that_fits_80_columns(tmp_path: Path) -> None:
    outcome = on_terminal("models", env={"LOLAMA_HOME": str(tmp_path)})
    assert outcome.code == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", outcome.out.decode()).replace("\r\n", "\n")
    assert max(map(len, text.splitlines())) <= 80
    longest = (
        "chaoyinshe/llava-med-v1.5-mistral-7b-hf",
        "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    )
    for name in ("demo", "demo-vision", *ALIASES, "llava-onevision:0.5b", *longest):
        assert f" {name} " in text.replace("\n", " ")
    assert "owner/name" in outcome.err
    assert "accepted its license on huggingface.co and set HF_TOKEN" in outcome.err


def test_the_table_has_a_group_for_each_kind(tmp_path: Path) -> None:
    outcome = on_terminal("models", env={"LOLAMA_HOME": str(tmp_path), "NO_COLOR": "1"})
    text = re.sub(r"\x1b\[[0-9;]*m", "", outcome.out.decode())
    lines = [line.split() for line in text.splitlines()]
    groups = [lines.index([*title.split()]) for title in ("text", "text and pictures")]
    where = {words[0]: number for number, words in enumerate(lines) if words}
    assert groups[0] < where["demo"] < where["qwen3:0.6b"] < groups[1]
    assert groups[1] < where["demo-vision"] < where["llava-med"] < where["smolvlm2:256m"]
    assert lines[where["qwen3:0.6b"]][:3] == ["qwen3:0.6b", "0.6B", "40k"]


def test_json_has_the_context(tmp_path: Path) -> None:
    outcome = run("models", "--json", env={"LOLAMA_HOME": str(tmp_path)})
    models = {model["name"]: model for model in json.loads(outcome.out)["models"]}
    assert models["qwen3:8b"]["context"] == 40_960
    assert models["demo"]["context"] == 512
    assert (models["gemma3:1b"]["gated"], models["qwen3:8b"]["gated"]) == (True, False)


def test_no_color_if_the_user_wants_none() -> None:
    outcome = on_terminal("models", env={"NO_COLOR": "1", "TERM": "dumb"})
    assert (outcome.code, b"\x1b" in outcome.out) == (0, False)


def test_it_needs_no_torch() -> None:
    outcome = program.run("models", python=("-X", "importtime"))
    assert outcome.code == 0
    assert "| torch" not in outcome.err
