"""Modules and functions of lolama by the names that they had in 0.1."""

from __future__ import annotations

import importlib
import sys

import pytest

import lolama_core
from lolama import names, providers, wiring

MOVED = {
    "conversion": "convert",
    "evaluation": "evaluate",
    "information": "info",
    "quantized": "quantize",
    "remembered": "file_facts",
    "report": "doctor",
    "speed": "bench",
}
IN_NAMES = "resolve builtin_models known_models tokenizer_text with_chat_template context_length text_shape"


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_module_is_the_new_one_and_warns(old: str, new: str) -> None:
    home = importlib.import_module(f"lolama.{new}")
    sys.modules.pop(f"lolama.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"^lolama.{old} has moved: import lolama.{new}; "):
        assert importlib.import_module(f"lolama.{old}") is home


@pytest.mark.parametrize("name", IN_NAMES.split())
def test_a_function_of_wiring_is_that_of_names_and_warns(name: str) -> None:
    with pytest.warns(
        DeprecationWarning, match=f"^lolama.wiring.{name} has moved: use lolama.names.{name};"
    ):
        assert getattr(wiring, name) is getattr(names, name)


def test_wiring_knows_no_other_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        _ = wiring.no_such


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("families", "installed_families"),
        ("family", "installed_family"),
        ("source", "installed_source"),
        ("quantizer", "installed_quantizer"),
        ("attempts", "plugin_attempts"),
        ("Attempt", "PluginAttempt"),
    ],
)
def test_what_looks_up_packages_has_its_old_name_and_warns(old: str, new: str) -> None:
    with pytest.warns(
        DeprecationWarning, match=f"^lolama.providers.{old} has moved: use lolama_core.{new};"
    ):
        assert getattr(providers, old) is getattr(lolama_core, new)


def test_providers_knows_no_other_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such'"):
        _ = providers.no_such
