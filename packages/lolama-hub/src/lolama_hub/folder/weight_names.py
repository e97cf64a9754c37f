"""Every tensor of a folder, accounted for: which file, under which name, or an error that names it.

The names are tables in `layouts`. `resolve_vision` looks for those of vision models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from lolama_core.protocols.checkpoint import TensorHeader
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import JSON, TensorLocation
from lolama_hub.folder.fields import shown
from lolama_hub.folder.files import SAFETENSORS, Folder, index_shards
from lolama_hub.folder.layouts import TextLayout, tensor_names
from lolama_hub.folder.layouts.transforms import Transform

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}

_EMBEDDING, _HEAD = "embed_tokens.weight", "lm_head.weight"
# Buffers that early checkpoints stored although they follow from the configuration.
_IGNORED = (".rotary_emb.inv_freq", ".position_ids")
_LAYER = re.compile(r"(?:model\.)?layers\.(\d{1,9})\.")


_AS_STORED: Mapping[str, Transform] = MappingProxyType({})


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of one folder under their published names.

    Attributes:
        listing: The file to blame when one is missing: the index, or the only file.
        files: Published name → file.
        headers: Published name → dtype and shape.
    """

    listing: Path
    files: Mapping[str, Path]
    headers: Mapping[str, TensorHeader]

    def locations(
        self, names: Mapping[str, str], made: Mapping[str, Transform] = _AS_STORED
    ) -> dict[str, TensorLocation]:
        """Canonical name → where the tensor is, from canonical name → published name.

        Args:
            names: The canonical and the published name of all tensors.
            made: How those are made that are not stored as they are.
        """
        return {
            canonical: TensorLocation(path=self.files[key], key=key, transform=made.get(canonical))
            for canonical, key in names.items()
        }


def read_safetensors(folder: Folder) -> StoredTensors | None:
    """The tensors of ``model.safetensors`` or of the shards of its index; None if there is neither.

    Raises:
        ModelError: naming the file that is damaged or absent, or the tensor that is not where the index
            says.
    """
    single = folder.find(SAFETENSORS)
    if single is not None:
        headers = folder.io.header(single)
        return StoredTensors(single, dict.fromkeys(headers, single), headers)
    index = folder.find(SAFETENSORS + ".index.json")
    if index is None:
        return None
    shards = index_shards(index, folder.json(index.name))
    paths = {name: folder.require(name, index.name) for name in sorted(set(shards.values()))}
    contents = {name: folder.io.header(path) for name, path in paths.items()}
    check_index(index, shards, contents)
    return StoredTensors(
        index,
        {key: paths[name] for key, name in shards.items()},
        {key: contents[name][key] for key, name in shards.items()},
    )


def check_index(
    index: Path, shards: Mapping[str, str], contents: Mapping[str, Iterable[str]]
) -> None:
    """Compare an index with what its shards hold.

    Raises:
        ModelError: naming a tensor that is listed but elsewhere or absent, or there but not listed.
    """
    remedy = "get the index and the shards again, from one revision"
    holding = {name: set(keys) for name, keys in contents.items()}
    for key, name in shards.items():
        if key not in holding[name]:
            other = next((shard for shard, keys in holding.items() if key in keys), None)
            found = f"it is in {shown(other)}" if other else "no shard holds it"
            raise ModelError(
                str(index), f"lists {shown(key)} in {shown(name)}, but {found}", remedy
            )
    for name, keys in holding.items():
        for key in sorted(keys):
            if shards.get(key) != name and not key.endswith(_IGNORED):
                raise ModelError(
                    str(index), f"does not list {shown(key)}, which {shown(name)} holds", remedy
                )


def match_names(
    listing: Path, keys: Iterable[str], layout: TextLayout, model: Mapping[str, JSON]
) -> tuple[dict[str, str], bool]:
    """Canonical name → stored name for a whole model, and whether its embeddings are tied after all.

    Follows transformers 5.23 where a configuration says ``tie_word_embeddings``: either copy may be the
    only one stored; where both are, they are both used, since only equal ones would be tied. Names come
    with the prefix ``model.`` or, when saved from the bare decoder, without.

    Args:
        listing: The file to name in errors.
        keys: The stored names.
        layout: How the architecture is published.
        model: The canonical ``model`` block.

    Raises:
        ModelError: naming every missing and every unexpected tensor, up to five of each.
    """
    present = {key for key in keys if not key.endswith(_IGNORED)}
    num_layers = _count_layers(listing, present, model)
    prefixed = any(key.startswith("model.") for key in present)
    tensors = layout.names_among(present)
    table = tensors if prefixed else {k: v.removeprefix("model.") for k, v in tensors.items()}
    tied = bool(model["tie_word_embeddings"])
    if tied:
        stored = [name for name in (_EMBEDDING, _HEAD) if table[name] in present]
        if len(stored) == 2:
            tied = False
        elif stored == [_HEAD]:
            table = {**table, _EMBEDDING: table[_HEAD]}
    wanted = dict(tensor_names(table, {**model, "tie_word_embeddings": tied}, num_layers))
    missing = [key for key in dict.fromkeys(wanted.values()) if key not in present]
    unexpected = sorted(present.difference(wanted.values()))
    if missing or unexpected:
        parts = [("lacks", missing), ("holds, unasked for,", unexpected)]
        reason = " and ".join(f"{verb} {listed(names)}" for verb, names in parts if names)
        raise ModelError(
            str(listing), reason, "the weights and config.json must be of the same model"
        )
    return wanted, tied


def stored_dtype(stored: StoredTensors, names: Mapping[str, str]) -> str:
    """The dtype of most linear weights, in canonical spelling.

    Raises:
        ModelError: naming a tensor that is not of a dtype weights come in. It is never cast silently.
    """
    counts = dict.fromkeys(DTYPES, 0)
    for name, key in names.items():
        dtype = stored.headers[key].dtype
        if dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise ModelError(
                str(stored.files[key]),
                f"the tensor {shown(key)} is {shown(dtype)}, expected one of {known}",
                "use the unquantized model, or convert it to one of these",
            )
        counts[dtype] += name.endswith("weight") and "norm" not in name
    return DTYPES[max(counts, key=lambda dtype: counts[dtype])]


def _count_layers(listing: Path, present: Iterable[str], model: Mapping[str, JSON]) -> int:
    """The configured number of layers, once it is the stored one: 10⁹ of them are never listed."""
    num_layers = model["num_layers"]
    assert isinstance(num_layers, int)
    layers = {int(match[1]) for match in map(_LAYER.match, present) if match}
    if layers and num_layers != max(layers) + 1:
        raise ModelError(
            str(listing),
            f"holds layers 0 to {max(layers)}, but config.json says num_hidden_layers {num_layers}",
            "the weights and config.json must be of the same model",
        )
    return num_layers if layers else min(num_layers, 1)


def listed(names: list[str]) -> str:
    """How many tensors, and the first five by name."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({', '.join(map(shown, names[:5]))}{more})"
