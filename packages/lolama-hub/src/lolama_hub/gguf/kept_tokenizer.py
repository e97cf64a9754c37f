"""A tokenizer.json that is made of what a GGUF file says, and kept in the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lolama_core.protocols.errors import ResourceError
from lolama_core.protocols.types import JSON, TokenizerBlock
from lolama_core.protocols.whole_file import write_whole
from lolama_hub.store.place import Store

_VERSION = 1  # of what is made of the same metadata


@dataclass(frozen=True)
class Described:
    """A tokenizer, as a GGUF file tells of it.

    Attributes:
        block: The canonical ``tokenizer`` block.
        size: One more than the highest id.
        eos_ids: The ids that end a text.
        make: The text of its tokenizer.json.
    """

    block: TokenizerBlock
    size: int
    eos_ids: list[int]
    make: Callable[[], str]


def keep_tokenizer(
    store: Store, label: str, metadata: Mapping[str, JSON], make: Callable[[], str]
) -> Path:
    """A tokenizer.json in the store, made and written unless it is there already.

    Args:
        store: Where it is kept.
        label: Whose it is, for people who look into the store.
        metadata: Everything that it is made of.
        make: Its text.

    Raises:
        ModelError: whatever ``make`` raises.
        ResourceError: if it cannot be written.
    """
    content = json.dumps(metadata, sort_keys=True).encode()
    identity: JSON = ["gguf", _VERSION, hashlib.sha256(content).hexdigest()]
    place = store.place("tokenizers", label, identity)
    product = place.with_name(place.name + ".json")
    if not product.exists():
        text = make()
        try:
            write_whole(product, text.encode())
        except OSError as error:
            reason = f"cannot be written: {error.strerror}"
            raise ResourceError(
                str(product), reason, "free some space, or set LOLAMA_HOME"
            ) from None
    return product
