"""``--prompt-cache``: what a model has read stays in a file, and the next run does not run it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lolama_cli.console import note
from lolama_cli.regular_files import check_regular
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.whole_file import try_to_begin

if TYPE_CHECKING:
    from lolama import Drafting, PrefixCache
    from lolama_core.protocols import CausalLM
    from lolama_core.protocols.types import ModelFiles

OPTION = "--prompt-cache"

PromptCacheOption = Annotated[
    Path | None,
    typer.Option(
        OPTION,
        help="Keep what the model has read in this file, and go on from what is there.",
        metavar="FILE",
    ),
]


class PromptCacheFile:
    """The file in which one model's prompts are kept.

    Args:
        path: Where. What is there is read; if nothing is, it is made.
        verbose: Tell how much was read.

    Raises:
        UsageError: if there can be no such file.
    """

    def __init__(self, path: Path, verbose: bool) -> None:
        from lolama.files import expanded

        self._path, self._verbose = expanded(path, OPTION).absolute(), verbose
        self._written = False
        check_regular(self._path, "give another name")
        if not self._path.parent.is_dir():
            raise UsageError(str(path), "its folder does not exist", "create it first")
        # It is written only at the end, maybe after hours.
        try:
            try_to_begin(self._path)
        except OSError as error:
            reason = f"cannot be written: {error.strerror}"
            raise UsageError(str(path), reason, "give another name") from None

    def check(self, files: ModelFiles, cache_dtype: Literal["int8"] | None) -> None:
        """Refuse what `read` would refuse, as far as can be told without the model's weights.

        Raises:
            UsageError, ModelError: as `read`.
        """
        from lolama.prompt_caches import check_prompt_cache

        check_prompt_cache(self._path, files, cache_dtype)

    def read(self, prefixes: PrefixCache, model: CausalLM) -> None:
        """Let ``prefixes`` know what is in the file.

        Raises:
            UsageError, ModelError: if it is of another model, or damaged.
        """
        positions = prefixes.load(self._path, model, missing_ok=True)
        if self._verbose and positions:
            note(f"{positions:,} tokens are known from {self._path}")

    def write(self, prefixes: PrefixCache, model: CausalLM) -> None:
        """Write what the model has read, once: what another one reads later does not belong here.

        Raises:
            UsageError, ResourceError: if it cannot be written. The old file stays.
        """
        if not self._written:
            prefixes.save(self._path, model)
            self._written = True


@contextmanager
def kept_prefixes(
    file: PromptCacheFile | None,
    model: CausalLM,
    cache_dtype: Literal["int8"] | None = None,
    draft: Drafting = "auto",
) -> Iterator[PrefixCache | None]:
    """What ``model`` has read, from ``file`` and back into it: one context at most. None without a file.

    What a ``draft`` has read is kept beside it, and not in the file.
    """
    from lolama import PrefixCache
    from lolama.memory import kept_bytes

    if file is None:
        yield None
        return
    prefixes = PrefixCache(kept_bytes(model, cache_dtype, draft), cache_dtype=cache_dtype)
    file.read(prefixes, model)
    with writing(lambda: file.write(prefixes, model)):
        yield prefixes


@contextmanager
def writing(write: Callable[[], None]) -> Iterator[None]:
    """``write`` once the block has ended or was broken off, and not if it failed."""
    failed = False
    try:
        yield
    except Exception:
        failed = True
        raise
    finally:
        if not failed:
            write()
