"""Lolama checkpoints and other model files: what is in them, and their tensors one by one.

A file of tensors is safetensors or GGUF, as its first bytes say.

torch is imported when the first tensor is read: what headers and configurations tell needs none.

A lolama checkpoint is a directory::

    config.json            format version, model family, configuration (`protocols.types.CanonicalConfig`)
    model.safetensors      the weights, under their canonical names
    tokenizer.json         in the format of Hugging Face's tokenizers; optional
    chat_template.jinja    optional
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lolama_core.files.checkpoint_config import WEIGHT_DTYPES, check_config, declared_dtypes
from lolama_core.files.gguf_header import GGUFHeader, is_gguf, read_gguf_tensors
from lolama_core.files.safetensors_header import (
    ITEM_BYTES,
    SafetensorsHeader,
    TensorInfo,
    read_header,
)
from lolama_core.files.untrusted import open_regular, read_json, read_text
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import (
    CanonicalConfig,
    ModelFiles,
    TensorLocation,
    TokenizerFiles,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lolama_core.files.tensor_file import TensorFile

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"

# Up to this many values, torch reduces in the calling thread. On a busy machine each scan that shares its
# work with a second thread waits milliseconds for it, and a small model's load would be nothing else.
_ONE_THREAD = 1 << 15
_SMALL = 1 << 21


def open_checkpoint(directory: Path, *, immutable: bool = False) -> ModelFiles:
    """The files of a lolama checkpoint directory. The weights' header is read, not the weights.

    Args:
        directory: Where they are.
        immutable: They belong to lolama and do not change while in use, such as a model inside an installed
            package; see `ModelFiles`.

    Raises:
        ModelError: if the directory is no lolama checkpoint, or one of another format version; if a file
            is missing or damaged, naming it; for a folder in Hugging Face's layout, naming lolama-hub.

    Example:
        >>> checkpoint = FileCheckpoint(open_checkpoint(Path("my-model")))
    """
    if not os.path.isdir(directory):
        raise _no_directory(directory)
    config_path = directory / CONFIG_FILE
    config = check_config(read_json(config_path), str(config_path))
    weights = directory / WEIGHTS_FILE
    tokenizer = directory / TOKENIZER_FILE
    has_tokenizer = os.path.lexists(tokenizer)
    if has_tokenizer:
        with open_regular(tokenizer):
            pass  # the tokenizer reads it; what is no file is refused here
    template = directory / CHAT_TEMPLATE_FILE
    return ModelFiles(
        name=str(directory),
        config=config,
        tensors={
            name: TensorLocation(path=weights, key=name) for name in read_header(weights).tensors
        },
        tokenizer=TokenizerFiles(
            tokenizer_json=tokenizer if has_tokenizer else None,
            chat_template=read_text(template) if os.path.lexists(template) else None,
        ),
        immutable=immutable,
        config_file=config_path,
    )


def _no_directory(path: Path) -> ModelError:
    if os.path.isfile(path):
        with open_regular(path) as file:
            if file.read(4) == b"GGUF":
                reason = "is a model in GGUF, the format of llama.cpp, which lolama-core alone does not read"
                remedy = "use the `lolama` program or `pip install lolama-hub`"
                return ModelError(str(path), reason, remedy)
    return ModelError(str(path), "is not a directory", "give the path of a model directory")


class FileCheckpoint:
    """The tensors of resolved model files under their canonical names: a `protocols.Checkpoint`.

    Everything that headers can tell is checked at once, before any weight is read.

    Args:
        files: What to read and how it is called here.

    Raises:
        ModelError: for a damaged or missing file, a tensor that is not where ``files`` says, or a dtype
            that weights may not have. Whole numbers and float64 are never converted silently; they are
            right only for names that the configuration's ``quantization.tensors`` declares so. Blocks of GGUF
            are looked at when a transform has made a tensor of them.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        paths = {location.path for location in files.tensors.values()}
        self._headers = {path: _header(path) for path in sorted(paths)}
        self._declared = declared_dtypes(files.config)
        for name, location in files.tensors.items():
            if location.key not in self._headers[location.path].tensors:
                reason = f"has no tensor {shown(location.key)}"
                raise ModelError(str(location.path), reason, "download the model again")
            if not self._is_made_of_blocks(name):
                check_dtype(name, self._info(name).dtype, self._declared, str(location.path))

    @property
    def name(self) -> str:
        """What the model is called in messages."""
        return self._files.name

    @property
    def config(self) -> CanonicalConfig:
        """The canonical configuration."""
        return self._files.config

    def names(self) -> frozenset[str]:
        """Canonical names of all tensors."""
        return frozenset(self._files.tensors)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Canonical name → shape, for the tensors whose header tells: those that need no transform."""
        return {
            name: self._info(name).shape
            for name, location in self._files.tensors.items()
            if location.transform is None
        }

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Name and tensor, one at a time and in the order of the files, of names with this prefix.

        Each has memory of its own; of immutable files it is a private map, which costs memory that the
        system can take back, and none that another process which maps the file has not paid for.

        Raises:
            ModelError: if a file changed since it was opened, or a tensor holds NaN or Inf; the latter is
                not looked for where ``files`` says that it was.
        """
        from lolama_core.files.tensor_file import TensorFile

        by_path = defaultdict(list)
        for name, location in self._files.tensors.items():
            if name.startswith(prefix):
                by_path[location.path].append(name)
        for path in sorted(by_path):
            shard = TensorFile(self._headers[path])
            part_of: tuple[str, Tensor] | None = None
            for name in sorted(by_path[path], key=lambda name: self._info(name).begin):
                location = self._files.tensors[name]
                # Parts of one tensor, such as all experts of a layer, are made of it one after another.
                if part_of is not None and location.transform and part_of[0] == location.key:
                    yield name, self._transformed(name, location.transform, part_of[1])
                    continue
                tensor = self._read(shard, name)
                part_of = (location.key, tensor) if location.transform else None
                if location.transform is not None:
                    tensor = self._transformed(name, location.transform, tensor)
                yield name, tensor

    def _transformed(
        self, name: str, transform: Callable[[Tensor], Tensor], stored: Tensor
    ) -> Tensor:
        tensor = transform(stored)
        if self._is_made_of_blocks(name):
            subject = str(self._files.tensors[name].path)
            check_dtype(name, dtype_name(tensor.dtype), self._declared, subject)
            if not self._files.finite:
                check_finite(name, tensor, subject)
        return tensor

    def _is_made_of_blocks(self, name: str) -> bool:
        """Whether dtype and values show only when a transform has taken blocks of GGUF apart."""
        transform = self._files.tensors[name].transform
        return transform is not None and self._info(name).dtype not in ITEM_BYTES

    def _read(self, shard: TensorFile, name: str) -> Tensor:
        location = self._files.tensors[name]
        tensor = (shard.map if self._files.immutable else shard.read)(location.key)
        if not self._files.finite:
            check_finite(name, tensor, str(location.path))
        return tensor

    def _info(self, name: str) -> TensorInfo:
        location = self._files.tensors[name]
        return self._headers[location.path].tensors[location.key]


def _header(path: Path) -> SafetensorsHeader | GGUFHeader:
    return read_gguf_tensors(path) if is_gguf(path) else read_header(path)


def check_dtype(name: str, dtype: str, declared: Mapping[str, str], subject: str) -> None:
    """Refuse a dtype that weights may not have.

    Args:
        name: The tensor's canonical name.
        dtype: As safetensors or GGUF spells it.
        declared: The result of `declared_dtypes`.
        subject: What errors name as their place.

    Raises:
        ModelError: if the dtype is neither a weight's nor the declared one.
    """
    if name in declared:
        if dtype != declared[name]:
            reason = (
                f"tensor {shown(name)} is {dtype}, but the quantization block declares "
                f"{shown(declared[name])}"
            )
            raise ModelError(subject, reason, "replace the model: its files do not belong together")
    elif dtype not in WEIGHT_DTYPES.values():
        allowed = ", ".join(WEIGHT_DTYPES)
        reason = f"tensor {shown(name)} is {dtype}; weights are one of {allowed}"
        raise ModelError(subject, reason, "convert it with the tool that made it")


def check_finite(
    name: str,
    tensor: Tensor,
    subject: str,
    remedy: str = "download the model again, or use another conversion of it",
) -> None:
    """Refuse NaN and infinities: one such weight makes every output meaningless.

    Raises:
        ModelError: naming the tensor.
    """
    if not is_finite(tensor):
        raise ModelError(subject, f"tensor {shown(name)} holds NaN or Inf", remedy)


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite.

    Looks at the two extremes, which are NaN where any value is: one pass and nothing allocated, where
    ``isfinite`` on each value makes a second tensor and takes many times as long.
    """
    import torch

    if tensor.numel() == 0 or not tensor.is_floating_point():
        return True
    if tensor.element_size() == 1:
        tensor = tensor.float()  # torch does not compare float8
    if tensor.numel() <= _SMALL and tensor.device.type == "cpu":
        pieces = torch.split(tensor.flatten(), _ONE_THREAD)
    else:
        pieces = (tensor,)
    return bool(
        torch.stack([end for piece in pieces for end in torch.aminmax(piece)]).isfinite().all()
    )


def dtype_name(dtype: torch.dtype) -> str:
    """How safetensors spells a dtype; torch's own name for one that it does not have."""
    from lolama_core.files.tensor_file import DTYPE_NAMES

    return DTYPE_NAMES.get(dtype, str(dtype))
