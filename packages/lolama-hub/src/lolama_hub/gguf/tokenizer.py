"""The tokenizer of a GGUF file: a tokenizer.json in the store, and what else lolama has to know of it.

Ids are those that llama.cpp gives to a text. There are two exceptions, where it differs from the tokenizers
that models were trained with: where these bring a text into Unicode's composed form, lolama does so, and a
piece of spaces is found wherever a text has them. An end token is never put behind a text, since lolama goes
on from there; ``tokenizer.ggml.add_eos_token`` is for other uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lolama_core.protocols.checkpoint import GGUFValue
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, TokenizerBlock, TokenizerFiles
from lolama_hub.folder.fields import Fields
from lolama_hub.gguf import whole_tokenizer
from lolama_hub.gguf.kept_tokenizer import keep_tokenizer
from lolama_hub.gguf.listed_tokenizer import describe_listed
from lolama_hub.store.place import Store

_TEMPLATE = "chat_template"
_ARCHITECTURE = "general.architecture"


@dataclass(frozen=True)
class GGUFTokenizer:
    """What a GGUF file says about its tokenizer.

    Attributes:
        files: tokenizer.json and the chat template.
        block: The canonical ``tokenizer`` block.
        size: One more than the highest id.
        eos_ids: The ids that end a text.
    """

    files: TokenizerFiles
    block: TokenizerBlock
    size: int
    eos_ids: list[int]


def read_gguf_tokenizer(
    path: Path, metadata: Mapping[str, GGUFValue], vocab_size: int, *, store: Store, label: str
) -> GGUFTokenizer:
    """Read the tokenizer of a GGUF file. A file that says nothing of one is a model that is given ids.

    Args:
        path: The file, for messages.
        metadata: Key → value of the file.
        vocab_size: Rows of the model's embedding; every id must be below it.
        store: Keeps the tokenizer.json that is made.
        label: Whose it is, for people who look into the store.

    Raises:
        ModelError: naming the key, for a tokenizer that makes no sense or is not supported.
        ResourceError: if the store cannot be written to.
    """
    prefix = "tokenizer."
    values: dict[str, JSON] = {
        key.removeprefix(prefix): cast(JSON, one)
        for key, one in metadata.items()
        if key.startswith(prefix)
    }
    fields = Fields(path, values, block="tokenizer")
    template = fields.get(_TEMPLATE)
    if template is not None and not isinstance(template, str):
        raise fields.refuse(_TEMPLATE, "text")
    architecture = metadata.get(_ARCHITECTURE)
    if whole_tokenizer.NAME in fields:
        described = whole_tokenizer.describe_whole(fields)
    elif "ggml.model" in fields:
        described = describe_listed(fields, architecture)
    else:
        return GGUFTokenizer(
            files=TokenizerFiles(chat_template=template),
            block={"bos_token": None, "eos_token": None, "add_bos": False},
            size=vocab_size,
            eos_ids=[],
        )
    if described.size > vocab_size:
        reason = (
            f"has a tokenizer of {described.size} ids, but the model's vocabulary has {vocab_size}"
        )
        raise ModelError(str(path), reason, "get the file again")
    made_of = {name: one for name, one in values.items() if not name.startswith(_TEMPLATE)}
    kept = keep_tokenizer(
        store, label, made_of | {_ARCHITECTURE: str(architecture)}, described.make
    )
    return GGUFTokenizer(
        files=TokenizerFiles(tokenizer_json=kept, chat_template=template),
        block=described.block,
        size=described.size,
        eos_ids=described.eos_ids,
    )
