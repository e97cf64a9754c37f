"""What a run measured, as it is kept in a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Start:
    """How one process began; bytes are resident ones beyond those after ``import torch``.

    Attributes:
        importing: Seconds to import the engine's own library.
        loading: Seconds to load the model, library imported, file in the system's page cache.
        first: Seconds of the process's first prompt, 128 tokens to the first new one.
        memory: Bytes after that and a few steps.
        peak: The most bytes until then.
    """

    importing: float
    loading: float
    first: float
    memory: int
    peak: int


@dataclass
class Row:
    """One engine with one layout of the model.

    Attributes:
        label: As the tables call it.
        engine: Such as ``llama.cpp``.
        item, head_item: Bytes of a weight, and of one of ``lm_head``.
        detail: Kernels and instruction sets, in the engine's own words.
        starts: One for each time it was started.
        times: ``prefill``, ``decode`` or ``batch`` → tokens of the prompt, positions in the cache or rows →
            for each round, seconds of the prompt or of each step.
        failure: Why the row ends early; empty if it does not.
    """

    label: str
    engine: str
    item: float
    head_item: float
    detail: str = ""
    starts: list[Start] = field(default_factory=list)
    times: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    failure: str = ""


@dataclass
class Results:
    """A run. ``weights`` is a key of `SETS`; ``bandwidth`` in bytes a second, one probe for each round.

    ``named`` is what the page calls it where there is a run of the same on another machine.
    """

    date: str
    processor: str
    threads: int
    shape: str
    weights: str
    versions: dict[str, str]
    bandwidth: list[float] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    named: str = ""

    @property
    def name(self) -> str:
        """The name that the page and its plots have for it."""
        if self.named:
            return self.named
        return self.shape if self.weights == "16-bit" else f"{self.shape}-{self.weights}"

    def write(self, path: Path, summary: dict[str, Any]) -> None:
        """Keep it, with figures that can be computed again for whoever only looks."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**asdict(self), "summary": summary}, indent=1) + "\n")


def read_results(path: Path) -> Results:
    """What `Results.write` wrote."""
    data = json.loads(path.read_text())
    del data["summary"]
    data["rows"] = [
        Row(**{**row, "starts": [Start(**start) for start in row["starts"]]})
        for row in data["rows"]
    ]
    return Results(**data)
