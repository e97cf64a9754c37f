"""docs/architecture.md says where to find every module, and names none that does not exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    path.name: path for path in ROOT.glob("packages/*/src/*") if (path / "__init__.py").exists()
}
DUNDER = {"__init__.py", "__about__.py", "__main__.py"}


def named(package: str) -> list[str]:
    """Modules and folders (with a slash) in the first column of a package's table."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    _, heading, rest = page.partition(f"## Where to find things in {package}\n")
    assert heading, f"{package} has no section"
    section, _, _ = rest.partition("\n## ")
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall("`([^`]+)`", row.split(" | ")[0])]


def modules(package: str) -> list[str]:
    """The modules that a package has, as the page calls them."""
    folder = PACKAGES[package]
    return [
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.rglob("*.py")
        if path.name not in DUNDER
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_on_the_page(package: str) -> None:
    names = named(package)
    folders = tuple(name for name in names if name.endswith("/"))
    missing = [one for one in modules(package) if one not in names and not one.startswith(folders)]
    assert missing == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_names_no_module_that_does_not_exist(package: str) -> None:
    folder, names = PACKAGES[package], named(package)
    assert bool(names) == bool(modules(package)) and len(set(names)) == len(names)
    missing = [
        name
        for name in names
        if not (
            (folder / name).is_dir() if name.endswith("/") else (folder / f"{name}.py").is_file()
        )
    ]
    assert missing == []


def test_every_package_has_a_table() -> None:
    assert len(PACKAGES) == 7


def test_the_page_is_read_in_ten_minutes() -> None:
    """150 lines for five packages; the sixth has a row among them and a section as long as lolama_quant's."""
    assert len((ROOT / "docs" / "architecture.md").read_text().splitlines()) <= 165


def test_the_figure_has_every_room_on_its_floor() -> None:
    figure = (ROOT / "docs" / "images" / "rooms.svg").read_text()
    heights = {
        name: float(y)
        for y, name in re.findall(r'<text x="[\d.]+" y="([\d.]+)">(\w+)</text>', figure)
    }
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = {one["id"]: one["layers"] for one in linter["contracts"] if one["type"] == "layers"}
    for contract in ("rooms", "hub-rooms", "quant-rooms"):
        floors = [
            {heights[room] for room in re.findall(r"\w+", layer)} for layer in layers[contract]
        ]
        assert all(len(floor) == 1 for floor in floors)
        assert floors == sorted(floors, key=min)
    assert set(PACKAGES) <= set(heights)
