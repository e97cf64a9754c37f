"""The ``config.json`` of a lolama checkpoint: its blocks and their types.

What stands inside ``model`` is for the model's family to judge; everything around it is checked here, on
reading as well as before writing, so that nothing is written that could not be read back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeGuard, cast, get_type_hints

from lolama_core.protocols.checks import is_integer, is_number, shown
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import (
    FORMAT_NAME,
    FORMAT_VERSION,
    JSON,
    AddedTokenBlock,
    CanonicalConfig,
)

WEIGHT_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Dtypes that weights may have: as a configuration spells them → as safetensors does."""


def check_config(config: Mapping[str, JSON], subject: str) -> CanonicalConfig:
    """Check all but the inside of ``model``. Unknown keys are ignored.

    Args:
        config: What ``config.json`` holds.
        subject: What errors name as their place.

    Raises:
        ModelError: naming the key, the value found and the form expected; for another format version,
            both versions.
    """
    if config.get("format") != FORMAT_NAME:
        if "model_type" in config or "architectures" in config:
            raise ModelError(
                subject,
                "belongs to a model in Hugging Face's layout, which lolama-core alone does not read",
                "use the `lolama` program or `pip install lolama-hub`",
            )
        raise ModelError(
            subject, f'does not say "format": "{FORMAT_NAME}"', "give a lolama checkpoint"
        )
    version = config.get("format_version")
    if not is_integer(version, 1):
        raise _refuse(subject, "format_version", version, "a whole number")
    if version != FORMAT_VERSION:
        raise ModelError(
            subject,
            f"has checkpoint format version {version}; this lolama reads version {FORMAT_VERSION}",
            "upgrade with `pip install --upgrade lolama-core`",
        )
    _check(subject, "family", config.get("family"), _is_name, "a name")
    _check(subject, "model", config.get("model"), _is_block, "an object")
    stored = config.get("dtype")
    if not isinstance(stored, str) or stored not in WEIGHT_DTYPES:
        raise _refuse(subject, "dtype", stored, " or ".join(WEIGHT_DTYPES))
    _check_generation(subject, config.get("generation"))
    _check_tokenizer(subject, config.get("tokenizer"))
    for name in ("quantization", "source"):
        if name in config:
            _check(subject, name, config[name], _is_block, "an object")
    checked = cast(CanonicalConfig, config)
    declared = checked.get("quantization", {}).get("tensors", {})
    expected = "an object of tensor names and dtypes"
    _check(subject, "quantization.tensors", declared, _is_text_block, expected)
    return checked


def declared_dtypes(config: CanonicalConfig) -> Mapping[str, str]:
    """Canonical names whose dtype the quantization block fixes → that dtype, as safetensors spells it.

    Only these tensors may hold integers, and only these keep their dtype when a model is loaded in another.
    """
    return cast(Mapping[str, str], config.get("quantization", {}).get("tensors", {}))


def _check_generation(subject: str, block: JSON) -> None:
    if not isinstance(block, dict):
        raise _refuse(subject, "generation", block, "an object")
    eos_ids = block.get("eos_ids", [])
    if not isinstance(eos_ids, list) or not all(is_integer(token, 0) for token in eos_ids):
        raise _refuse(subject, "generation.eos_ids", eos_ids, "a list of token ids")
    if "vocab_size" in block and not is_integer(block["vocab_size"], 1):
        expected = "a whole number above 0"
        raise _refuse(subject, "generation.vocab_size", block["vocab_size"], expected)
    sampling = block.get("sampling", {})
    if not isinstance(sampling, dict):
        raise _refuse(subject, "generation.sampling", sampling, "an object of settings")
    for name, value in sampling.items():
        if not _is_setting(value):
            key, expected = f"generation.sampling.{name:.40}", "a number or a list of token ids"
            raise _refuse(subject, key, value, expected, present=True)
    unsupported = block.get("unsupported", [])
    if not isinstance(unsupported, list) or not all(isinstance(name, str) for name in unsupported):
        raise _refuse(subject, "generation.unsupported", unsupported, "a list of names")


def _check_tokenizer(subject: str, block: JSON) -> None:
    if not isinstance(block, dict):
        raise _refuse(subject, "tokenizer", block, "an object")
    for key in ("bos_token", "eos_token"):
        if not isinstance(block.get(key), str | None):
            raise _refuse(subject, f"tokenizer.{key}", block[key], "text or null")
    if not isinstance(block.get("add_bos", False), bool):
        raise _refuse(subject, "tokenizer.add_bos", block["add_bos"], "true or false")
    names = block.get("special_tokens", {})
    _check(subject, "tokenizer.special_tokens", names, _is_text_block, "an object of texts")
    unnamed = block.get("control_tokens", [])
    if not isinstance(unnamed, list) or not all(isinstance(token, str) for token in unnamed):
        raise _refuse(subject, "tokenizer.control_tokens", unnamed, "a list of texts")
    added = block.get("added_tokens", [])
    if not isinstance(added, list) or not all(map(_is_added_token, added)):
        raise _refuse(subject, "tokenizer.added_tokens", added, "a list of added tokens")


def _check(
    subject: str, key: str, value: JSON, is_right: Callable[[JSON], bool], expected: str
) -> None:
    if not is_right(value):
        raise _refuse(subject, key, value, expected)


def _refuse(
    subject: str, key: str, value: JSON, expected: str, *, present: bool = False
) -> ModelError:
    spelled = shown(value) if isinstance(value, str) else f"{json.dumps(value, default=str):.80}"
    found = "is missing" if value is None and not present else f"is {spelled}"
    return ModelError(subject, f"{key} {found}; expected {expected}", "repair or replace the file")


def _is_setting(value: JSON) -> bool:
    return all(map(_is_setting, value)) if isinstance(value, list) else is_number(value)


def _is_name(value: JSON) -> bool:
    return isinstance(value, str) and value != ""


def _is_block(value: JSON) -> TypeGuard[dict[str, JSON]]:
    return isinstance(value, dict)


def _is_added_token(value: JSON) -> bool:
    kinds = get_type_hints(AddedTokenBlock)
    return (
        isinstance(value, dict)
        and value.keys() == kinds.keys()
        and all(isinstance(value[name], kind) for name, kind in kinds.items())
    )


def _is_text_block(value: JSON) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
