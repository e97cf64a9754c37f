"""What ``dir``, ``help`` and completion show of each package: its public names and nothing else."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules

import pytest

PACKAGES = ["lolama", "lolama_core", "lolama_hub", "lolama_quant", "lolama_serve", "lolama_vision"]
LAZY = [*PACKAGES, "lolama_core.protocols"]
MODULES = [*LAZY, "lolama.data", "lolama.model", "lolama.vision"]


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("name", MODULES)
def test_dir_shows_the_public_names_before_any_is_used(name: str) -> None:
    shown = run(f"import {name} as m; print(*dir(m))")
    public = vars(import_module(name))["__all__"]
    assert {one for one in shown if not one.startswith("__")} | {"__version__"} == {
        *public,
        "__version__",
    }


@pytest.mark.parametrize("name", MODULES)
def test_dir_stays_the_same_once_names_are_used(name: str) -> None:
    module = import_module(name)
    before = dir(module)
    for public in vars(module)["__all__"]:
        getattr(module, public)
    assert dir(module) == before


@pytest.mark.parametrize("name", LAZY)
def test_what_type_checkers_see_is_what_python_finds(name: str) -> None:
    module = import_module(name)
    block = next(
        node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.If)
    )
    declared = {
        (statement.module, alias.name)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert {one for _, one in declared} == set(vars(module)["__all__"]) - {"__version__"}
    for home, one in declared:
        assert home is not None
        assert getattr(module, one) is getattr(import_module(home), one)


@pytest.mark.parametrize("name", PACKAGES)
def test_no_module_hides_a_public_name(name: str) -> None:
    """A module that is imported becomes an attribute of its package, in the place of what had its name."""
    package = import_module(name)
    modules = {module.name for module in iter_modules(package.__path__)}
    assert modules & set(vars(package)["__all__"]) == set()


def test_help_tells_of_the_names() -> None:
    text = " ".join(run("import lolama; help(lolama)"))
    assert "load_model(" in text and "class TextGenerator" in text


def test_dir_of_lolama_imports_no_torch() -> None:
    assert run("import lolama, sys; dir(lolama); print('torch' in sys.modules)") == ["False"]
