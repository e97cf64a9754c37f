"""Models that are fetched: asking first, fetching, listing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import lolama_core
from lolama_core.protocols import ModelSource
from lolama_core.protocols.arguments import truth
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.source import DownloadPlan, StoredModel

Confirm: TypeAlias = Callable[[DownloadPlan], bool] | bool | None
"""Whether a download may go ahead: a function that decides, True, or None to ask on the terminal."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Is told a file's name, how many of its bytes are here, and how many it has."""


def fetch(
    name: str,
    *,
    confirm: Confirm = None,
    progress: Progress | None = None,
    source: ModelSource | None = None,
) -> Path:
    """Fetch a model, or what is missing of it.

    Args:
        name: An alias or ``owner/name[@revision]``.
        confirm: See `Confirm`.
        progress: See `Progress`.
        source: Where from; by default what lolama-hub provides.

    Returns:
        The directory that holds it.

    Raises:
        UsageError: for a name that means nothing, or if nobody agreed to the download.
        NotAvailableError: if a package that the model needs is not installed.
        NetworkError, AuthorisationError, ModelError, ResourceError: see `ModelSource`.
    """
    source = source or lolama_core.installed_source()
    io = lolama_core.FileCheckpointIO()
    plan = source.plan(name, io)
    return source.fetch(plan, io, confirm=decision(confirm), progress=progress)


def stored_models() -> Sequence[StoredModel]:
    """What is here, wholly or in part, Hugging Face's own cache included; the last used first."""
    return lolama_core.installed_source().stored(lolama_core.FileCheckpointIO())


def size_text(size: int) -> str:
    """Bytes for people: ``2.20 GB``, ``12 MB``, ``512 kB``."""
    for unit, digits, scale in (("GB", 2, 1e9), ("MB", 0, 1e6)):
        if size >= scale:
            return f"{size / scale:,.{digits}f} {unit}"
    return f"{max(1, round(size / 1e3)) if size else 0} kB"


def decision(confirm: Confirm) -> Callable[[DownloadPlan], bool]:
    """The function that decides whether a download may go ahead.

    Raises:
        UsageError: if ``confirm`` is neither a function nor a boolean; once asked, if its answer is no
            boolean.
    """
    if confirm is None:
        return _ask
    if callable(confirm):
        return lambda plan: truth("confirm", confirm(plan))
    agreed = truth("confirm", confirm)
    return lambda plan: agreed


def _ask(plan: DownloadPlan) -> bool:
    """Ask on the terminal. Without one nobody can agree, and silence is no consent.

    Raises:
        UsageError: without a terminal, naming the size and how to agree.
    """
    missing = sum(not file.present for file in plan.files)
    what = f"{size_text(plan.bytes_to_fetch)} in {missing} file{'s' if missing > 1 else ''}"
    if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        raise UsageError(
            plan.repo,
            f"is to be downloaded ({what}), and there is no terminal to ask on",
            "agree with --yes, in Python with confirm=True",
        )
    print(f"Download {plan.repo} ({what})? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):  # the end of input leaves the cursor behind the question
        print(file=sys.stderr)
    return answer.strip().lower() in ("y", "yes")
