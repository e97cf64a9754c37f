"""Modules and other names where they were in 0.1."""

from __future__ import annotations

import importlib
import pickle
import sys

import pytest

import lolama_core
from lolama_core import LlamaConfig
from lolama_core.protocols import types
from lolama_core.protocols.moved_modules import HOMES


@pytest.mark.parametrize("old", HOMES)
def test_an_old_name_is_the_same_module_and_warns(old: str) -> None:
    home = importlib.import_module(HOMES[old])
    for name in (old, HOMES[old]):
        sys.modules.pop(name, None)
    sys.modules[HOMES[old]] = home
    with pytest.warns(DeprecationWarning, match=f"^{old} has moved: import {HOMES[old]}; ") as seen:
        found = importlib.import_module(old)
    assert found is home
    assert home.__spec__ is not None
    assert (home.__name__, home.__spec__.name) == (HOMES[old], HOMES[old])
    assert [one.filename for one in seen][-1].endswith("importlib/__init__.py")


def test_the_warning_names_the_line_that_imports() -> None:
    sys.modules.pop("lolama_core.rope", None)
    vars(lolama_core).pop("rope", None)
    with pytest.warns(DeprecationWarning, match="rope has moved") as seen:
        from lolama_core import rope  # type: ignore[attr-defined]
    assert seen[0].filename == __file__
    assert rope.__name__ == "lolama_core.model.rope"


def test_what_was_pickled_by_an_old_name_loads() -> None:
    config = LlamaConfig(vocab_size=8, d_model=8, num_heads=2, num_layers=1, hidden_dim=8)
    old = pickle.dumps(config, protocol=0).replace(
        b"lolama_core.model.config", b"lolama_core.config"
    )
    sys.modules.pop("lolama_core.config", None)
    with pytest.warns(DeprecationWarning, match="config has moved"):
        assert pickle.loads(old) == config


def test_other_names_are_still_unknown() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        importlib.import_module("lolama_core.no_such")


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("DownloadPlan", "source"),
        ("FilePlan", "source"),
        ("ModelInfo", "source"),
        ("StoredModel", "source"),
        ("QuantizationReport", "quantizer"),
        ("QuantizationScheme", "quantizer"),
    ],
)
def test_a_name_that_has_moved_is_the_same_object_and_warns(name: str, home: str) -> None:
    expected = f"{name} has moved: import it from lolama_core.protocols.{home}; "
    with pytest.warns(DeprecationWarning, match=expected) as seen:
        found = getattr(types, name)
    assert seen[0].filename == __file__
    assert found is getattr(importlib.import_module(f"lolama_core.protocols.{home}"), name)
    with pytest.raises(AttributeError, match="has no attribute 'NoSuch'"):
        _ = types.NoSuch  # type: ignore[attr-defined]
