"""docs/extending.md shows what the last family took, and that is little."""

from __future__ import annotations

import pytest
from tests.family_diff import MOST_FILES, MOST_LINES, PAGE, commit, counts, section, with_section


@pytest.fixture
def added() -> str:
    found = commit()
    if found is None:
        pytest.skip("this checkout is without its history")
    return found


def test_a_family_takes_few_lines(added: str) -> None:
    lines, files = counts(added)
    assert 10 < lines <= MOST_LINES
    assert 1 < files <= MOST_FILES


def test_the_page_shows_its_diff(added: str) -> None:
    page = PAGE.read_text("utf-8")
    assert section(added) in page
    assert with_section(page, section(added)) == page
