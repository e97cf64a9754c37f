"""A kind of object that ``--json`` writes: its name and version, and what its fields mean."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from lolama_cli.console import Output


@dataclass(frozen=True)
class Schema:
    """One kind of object.

    Attributes:
        name: What it is; ``lolama.name/version`` stands in its ``schema`` field.
        about: When it is written.
        fields: Path → type and meaning. ``a.b`` is a field of an object, ``a[].b`` of the objects in a list,
            ``a.*`` any other key.
    """

    name: str
    about: str
    fields: Mapping[str, tuple[str, str]]
    version: int = 1

    @property
    def id(self) -> str:
        """What the ``schema`` field says."""
        return f"lolama.{self.name}/{self.version}"

    def named(self, facts: Mapping[str, object]) -> dict[str, object]:
        """``facts`` with the ``schema`` field in front."""
        return {"schema": self.id, **facts}

    def write(self, output: Output, facts: Mapping[str, object]) -> None:
        """Write one object: on a terminal spread out for people to read, else on one line."""
        indent = 2 if output.is_terminal else None
        output.write(_as_json(self.named(facts), indent) + "\n")

    def line(self, facts: Mapping[str, object]) -> str:
        """One object on one line."""
        return _as_json(self.named(facts)) + "\n"


def _as_json(facts: Mapping[str, object], indent: int | None = None) -> str:
    """JSON that UTF-8 can hold: half of a surrogate pair, from an id or a file name, is spelled out."""
    text = json.dumps(facts, indent=indent, ensure_ascii=False, allow_nan=False)
    return re.sub(r"[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)
