"""Random schemas and a model that knows nothing of them: each answer is valid, or broken off."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import torch
from spelled import of_bytes

import lolama
from lolama.answers import Constraints
from lolama.grammar import Grammar
from lolama_core import Tokenizer
from lolama_core.protocols.errors import UsageError

CASES = int(os.environ.get("LOLAMA_FUZZ_CASES", "15"))
STORIES = os.environ.get("LOLAMA_STORIES")
"""A folder with a small real model, which is asked as well."""

WORDS = ["a", "name", "é", 'quo"te', "</s>", "back\\slash", "two words", "漢"]


@cache
def models() -> list[tuple[lolama.TextGenerator, Constraints, Tokenizer]]:
    tokenizer = of_bytes()
    torch.manual_seed(0)
    config = lolama.LlamaConfig(
        vocab_size=tokenizer.vocab_size, d_model=32, num_heads=2, num_layers=2, hidden_dim=64
    )
    model = lolama.Llama(config).eval()
    pairs: list[tuple[Any, Tokenizer]] = [(model, tokenizer)]
    if STORIES is not None:
        assert Path(STORIES).is_dir()
        llm = lolama.load(STORIES, device="cpu", dtype="float32")
        pairs.append((llm.model, llm.tokenizer))
    return [
        (lolama.TextGenerator(model, tokenizer), Constraints(model, tokenizer), tokenizer)
        for model, tokenizer in pairs
    ]


def random_schema(draw: random.Random, depth: int) -> dict[str, Any]:
    """A schema of what is read here, and sometimes of what is not."""
    kinds = ["string", "integer", "number", "boolean", "enum", "pattern", "format"]
    if depth:
        kinds += ["object", "object", "array", "anyOf", "reference"]
    kind = draw.choice(kinds)
    if kind == "string":
        return {"type": "string", "minLength": draw.randrange(3), "maxLength": draw.randrange(3, 9)}
    if kind == "integer":
        low = draw.randrange(-300, 300)
        return {"type": "integer", "minimum": low, "maximum": low + draw.randrange(500)}
    if kind == "number":
        return {"type": "number", "exclusiveMinimum": draw.randrange(-5, 5), "maximum": 90.25}
    if kind == "enum":
        return {"enum": draw.sample([*WORDS, 1, None, True, ["x"], {"k": 1.5}], 3)}
    if kind == "pattern":
        return {
            "type": "string",
            "pattern": draw.choice(["^[a-c]{2,4}$", "^é+x?$", "^\\d{3}-\\w$"]),
        }
    if kind == "format":
        return {"type": "string", "format": draw.choice(["date", "time", "ipv4", "uuid"])}
    if kind == "array":
        most = draw.randrange(1, 4)
        items = random_schema(draw, depth - 1)
        return {"type": "array", "items": items, "minItems": most - 1, "maxItems": most}
    if kind == "anyOf":
        return {"anyOf": [random_schema(draw, depth - 1) for _ in range(draw.randrange(1, 4))]}
    if kind == "reference":
        inner = {"type": ["object", "null"], "properties": {"n": {"$ref": "#/$defs/R"}}}
        return {"$ref": "#/$defs/R", "$defs": {"R": {**inner, "additionalProperties": False}}}
    if kind == "object":
        names = draw.sample(WORDS, draw.randrange(1, 4))
        return {
            "type": "object",
            "properties": {name: random_schema(draw, depth - 1) for name in names},
            "required": [name for name in names if draw.random() < 0.7],
            **({"additionalProperties": False} if draw.random() < 0.7 else {}),
        }
    return {"type": kind}


def with_definitions_above(schema: Any, found: dict[str, Any]) -> Any:
    """The same with all ``$defs`` at its top, where references look for them."""
    if isinstance(schema, list):
        return [with_definitions_above(one, found) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: with_definitions_above(value, found) for key, value in schema.items()}
    found |= inner.pop("$defs", {})
    return inner


def test_answers_are_valid_or_broken_off(
    record_property: Callable[[str, object], None],
) -> None:
    ends = {"eos": 0, "length": 0, "refused": 0}
    for seed in range(CASES):
        draw = random.Random(seed)
        definitions: dict[str, Any] = {}
        schema = with_definitions_above(random_schema(draw, 3), definitions)
        schema |= {"$defs": definitions} if definitions else {}
        for generator, constraints, _ in models():
            try:
                constraint = constraints.make(Grammar.json_schema(schema))
            except UsageError:  # such as an impossible alternative
                ends["refused"] += 1
                continue
            result = generator.generate(
                "hello", constraint=constraint, temperature=1.0, seed=seed, max_new_tokens=300
            )
            ends[result.finish_reason] += 1
            if result.finish_reason == "length":
                continue
            document = json.loads(result.text)
            jsonschema.validate(document, schema, jsonschema.Draft202012Validator)
    for end, count in ends.items():  # `nox -s "fuzz(schemas)"` leaves them in results/
        record_property(end, count)
    # Most of them say something.
    assert ends["eos"] > len(models()) * CASES // 3
    assert ends["refused"] < len(models()) * CASES // 4, ends
