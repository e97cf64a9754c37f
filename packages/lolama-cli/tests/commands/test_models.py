"""``lolama models``."""

from __future__ import annotations

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
        *("size", "license", "gated", "downloaded", "last used", "int8"),
    ]
    assert [row[0] for row in rows[1:]] == ["demo", "demo-vision", *ALIASES]
    assert rows[2][1:4] == ["2.0M", "vision", "Built in: no download"]
    assert rows[3][1:] == [
        "1.1B",
        "text",
        "TinyLlama 1.1B Chat: small, fast, instruction-tuned",
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        *("2200000000", "Apache-2.0", "no", "", "", ""),
    ]


def test_on_a_terminal_it_is_a_table_that_fits_80_columns(tmp_path: Path) -> None:
    outcome = on_terminal("models", env={"LOLAMA_HOME": str(tmp_path)})
    assert outcome.code == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", outcome.out.decode()).replace("\r\n", "\n")
    assert max(map(len, text.splitlines())) <= 80
    for name in ("demo", "demo-vision", *ALIASES, "chaoyinshe/llava-med-v1.5-mistral-7b-hf"):
        assert f" {name} " in text.replace("\n", " ")
    assert "owner/name" in outcome.err


def test_no_color_if_the_user_wants_none() -> None:
    outcome = on_terminal("models", env={"NO_COLOR": "1", "TERM": "dumb"})
    assert (outcome.code, b"\x1b" in outcome.out) == (0, False)


def test_it_needs_no_torch() -> None:
    outcome = program.run("models", python=("-X", "importtime"))
    assert outcome.code == 0
    assert "| torch" not in outcome.err
