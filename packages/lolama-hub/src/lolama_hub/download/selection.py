"""Which files of a repository lolama needs: configuration, tokenizer, weights, each in one form."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lolama_core.protocols.errors import ModelError
from lolama_hub.download.api import RemoteFile
from lolama_hub.folder.files import PICKLED, SAFETENSORS
from lolama_hub.folder.other_formats import refuse_layout
from lolama_hub.gguf.resolve_gguf import is_gguf_name

CONFIG = "config.json"
_CONFIGURATION = (
    CONFIG,
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)
# Each an alternative to the next; a repository may hold several, and repeat the weights in every one.
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_WEIGHTS = (SAFETENSORS, PICKLED)


def needed_files(repo: str, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """The files to fetch, config.json first and the weights last, so that a fault in the others shows before.

    Weights in safetensors are preferred to ``.bin``, a single file to shards; never more than one of them.

    Raises:
        ModelError: if the repository holds no model that lolama could load, naming what it lacks.
    """
    by_path = {file.path: file for file in files}
    if CONFIG not in by_path:
        refuse_layout(repo, by_path)
        raise ModelError(
            repo,
            "holds no config.json",
            "choose the model's repository in transformers' layout",
        )
    small = [by_path[name] for name in _CONFIGURATION if name in by_path]
    small += [by_path[name] for name in TOKENIZERS if name in by_path][:1]
    for name in _WEIGHTS:
        weights = _weights(by_path, name)
        if weights:
            return small + weights
    refuse_layout(repo, by_path)
    raise ModelError(
        repo,
        f"holds no weights: neither {SAFETENSORS} nor {PICKLED}, nor shards of one",
        "choose another repository",
    )


def has_weights(files: Sequence[RemoteFile]) -> bool:
    """Whether a repository has weights in Hugging Face's layout."""
    by_path = {file.path: file for file in files}
    return any(_weights(by_path, name) for name in _WEIGHTS)


def _weights(by_path: dict[str, RemoteFile], name: str) -> list[RemoteFile]:
    if name in by_path:
        return [by_path[name]]
    index = by_path.get(f"{name}.index.json")
    if index is None:
        return []
    stem, _, ending = name.rpartition(".")
    shard = re.compile(rf"{re.escape(stem)}-\d{{5,6}}-of-\d{{5,6}}\.{ending}")
    return [index, *(by_path[path] for path in sorted(by_path) if shard.fullmatch(path))]


def is_weights(name: str) -> bool:
    """Whether a file that is needed holds weights."""
    return name.endswith((".safetensors", ".bin")) or is_gguf_name(name)
