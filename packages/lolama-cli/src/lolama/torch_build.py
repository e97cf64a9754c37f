"""What the installed torch is built for, told from its files: importing it takes seconds."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TorchBuild:
    """What ``torch/version.py`` says.

    Attributes:
        folder: The folder of the package.
        cuda: Version of CUDA that it is built for, such as ``12.8``; None if for none.
        other: Whether it is built for another kind of GPU, ROCm's or Intel's.
    """

    folder: Path
    cuda: str | None
    other: bool


def torch_build() -> TorchBuild | None:
    """The build of the installed torch; None if there is none, or one that does not tell.

    Example:
        >>> torch_build().cuda
        '12.8'
    """
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent
    try:
        lines = ast.parse((folder / "version.py").read_text("utf-8")).body
    except (OSError, ValueError, SyntaxError):
        return None
    facts = dict(filter(None, map(_assigned, lines)))
    if "cuda" not in facts:
        return None
    cuda = facts["cuda"]
    other = any(facts.get(name) is not None for name in ("hip", "rocm", "xpu"))
    return TorchBuild(folder=folder, cuda=None if cuda is None else str(cuda), other=other)


def _assigned(line: ast.stmt) -> tuple[str, object] | None:
    """Name and value of a line like ``cuda: Optional[str] = '12.8'``."""
    if isinstance(line, ast.AnnAssign):
        target: ast.expr = line.target
    elif isinstance(line, ast.Assign) and len(line.targets) == 1:
        target = line.targets[0]
    else:
        return None
    if isinstance(target, ast.Name) and isinstance(line.value, ast.Constant):
        return target.id, line.value.value
    return None
