"""No modules import each other in a circle, nor do folders of modules, nor a module and its own package.

Every import counts: inside a function, and for type checkers alone. So whoever reads a file can read what it
stands on first.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
Imports = Mapping[str, set[str]]


def imports(root: Path) -> Imports:
    """Module → the modules of any package below ``root`` that it imports."""
    modules = {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): path
        for source in root.glob("packages/*/src")
        for path in source.rglob("*.py")
    }
    return {name: _imported(path, set(modules)) - {name} for name, path in modules.items()}


def _imported(path: Path, modules: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                part = f"{node.module}.{alias.name}"
                found.add(part if part in modules else node.module)
    return found & modules


def circle(graph: Imports) -> list[str]:
    """The names along one circle; nothing if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def between_parts(graph: Imports, package: str) -> Imports:
    """What the modules and folders right below ``package`` import of each other."""
    within = f"{package}."

    def part(module: str) -> str:
        return within + module.removeprefix(within).partition(".")[0]

    found: dict[str, set[str]] = {}
    for module, imported in graph.items():
        if module.startswith(within):
            parts = {part(name) for name in imported if name.startswith(within)}
            found.setdefault(part(module), set()).update(parts - {part(module)})
    return found


def circles(graph: Imports) -> list[list[str]]:
    """A circle of modules, and one of parts for each package, as far as there are any."""
    packages = {name.rpartition(".")[0] for name in graph} - {""}
    graphs = [graph, *(between_parts(graph, package) for package in sorted(packages))]
    return [found for one in graphs if (found := circle(one))]


def test_no_package_imports_in_a_circle() -> None:
    graph = imports(ROOT)
    assert len(graph) > 250
    assert circles(graph) == []


PLANTED = {
    "in functions": {
        "one.py": "def late():\n    import p.two",
        "two.py": "def late():\n    from p import one",
    },
    "for type checkers": {
        "one.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.two import Two",
        "two.py": "import p.one",
    },
    "of three": {"one.py": "import p.two", "two.py": "import p.three", "three.py": "import p.one"},
    "with the package": {"__init__.py": "from p.one import One", "one.py": "from p import Two"},
    "of folders": {
        "a/one.py": "import p.b.two",
        "a/other.py": "",
        "b/two.py": "",
        "b/three.py": "import p.a.other",
    },
}


@pytest.mark.parametrize("files", PLANTED.values(), ids=PLANTED)
def test_a_circle_is_found(files: dict[str, str], tmp_path: Path) -> None:
    package = tmp_path / "packages" / "p" / "src" / "p"
    for name, text in {
        "__init__.py": "",
        "a/__init__.py": "",
        "b/__init__.py": "",
        **files,
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    found = circles(imports(tmp_path))
    assert found and all(name.startswith("p") for name in found[0])


def test_a_tree_without_circles_passes(tmp_path: Path) -> None:
    package = tmp_path / "packages" / "p" / "src" / "p"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import p.one\n", encoding="utf-8")
    (package / "one.py").write_text("import p.two, os\n", encoding="utf-8")
    (package / "two.py").write_text("", encoding="utf-8")
    assert circles(imports(tmp_path)) == []
