"""What a file of kept prefixes says of itself, without torch; `runtime.saved_prefixes` has the format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lolama_core.files.parallel_read import read_into
from lolama_core.files.safetensors_header import SafetensorsHeader, read_header
from lolama_core.files.untrusted import MAX_JSON_BYTES, open_regular, parse_json
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.types import JSON

SCHEMA = "lolama.prompt_cache/1"
_REMEDY = "give another name, or remove the file to begin anew"
_OTHER_MODEL = "is of another model, or of this one with other weights, dtype or quantization"


@dataclass(frozen=True)
class PrefixFile:
    """A file of kept prefixes, of which no keys and values were read.

    Attributes:
        header: Its tensors.
        described: What its ``texts`` say.
    """

    header: SafetensorsHeader
    described: dict[str, JSON]

    def check_cache_dtype(self, cache_dtype: str | None) -> None:
        """Refuse keys and values that are stored in another dtype.

        Raises:
            ModelError: for one that nobody writes.
            UsageError: for another than ``cache_dtype``.
        """
        path, found = self.header.path, self.described.get("cache_dtype")
        if found not in (None, "int8"):
            raise damaged(path, f"has the cache dtype {shown(found)}")
        if found != cache_dtype:
            reason = (
                "holds keys and values in int8" if found else "holds no keys and values in int8"
            )
            what = 'give `cache_dtype="int8"`' if found else "leave out `cache_dtype`"
            raise UsageError(str(path), reason, f"{what}, or give another name")

    def check_layers(self, num_layers: int, num_kv_heads: int, head_dim: int) -> None:
        """Refuse keys and values of a model with other sizes, before its weights are there to compare.

        Raises:
            UsageError: if there are other layers, heads, or widths of a head.
        """
        # A code of int8 has a scale of two bytes behind it.
        width = head_dim + 2 * (self.described.get("cache_dtype") == "int8")
        layers = [f"layers.{n}.{part}" for n in range(num_layers) for part in ("keys", "values")]
        tensors = self.header.tensors
        expected = dict.fromkeys(layers, (num_kv_heads, width))
        found = {name: (*info.shape[1:2], *info.shape[3:]) for name, info in tensors.items()}
        del found["texts"], found["digest"]
        if found != expected:
            raise other_model(self.header.path)


def read_prefix_file(path: Path) -> PrefixFile:
    """Read what a file says of itself.

    Raises:
        ModelError: if it is no such file, or what it says is not what was written.
    """
    try:
        header = read_header(path)
        content = _content(header)
        if bytes(_read(header, "digest")) != hashlib.sha256(content).digest():
            raise damaged(path, "texts is not what was written")
        described = parse_json(bytes(content), str(path))
        if described.get("schema") != SCHEMA:
            found = shown(described.get("schema"))
            raise damaged(path, f"has the schema {found}, expected {SCHEMA!r}")
    except ModelError as error:
        raise damaged(path, error.reason) from None
    return PrefixFile(header, described)


def damaged(path: Path, reason: str) -> ModelError:
    """The error for a file that is no such file, or is damaged."""
    return ModelError(str(path), reason, _REMEDY)


def other_model(path: Path) -> UsageError:
    """The error for a file that another model wrote."""
    return UsageError(str(path), _OTHER_MODEL, _REMEDY)


def _content(header: SafetensorsHeader) -> bytearray:
    sizes = {name: info.end - info.begin for name, info in header.tensors.items()}
    if sizes.get("digest") != hashlib.sha256().digest_size or "texts" not in sizes:
        raise damaged(header.path, "is no prompt cache")
    if sizes["texts"] > MAX_JSON_BYTES:
        raise damaged(header.path, "has longer texts than any prompt cache")
    return _read(header, "texts")


def _read(header: SafetensorsHeader, name: str) -> bytearray:
    info = header.tensors[name]
    content = bytearray(info.end - info.begin)
    with open_regular(header.path) as file:
        read_into(file, header.data_start + info.begin, memoryview(content), str(header.path))
    return content
