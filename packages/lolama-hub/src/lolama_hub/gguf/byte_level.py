"""Byte-level BPE, which a GGUF file calls ``gpt2``: what tokenizer.json says of it."""

from __future__ import annotations

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON
from lolama_hub.folder.fields import Fields, shown
from lolama_hub.gguf.merges import read_merges
from lolama_hub.gguf.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from lolama_hub.gguf.token_list import TokenList


def find_pre_tokenizer(fields: Fields) -> PreTokenizer:
    """How the file's tokenizer cuts a text into words.

    Args:
        fields: The metadata whose keys begin with ``tokenizer``, without that.

    Raises:
        ModelError: if it does not say, or in a way that is not known.
    """
    name = fields.get("ggml.pre")
    if isinstance(name, str) and name in PRE_TOKENIZERS:
        return PRE_TOKENIZERS[name]
    if name is None:
        # llama.cpp takes "default" then, and warns of what comes of it.
        reason = "does not say how its tokenizer cuts texts into words (tokenizer.ggml.pre)"
        remedy = "get a file that a newer converter made"
    else:
        reason = f"has the tokenizer.ggml.pre {shown(name)}, which is not supported"
        remedy = "use the model's safetensors version, or another model"
    raise ModelError(str(fields.path), reason, remedy)


def byte_level_parts(fields: Fields, tokens: TokenList) -> dict[str, JSON]:
    """The parts of a tokenizer.json for the model ``gpt2``.

    Raises:
        ModelError: naming the key.
    """
    pre = find_pre_tokenizer(fields)
    steps: list[JSON] = [
        {
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Isolated",
            "invert": False,
        }
        for pattern in pre.patterns
    ]
    bytes_as_text: dict[str, JSON] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {
        "normalizer": {"type": "NFC"} if pre.composed else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, bytes_as_text]},
        "decoder": dict(bytes_as_text),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre.whole_words,
            "vocab": dict(tokens.ids),
            "merges": read_merges(fields, tokens),
        },
    }
