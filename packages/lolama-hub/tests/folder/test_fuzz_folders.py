"""Mutated small files: each case resolves or is refused with one typed error, quickly, and never else.

The seed is fixed and the case's number is in the failure, so any failure can be replayed. LOLAMA_FUZZ_CASES
sets how many (2,000 by default), LOLAMA_FUZZ_FIRST which is the first.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tiny_folders import save, save_in_tiles, tiny_model

from lolama_core.protocols import CheckpointIO
from lolama_core.protocols.errors import ModelError
from lolama_hub import HuggingFaceSource

CASES = int(os.environ.get("LOLAMA_FUZZ_CASES", "2000"))
FIRST = int(os.environ.get("LOLAMA_FUZZ_FIRST", "0"))
FILES = (
    "config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
)
VISION_FILES = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 2, 31, 10**9, 10**18, 10**299, -(10**299), 0.5, 1e308, -0.0, "", "32", "\0",
    "../../etc/passwd", "/dev/zero", "\x1b]52;c;x\x07", "x" * 5000, "\ud7ff\U0010ffff", [], {}, [[]], [None],
    ["full_attention"], {"a": {"b": {}}}, {"content": None}, {"type": "linear"},
    {"rope_type": "yarn", "factor": 2},
]  # fmt: skip
TEXT = [
    "NaN",
    "Infinity",
    "1e999",
    "9" * 5000,
    '"\\ud800"',
    "[" * 2000,
    "{",
    "}",
    ",",
    "",
    "\\",
    "\x00",
    "<html>",
]


def places(node: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    found = [] if found is None else found
    keys = (
        node.keys()
        if isinstance(node, dict)
        else range(len(node))
        if isinstance(node, list)
        else ()
    )
    for key in keys:
        found.append((node, key))
        places(node[key], found)
    return found


def mutate(original: str, rng: random.Random) -> bytes:
    """Change values, keys or raw text."""
    kind = rng.random()
    if kind < 0.6:
        value = json.loads(original)
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            spots = places(value)
            if not spots:
                break
            # The outermost fields are the ones with a meaning, so half of the time it is one of them.
            outer = [spot for spot in spots if spot[0] is value]
            # Copied, since the next change may fall into what this one put in.
            container, key = rng.choice(outer if rng.random() < 0.5 else spots)
            action = rng.random()
            if action < 0.7:
                container[key] = deepcopy(rng.choice(STRANGE))
            elif action < 0.85:
                del container[key]
            elif isinstance(container, dict):
                other = rng.choice(["x", "rope_scaling", "quantization_config", str(key) + "s"])
                strange = container[key] if rng.random() < 0.5 else rng.choice(STRANGE)
                container[other] = deepcopy(strange)
        return json.dumps(value).encode()
    text = original
    for _ in range(rng.choice([1, 1, 3, 10])):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice([0, 0, 1, 3, 50]))
        insert = rng.choice([*TEXT, text[start:end] * 2, chr(rng.randrange(0xD7FF))])
        text = text[:start] + insert + text[end:]
    data = text.encode()
    if kind > 0.9:
        changed = bytearray(data)
        for _ in range(rng.choice([1, 5, 50])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        data = bytes(changed)
    return data[: rng.randrange(len(data))] if rng.random() < 0.1 else data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scaling = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4, "beta_fast": 30}
    model = tiny_model("llama", rope_parameters=scaling)
    folder = save(model, tmp_path_factory.mktemp("fuzz"), max_shard_size="6KB")
    (folder / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "eos_token_id": [2, 3], "temperature": 0.5, "top_k": 9})
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({
            "bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": True,
            "chat_template": [{"name": "default", "template": "{{ bos_token }}"}],
        })
    )  # fmt: skip
    return folder


def test_rows39_to_53_mutated_files(
    folder: Path,
    tmp_path: Path,
    io: CheckpointIO,
    record_property: Callable[[str, object], None],
) -> None:
    what = "damaged index, configuration and tokenizer files"
    record_property(what, f"{FIRST} to {FIRST + CASES - 1}")
    resolve_all(folder, FILES, CASES, tmp_path / "store", io)


def test_row_320_mutated_files_of_a_vision_model(
    tmp_path: Path, io: CheckpointIO, record_property: Callable[[str, object], None]
) -> None:
    cases = CASES // 4
    record_property("damaged files of a vision model", f"{FIRST} to {FIRST + cases - 1}")
    folder = save_in_tiles("SmolVLM", tmp_path / "model")
    resolve_all(folder, VISION_FILES, cases, tmp_path / "store", io)


def resolve_all(
    folder: Path, names: Sequence[str], cases: int, store: Path, io: CheckpointIO
) -> None:
    """Resolve a folder once for each case, one of its files changed."""
    source = HuggingFaceSource(store=store)
    originals = {name: (folder / name).read_text() for name in names}
    outcomes: dict[str, int] = {"resolved": 0, "refused": 0}
    for case in range(FIRST, FIRST + cases):
        rng = random.Random(case)
        name = rng.choice(names)
        (folder / name).write_bytes(mutate(originals[name], rng))
        try:
            source.resolve(str(folder), io)
            outcomes["resolved"] += 1
        except ModelError as error:
            message = str(error)
            if not message.isprintable() or len(message) > 1000:
                raise AssertionError(f"case {case}, {name}: {message!a}") from error
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"case {case}, {name}: {type(error).__name__}: {error}") from error
        finally:
            (folder / name).write_text(originals[name])
    # Both happen often, or the mutations test nothing.
    assert min(outcomes.values()) > cases // 20, outcomes
