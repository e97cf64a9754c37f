"""Tokenizers as GGUF metadata, for tests, and files that the ``gguf`` package writes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

Metadata = dict[str, Any]


def byte_level_metadata(tokenizer_json: str, *, pre: str = "gpt-2", **ids: object) -> Metadata:
    """What a GGUF file has of a byte-level tokenizer.json, with control tokens for its added ones.

    Args:
        tokenizer_json: Its text.
        pre: The name of what cuts texts into words.
        ids: Further keys, as in ``bos_token_id=1``.
    """
    values = json.loads(tokenizer_json)
    ids_of = values["model"]["vocab"] | {
        one["content"]: one["id"] for one in values["added_tokens"]
    }
    kinds = {
        one["content"]: CONTROL if one["special"] else USER_DEFINED
        for one in values["added_tokens"]
    }
    tokens = sorted(ids_of, key=ids_of.__getitem__)
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [kinds.get(token, NORMAL) for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in values["model"]["merges"]],
        **{f"tokenizer.ggml.{name}": value for name, value in ids.items()},
    }


def write_gguf(path: Path, metadata: Metadata) -> Path:
    """A file without tensors that has this metadata. Returns its path."""
    import gguf

    writer = gguf.GGUFWriter(path, metadata["general.architecture"])
    for key, value in metadata.items():
        if key == "general.architecture":
            continue
        if isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
