"""Which model of a repository in GGUF: such a repository has one and the same model in many types of weights.

A choice has a label, the end of its files' name, such as ``Q4_K_M``; ``owner/name:Q4_K_M`` names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lolama_core.protocols.errors import ModelError
from lolama_hub.download.api import RemoteFile
from lolama_hub.folder.fields import shown
from lolama_hub.gguf.resolve_gguf import is_model_name

_MEMINFO = Path("/proc/meminfo")
_OF_MEMORY = 0.8
"""The part of the free memory that weights may take; the rest is for keys, values and activations."""

_PART = re.compile(r"(.+)-\d{5}-of-\d{5}")
_TYPE = re.compile(
    r"(?:.*?[-_.])?((?:UD-)?(?:I?Q\d\w*|TQ\d\w*|B?F16|F32|MXFP4\w*|NVFP4\w*))",
    re.IGNORECASE | re.DOTALL,
)
# Labels of which lolama reads all types, in three ranks: those whose weights are about as large in memory as
# in the file, those that grow, and those that are not quantized. A name without a type is worth a try.
_RANKS = (
    re.compile(r"Q8_0|Q6_K(_L)?|Q4_[01]|Q4_K(_[SML])?|(?!.*[QF]\d).*", re.IGNORECASE),
    re.compile(r"Q5_[01]|Q5_K(_[SML])?|Q3_K(_[SML])?|IQ4_(NL|XS)", re.IGNORECASE),
    re.compile(r"F32|B?F16", re.IGNORECASE),
)


def choices(files: Sequence[RemoteFile]) -> dict[str, list[RemoteFile]]:
    """Label → its file, or its parts in order, of all models in GGUF that a repository holds by itself.

    Folders are left out: they have the parts of models of hundreds of GB.
    """
    found: dict[str, list[RemoteFile]] = {}
    for file in sorted(files, key=lambda one: one.path):
        if "/" not in file.path and is_model_name(file.path):
            found.setdefault(_stem(file.path), []).append(file)
    labels = [label_of(stem) for stem in found]
    return {
        label if labels.count(label) == 1 else _plain(stem): parts
        for (stem, parts), label in zip(found.items(), labels, strict=True)
    }


def choose(repo: str, found: Mapping[str, list[RemoteFile]], asked: str, memory: int) -> str:
    """The label of the model to fetch.

    Args:
        repo: The repository.
        found: Its `choices`.
        asked: A label or the name of a file; empty for the best one, which is the largest that fits into
            memory. Types that take more there than in the file, and weights that are not quantized, are the
            best only where there are no others.
        memory: Bytes that are free; 0 if nobody knows, and then it is Q4_K_M.

    Raises:
        ModelError: if there is no such one, naming those that there are, or none whose types are read.
    """
    sizes = {label: sum(part.size for part in parts) for label, parts in found.items()}
    if asked:
        for label, parts in found.items():
            if is_called(label, asked) or _same(_stem(parts[0].path), _stem(asked)):
                return label
        reason = f"holds no model in GGUF called {shown(asked)}"
        raise ModelError(repo, reason, f"there are {', '.join(sorted(found))}")
    ranks = [[label for label in found if rank.fullmatch(label_of(label))] for rank in _RANKS]
    read = next(filter(None, ranks), [])
    if not read:
        reason = (
            f"holds models in GGUF of types that lolama does not read: {', '.join(sorted(found))}"
        )
        raise ModelError(repo, reason, "choose a repository that has Q4_K_M or Q8_0")
    if not memory:
        return next((label for label in read if label.upper() == "Q4_K_M"), read[0])
    fitting = [label for label in read if sizes[label] <= _OF_MEMORY * memory]
    return (
        max(fitting, key=lambda one: sizes[one])
        if fitting
        else min(read, key=lambda one: sizes[one])
    )


def is_called(label: str, asked: str) -> bool:
    """Whether a label is what was asked for: itself, or the name of the file that has it."""
    return _same(label, asked) or _same(label, label_of(_stem(asked)))


def label_of(stem: str) -> str:
    """The type at the end of a name, such as ``Q4_K_M``; the whole name if it has none."""
    match = _TYPE.fullmatch(stem)
    return match[1].upper() if match else _plain(stem)


def memory_available() -> int:
    """Bytes that the system says are free; 0 if it does not say."""
    try:
        words = _MEMINFO.read_text("ascii").split()
        return 1024 * int(words[words.index("MemAvailable:") + 1])
    except (OSError, ValueError, IndexError):
        return 0


def _stem(name: str) -> str:
    """A file's name without its ending, and without its number as a part."""
    stem = re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)
    match = _PART.fullmatch(stem)
    return match[1] if match else stem


def _same(one: str, other: str) -> bool:
    return _plain(one).lower() == _plain(other).lower()


def _plain(stem: str) -> str:
    """A name that can be a label."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", stem).strip("-._")
