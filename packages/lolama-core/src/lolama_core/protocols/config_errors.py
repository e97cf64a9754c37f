"""Errors about a model's configuration, which name the file that it was read from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lolama_core.protocols.errors import ModelError
from lolama_core.protocols.types import ModelFiles


@contextmanager
def naming_file(files: ModelFiles, block: str = "model") -> Iterator[None]:
    """Put the file in front of errors about ``config FIELD`` inside the block.

    Args:
        files: The model. Of a configuration that was converted, errors stay as they are.
        block: Where in the file the fields stand.

    Raises:
        ModelError: naming the file, and the field as it is found there.
    """
    try:
        yield
    except ModelError as error:
        kind, *field = error.subject.split()
        if kind != "config" or files.config_file is None:
            raise
        name = ".".join([block, *(part for part in field if part != "model")])
        reason = f"{name} {error.reason}"
        raise ModelError(str(files.config_file), reason, error.remedy) from None
