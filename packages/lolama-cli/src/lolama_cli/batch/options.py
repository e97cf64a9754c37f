"""``--batch`` and the options that go with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lolama_cli.pictures import OPTION as IMAGE
from lolama_cli.sizes import read_size
from lolama_core.protocols.errors import UsageError

CACHE_MEMORY = "--cache-memory"
_MOST_ROWS = 1024


@dataclass(frozen=True)
class BatchOptions:
    """``--batch`` and the options that need it, as they were given."""

    prompts: Path | None
    output: Path | None
    size: int | None
    cache_memory: str | None

    @property
    def cache_bytes(self) -> int | None:
        """Bytes that keys and values may take; None if the option is not given.

        Raises:
            UsageError: if the option is no size.
        """
        return None if self.cache_memory is None else read_size(self.cache_memory, CACHE_MEMORY)

    def check(self, prompt: str | None, pictures: Sequence[str]) -> None:
        """Refuse what does not go together.

        Raises:
            UsageError: naming the option.
        """
        if self.prompts is None:
            for option, value in (
                ("--output", self.output),
                ("--batch-size", self.size),
                (CACHE_MEMORY, self.cache_memory),
            ):
                if value is not None:
                    raise UsageError(option, "is for --batch", "send a single text on with > FILE")
            return
        if prompt is not None:
            raise UsageError("--batch", "goes without a prompt", "put it into the file")
        if pictures:
            raise UsageError(IMAGE, "does not go with --batch", "name pictures in images of a line")
        if self.size is not None and not 1 <= self.size <= _MOST_ROWS:
            reason = f"{self.size} is out of range"
            raise UsageError("--batch-size", reason, f"use 1 to {_MOST_ROWS}")
        # This refuses what is no size before anything is loaded.
        _ = self.cache_bytes
        if self.output is None:
            return
        try:
            status = self.output.stat()
        except FileNotFoundError:
            return
        except OSError as error:  # told before a model is opened
            reason = f"cannot be written: {error.strerror}"
            raise UsageError("--output", reason, "give another file") from None
        if os.path.exists(self.prompts) and os.path.samestat(status, self.prompts.stat()):
            reason = "is the file of the prompts"
            raise UsageError("--output", reason, "give another for the answers")
