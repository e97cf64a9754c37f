"""Python functions as tools are described as transformers describes them."""

from __future__ import annotations

from typing import Any

from transformers.utils import get_json_schema

from lolama.tools import definition_of


def test_names_and_descriptions_are_those_of_transformers() -> None:
    def add(a: int, b: float, words: list[str], table: dict[str, int]) -> float:
        """
        Adds.

        Args:
            a: The first.
            b: The second.
            words: Some words.
            table: A table.
        """
        return a + b + len(words) + len(table)

    ours, theirs = definition_of(add), get_json_schema(add)
    assert ours["type"] == theirs["type"]
    expected: Any = theirs["function"]
    expected.pop("return", None)
    assert ours["function"] == expected
