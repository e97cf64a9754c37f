"""Reading and writing weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from lolama_core.protocols.types import JSON, CanonicalConfig

if TYPE_CHECKING:
    from torch import Tensor

GGUFValue: TypeAlias = "bool | int | float | str | list[bool] | list[int] | list[float] | list[str]"
"""What a key of a GGUF file may have as its value; the widths of numbers are not kept."""


@runtime_checkable
class Checkpoint(Protocol):
    """The weights of one model under their canonical names."""

    @property
    def name(self) -> str:
        """What the model is called in messages."""
        ...

    @property
    def config(self) -> CanonicalConfig:
        """The canonical configuration."""
        ...

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Canonical name → shape, of the tensors whose shape is known before they are read; maybe none."""
        ...

    def names(self) -> frozenset[str]:
        """Canonical names of all tensors."""
        ...

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Name and tensor, one at a time, of all names that start with ``prefix``.

        Raises:
            ModelError: naming the file or tensor, for anything damaged, non-finite or of a forbidden dtype.
        """
        ...


class TensorHeader(Protocol):
    """What the header of a safetensors or GGUF file says about one tensor."""

    @property
    def dtype(self) -> str:
        """As the format calls it: ``F32``, ``BF16``, ``I8``, ...; in GGUF also ``Q4_K`` and the like."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, outermost first."""
        ...


class GGUFHeader(Protocol):
    """What a GGUF file says before its weights."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def version(self) -> int:
        """The version of the format."""
        ...

    @property
    def metadata(self) -> Mapping[str, GGUFValue]:
        """Key → value, such as ``general.architecture`` → ``llama``."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorHeader]:
        """Tensor name → type and shape. Shapes count values, of types with blocks as well."""
        ...

    def numbers(self, name: str) -> list[float]:
        """The values of a small F32 tensor, such as factors of rotary pairs.

        Raises:
            ModelError: if it is another one, or cannot be read.
        """
        ...


class CheckpointIO(Protocol):
    """core's hardened file code, handed to the packages that may not import it."""

    def header(self, path: Path) -> Mapping[str, TensorHeader]:
        """The checked header of a safetensors or GGUF file: tensor name → dtype and shape.

        Raises:
            ModelError: if the file is anything but a whole, well-formed file of one of these formats.
        """
        ...

    def gguf(self, path: Path) -> GGUFHeader:
        """The checked header of a GGUF file.

        Raises:
            ModelError: if the file is anything but a whole, well-formed GGUF file.
        """
        ...

    def gguf_parts(self, path: Path) -> Sequence[GGUFHeader]:
        """The checked headers of all files of a model, in order, one of which is ``path``.

        A model in one file has one. One in several has files called ``…-00001-of-00003.gguf`` beside each
        other, and only the first has more metadata than which part it is.

        Raises:
            ModelError: as `gguf`, and if a file is missing or belongs to another model.
        """
        ...

    def read_json(self, path: Path) -> dict[str, JSON]:
        """A JSON object from an untrusted file, with bounds on size, depth and the length of numbers.

        Raises:
            ModelError: naming the file and what is wrong with it.
        """
        ...

    def parse_json(self, content: bytes, subject: str) -> dict[str, JSON]:
        """The same of a content that is in memory; ``subject`` is what errors name as its place.

        Raises:
            ModelError: saying what is wrong with it.
        """
        ...

    def read_text(self, path: Path) -> str:
        """An untrusted UTF-8 text file, bounded in size.

        Raises:
            ModelError: naming the file and what is wrong with it.
        """
        ...

    def write(
        self,
        directory: Path,
        config: CanonicalConfig,
        tensors: Iterable[tuple[str, Tensor]],
        *,
        tokenizer_json: str | None,
        chat_template: str | None = None,
    ) -> None:
        """Write a lolama checkpoint, all of it or nothing.

        Raises:
            UsageError: if ``directory`` exists.
            ResourceError: if the disk is full.
        """
        ...
