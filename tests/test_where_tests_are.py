"""A test lies where its module lies in src, or in the table of CONTRIBUTING.md that says what it holds."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = sorted(path.name for path in ROOT.glob("packages/*"))


def modules(package: Path) -> set[str]:
    """Where a test may lie: ``model/rope`` for ``src/…/model/rope.py``, ``main`` for ``__main__.py``.

    A folder of modules may have one test, beside it: ``backends`` for ``backends/__init__.py``.
    """
    found = set()
    for source in package.glob("src/*"):
        for path in source.rglob("*.py"):
            place = path.relative_to(source).with_suffix("")
            if place.name == "__init__":
                place = place.parent
            found.add(place.with_name(place.name.strip("_")).as_posix() if place.name else ".")
    return found


def module_of(test: Path) -> str:
    """``model/rope`` for ``model/test_rope.py``."""
    return test.with_name(test.stem.removeprefix("test_")).as_posix()


def by_behavior(package: Path) -> set[str]:
    """The tests of a package that lie beside no module of their name."""
    tests = package / "tests"
    files = {path.relative_to(tests) for path in tests.rglob("test_*.py")}
    return {path.as_posix() for path in files if module_of(path) not in modules(package)}


def table() -> dict[str, dict[str, str]]:
    """Package → test → what it holds, from CONTRIBUTING.md."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("## Where tests are\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)/tests/([^`]+)` \| (.*) \|$", section, re.MULTILINE)
    found: dict[str, dict[str, str]] = {}
    for package, test, what in rows:
        assert test not in found.setdefault(package, {}), f"{package}/tests/{test} has two rows"
        found[package][test] = what
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_test_lies_as_its_module_does_or_is_in_the_table(package: str) -> None:
    assert set(table().get(package, {})) == by_behavior(ROOT / "packages" / package)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_test_files_of_a_package_share_a_name(package: str) -> None:
    """Type checkers take them for one module."""
    files = sorted(path.name for path in (ROOT / "packages" / package / "tests").rglob("test_*.py"))
    assert [name for name, next_name in pairwise(files) if name == next_name] == []


def test_the_table_knows_no_other_packages_and_says_what_each_test_holds() -> None:
    assert set(table()) <= set(PACKAGES)
    assert [test for rows in table().values() for test, what in rows.items() if not what] == []


def test_what_lies_elsewhere_is_found(tmp_path: Path) -> None:
    for name in ("src/a/__init__.py", "src/a/__main__.py", "src/a/b/__init__.py", "src/a/b/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("test_main.py", "test_b.py", "b/test_c.py", "test_c.py", "b/test_d.py"):
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).touch()
    (tmp_path / "tests" / "conftest.py").touch()
    assert by_behavior(tmp_path) == {"test_c.py", "b/test_d.py"}
