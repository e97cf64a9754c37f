"""Every link of a page to another page of the repository leads somewhere, down to the heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "packages/*/*.md",
        "training/**/*.md",
        "benchmarks/*.md",
    )
    for page in ROOT.glob(pattern)
)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")  # a scheme, such as https:


def prose(page: Path) -> str:
    """The page without its blocks of code and without code in a line."""
    text = re.sub(r"^(```+).*?^\1$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    text = re.sub(r"^(```+).*?^\1$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = sum(
            other == name or re.fullmatch(rf"{re.escape(name)}-\d+", other) is not None
            for other in found
        )
        found.add(f"{name}-{number}" if number else name)
    return found


def broken(page: Path, root: Path = ROOT) -> list[str]:
    """The links of a page that lead nowhere in the repository."""
    lost = []
    for match in _LINK.finditer(prose(page)):
        link = match[1] or match[2]
        if _ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        known = target.suffix != ".md" or not anchor or anchor in anchors(target)
        if not (target.is_relative_to(root) and target.exists() and known):
            lost.append(link)
    return lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert broken(page) == []


def test_pages_are_looked_at() -> None:
    assert len(PAGES) > 30 and sum(len(_LINK.findall(prose(page))) for page in PAGES) > 100


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    page = root / "page.md"
    good = (
        "[a](#two-words) [b](page.md#two-words-1) [c](https://x.org/#y) `[d](no.md)` ![e](page.md)"
    )
    bad = '[f](#three) [g](none.md) [h](page.md#Two) <img src="none.png"> [i](../outside.md)'
    page.write_text(
        f"# Two `words`\n\n{good}\n\n```\n# three\n[j](no.md)\n```\n\n## Two words\n{bad}\n"
    )
    assert broken(page, root) == ["#three", "none.md", "page.md#Two", "none.png", "../outside.md"]
