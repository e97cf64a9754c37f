"""What ``--json`` writes is what docs/json.md says: no field is missing from it, and none of it invented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from warm_program import run

from lolama_cli import schemas
from lolama_cli.schema_writer import Schema


def paths(value: Any, at: str = "") -> Iterator[str]:
    """Every path of an object, as the schemas spell them."""
    if isinstance(value, dict):
        for name, inner in value.items():
            path = f"{at}.{name}" if at else name
            yield path
            yield from paths(inner, path)
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{at}[]")


def _is(path: str, known: str) -> bool:
    """Whether a schema's path stands for ``path``, or for something in it, or for anything above it."""
    parts = [re.escape(part).replace(r"\*", "[^.]+") for part in known.split(".")]
    below = re.match(r"\.".join(parts) + r"[.\[]", path) if known.endswith("*") else None
    containers = (r"\.".join(parts[:length]) for length in range(1, len(parts) + 1))
    return below is not None or any(re.fullmatch(pattern, path) for pattern in containers)


def check(schema: Schema, data: bytes, optional: str = "") -> None:
    """Every field is in the schema, and every field of the first level is there."""
    facts = json.loads(data)
    assert facts.pop("schema") == schema.id
    for path in set(paths(facts)):
        assert any(_is(path, known) for known in schema.fields), path
    first_level = {re.split(r"[.\[]", path)[0] for path in schema.fields}
    assert first_level - set(facts) <= set(optional.split())


def test_commands_that_change_nothing(chatty: Path) -> None:
    for name in ("models", "doctor", "gc"):
        outcome = run(name, "--json")
        assert outcome.code == 0, outcome.err
        check(getattr(schemas, name.upper()), outcome.out)
    check(schemas.INFO, run("info", chatty, "--json").out)
    check(schemas.INFO, run("info", "tinyllama", "--json").out)
    check(schemas.CONFIG, run("config", "show", "--json").out)


def test_commands_that_run_a_model(chatty: Path, tmp_path: Path) -> None:
    check(schemas.GENERATE, run("generate", "-m", chatty, "--json", "--logprobs", "2", "z").out)
    prompts = tmp_path / "prompts"
    prompts.write_text('{"prompt": "a", "id": 1}\n{"promt": "b"}\n')
    first, second = run("generate", "-m", chatty, "--batch", prompts).out.splitlines()
    check(schemas.BATCH, first, "error")
    answer = (
        "text thinking ids finish_reason context_full prompt_tokens cached_tokens seed logprobs id"
    )
    answer += " drafted_tokens accepted_tokens"
    check(schemas.BATCH, second, answer)
    check(schemas.BENCH, run("bench", "-m", chatty, "--repeats", "1", "--json").out)
    text = tmp_path / "text"
    text.write_text("abc")
    check(schemas.EVAL, run("eval", text, "-m", chatty, "--quantize", "--json").out)


def test_commands_that_write(chatty: Path, tmp_path: Path) -> None:
    check(schemas.CONVERT, run("convert", chatty, tmp_path / "copy", "--json").out)
    check(schemas.QUANTIZE, run("quantize", "-m", chatty, "-o", tmp_path / "small", "--json").out)


def test_a_field_that_no_schema_has_is_noticed() -> None:
    with pytest.raises(AssertionError, match="more"):
        check(schemas.GC, b'{"schema": "lolama.gc/1", "freed_bytes": 1, "more": 2}')
    with pytest.raises(AssertionError):
        check(schemas.GC, b'{"schema": "lolama.gc/1"}')
