"""What a stand-in hub publishes: the files of a repository, their hashes, and how a list tells them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LARGE = 64 * 1024
"""Files of this size and more are "large": hashed with sha256, and served by the second server."""

_PIECE = 256 * 1024

CONFIG = {
    "model_type": "llama",
    "vocab_size": 8,
    "hidden_size": 4,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
    "intermediate_size": 4,
}
SMALL_FILES: dict[str, bytes] = {
    "config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": json.dumps({"model": {"vocab": {"a": 0, "b": 1}}}).encode(),
}
"""The least that lolama asks for before it fetches weights."""


@dataclass
class Repository:
    """A repository at its one commit. ``files`` maps names to contents, or to the paths of files."""

    commit: str
    files: dict[str, bytes | Path]
    digests: dict[str, str] = field(default_factory=dict)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        content = self.files[name]
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def is_large(self, name: str) -> bool:
        """Whether a file is served by the second server."""
        return self.size(name) >= LARGE or name.endswith((".safetensors", ".bin", ".model"))

    def pieces(self, name: str, start: int = 0) -> Iterator[bytes]:
        """A file from byte ``start`` on."""
        content = self.files[name]
        if isinstance(content, bytes):
            for at in range(start, len(content), _PIECE):
                yield content[at : at + _PIECE]
            return
        with open(content, "rb") as file:
            file.seek(start)
            while piece := file.read(_PIECE):
                yield piece

    def digest(self, name: str) -> str:
        """sha256 of a large file, git's hash of a small one."""
        if name not in self.digests:
            git = hashlib.sha1(b"blob %d\0" % self.size(name), usedforsecurity=False)
            digest = hashlib.sha256() if self.is_large(name) else git
            for piece in self.pieces(name):
                digest.update(piece)
            self.digests[name] = digest.hexdigest()
        return self.digests[name]


def list_entry(repo: Repository, name: str) -> dict[str, object]:
    """What the list of a repository's files says about one."""
    size, digest = repo.size(name), repo.digest(name)
    entry: dict[str, object] = {"type": "file", "path": name, "size": size, "oid": digest}
    if repo.is_large(name):
        entry["oid"] = hashlib.sha1(digest.encode(), usedforsecurity=False).hexdigest()
        entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 134}
    return entry
