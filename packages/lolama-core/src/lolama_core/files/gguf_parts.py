"""Models in several GGUF files, such as ``model-00001-of-00003.gguf``. Nothing here needs torch.

Each part is a GGUF file of its own with some of the tensors. The first says what the model is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from lolama_core.files.gguf_header import MAX_HEADER_BYTES, GGUFHeader, read_gguf_header
from lolama_core.files.safetensors_header import MAX_TENSORS
from lolama_core.files.untrusted import DOWNLOAD_AGAIN
from lolama_core.protocols.checks import shown
from lolama_core.protocols.errors import ModelError

MAX_PARTS = 1000
MAX_LATER_BYTES = 16 * 2**20
"""How long the headers of all parts but the first may be together; they hold little but names of tensors."""

_NAME = re.compile(r"(.*-)(\d{5})(-of-(\d{5})\.gguf)", re.IGNORECASE | re.DOTALL)
_NOT_TOGETHER = "replace the model: its files do not belong together"


def read_gguf_parts(path: Path) -> tuple[GGUFHeader, ...]:
    """The checked headers of all parts of a model, in order; of a model in one file, that one.

    Args:
        path: Any part. The others lie beside it, under the names that llama.cpp gives them.

    Raises:
        ModelError: if a part is missing, naming it, if parts do not belong together, and for what
            `read_gguf_header` refuses.

    Example:
        >>> [part.path.name for part in read_gguf_parts(Path("model-00001-of-00002.gguf"))]
        ['model-00001-of-00002.gguf', 'model-00002-of-00002.gguf']
    """
    paths = _paths(path)
    headers: list[GGUFHeader] = []
    names: dict[str, Path] = {}
    left = MAX_LATER_BYTES
    for place, part in enumerate(paths):
        header = read_gguf_header(part, left if headers else MAX_HEADER_BYTES)
        _check_part(header, place, len(paths))
        left -= header.data_start if headers else 0
        for name in header.tensors:
            if name in names:
                reason = f"holds the tensor {shown(name)}, and so does {names[name].name}"
                raise ModelError(str(part), reason, _NOT_TOGETHER)
            names[name] = part
        if len(names) > MAX_TENSORS:
            reason = f"is a part of a model of more than {MAX_TENSORS:,} tensors, the limit"
            raise ModelError(str(part), reason)
        headers.append(header)
    for header in headers:
        told = header.metadata.get("split.tensors.count", len(names))
        if told != len(names):
            reason = f"is a part of a model of {shown(told)} tensors; its parts hold {len(names)}"
            raise ModelError(str(header.path), reason, _NOT_TOGETHER)
    return tuple(headers)


def _paths(path: Path) -> list[Path]:
    """Where the parts are; each is there."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return [path]
    begin, number, end, count = match.groups()
    if not 1 <= int(number) <= int(count) <= MAX_PARTS:
        reason = f"is called part {int(number)} of {int(count)}; at most {MAX_PARTS:,} are read"
        raise ModelError(str(path), reason, "check its name")
    paths = [path.with_name(f"{begin}{one:05}{end}") for one in range(1, int(count) + 1)]
    missing = [one.name for one in paths if not os.path.lexists(one)]
    if missing:
        what = ", ".join(shown(name) for name in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        reason = f"is part of a model of {len(paths)} files, of which {what}{more} are missing"
        if len(missing) == 1:
            reason = f"is part of a model of {len(paths)} files, of which {what} is missing"
        raise ModelError(str(path), reason, "download all parts into one folder")
    return paths


def _check_part(header: GGUFHeader, place: int, count: int) -> None:
    """Whether a file says that it is the part that its name says."""
    number = header.metadata.get("split.no", 0 if count == 1 else None)
    told = header.metadata.get("split.count", 1 if count == 1 else None)
    if (number, told) == (place, count) and not isinstance(number, bool):
        return
    if count == 1 and not _NAME.fullmatch(header.path.name):
        reason = f"is one of {shown(told)} parts of a model, and its name does not say which"
        remedy = "give it the name that it was published under, such as model-00001-of-00002.gguf"
        raise ModelError(str(header.path), reason, remedy)
    if number is None or told is None:
        reason = "is called a part of a model, and does not say so itself"
        raise ModelError(str(header.path), reason, DOWNLOAD_AGAIN)
    reason = f"is called part {place + 1} of {count}, and says split.no {shown(number)}"
    raise ModelError(str(header.path), f"{reason} of {shown(told)}", _NOT_TOGETHER)
