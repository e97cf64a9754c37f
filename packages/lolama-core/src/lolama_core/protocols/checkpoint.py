"""Reading and writing weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lolama_core.protocols.types import JSON, CanonicalConfig

if TYPE_CHECKING:
    from torch import Tensor


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
    """What a safetensors header says about one tensor."""

    @property
    def dtype(self) -> str:
        """As the file spells it: ``F32``, ``BF16``, ``I8``, ..."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, outermost first."""
        ...


class CheckpointIO(Protocol):
    """core's hardened file code, handed to the packages that may not import it."""

    def header(self, path: Path) -> Mapping[str, TensorHeader]:
        """The checked header of a safetensors file: tensor name → dtype and shape.

        Raises:
            ModelError: if the file is anything but a whole, well-formed safetensors file.
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
