"""The script that type checkers read (``python3 noxfile.py -s lint``) runs, and leaves no public name out."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module

import pytest
from tests import typed_script


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    typed_script.main()
    assert "MB" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["lolama", "lolama.data", "lolama.model"])
def test_it_uses_every_public_name(module: str) -> None:
    tree = ast.parse(inspect.getsource(typed_script))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert {*vars(import_module(module))["__all__"]} - {"__version__"} <= used
