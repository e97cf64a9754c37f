"""Checks of values out of files, and how messages show them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from lolama_core.protocols.checks import (
    check_boolean,
    check_integer,
    check_number,
    from_mapping,
    is_integer,
    is_number,
    kind_of,
    shown,
    with_article,
)
from lolama_core.protocols.errors import ModelError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\nb\x1b[0m\u202e", "'a\\nb\\x1b[0m\\u202e'"),
        ("größe", "'größe'"),
        ("a" * 80, "'" + "a" * 80 + "'"),
        ("a" * 81, "'" + "a" * 77 + "...'"),
        ([1, None], "[1, None]"),
        (list(range(100)), str(list(range(100)))[:77] + "..."),
        (10**18 - 1, "9" * 18),
        (10**18, "a huge integer"),
        pytest.param(-(10**5000), "a huge integer", id="too long for Python"),
        ([10**5000], "a list with a huge integer"),
        (True, "True"),
        (math.nan, "nan"),
    ],
)
def test_a_value_is_shown_escaped_and_cut(value: object, expected: str) -> None:
    assert shown(value) == expected


def test_a_type_has_its_article() -> None:
    assert [kind_of(value) for value in (1, "x", None)] == ["an int", "a str", "a NoneType"]
    nouns = "Experts", "OwnLlama", "Identity", "UserNorm", "RMSNorm", "Linear"
    expected = "an Experts|an OwnLlama|an Identity|a UserNorm|a RMSNorm|a Linear"
    assert "|".join(map(with_article, nouns)) == expected


def test_booleans_are_no_numbers() -> None:
    assert not is_integer(True) and not is_number(False)
    assert is_integer(1) and is_number(1) and is_number(0.5)
    assert not is_integer(1.0) and not is_integer("1") and not is_number("1")


def test_ranges_include_their_ends_and_numbers_are_finite() -> None:
    assert [is_integer(n, 1, 3) for n in range(5)] == [False, True, True, True, False]
    assert [is_number(x, 0.0, 1.0) for x in (-1e-9, 0.0, 1, 1.1)] == [False, True, True, False]
    assert not any(map(is_number, (math.nan, math.inf, -math.inf)))
    assert is_number(10**400) and not is_number(10**400, 0, 1e6)


def test_a_field_that_is_refused_is_named_with_its_value_and_what_was_expected() -> None:
    with pytest.raises(ModelError) as huge:
        check_integer("num_layers", 10**5000, 1024)
    assert str(huge.value) == (
        "config num_layers: is a huge integer, expected an integer from 1 to 1024; "
        "check the model's config.json"
    )
    with pytest.raises(ModelError, match=r"^config eps: is nan, expected a number from 0 to 1;"):
        check_number("eps", math.nan, 0.0, 1.0)
    with pytest.raises(ModelError, match=r"^config eps: is '1', expected a number;"):
        check_number("eps", "1", 0.0, 1.0)
    with pytest.raises(ModelError, match=r"^config mlp_bias: is 1, expected true or false;"):
        check_boolean("mlp_bias", 1)
    assert check_number("eps", 1, 0.0, 1.0) == 1.0 and check_boolean("mlp_bias", False) is False


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    width: int
    depth: int = 2


def test_an_object_becomes_a_dataclass_whose_fields_it_names() -> None:
    assert from_mapping(_Sizes, {"width": 3}, "model", "lolama-core") == _Sizes(width=3)
    with pytest.raises(ModelError, match=r"^config width: is missing;"):
        from_mapping(_Sizes, {}, "model", "lolama-core")
    with pytest.raises(ModelError, match=r"^config sizes width: is missing;"):
        from_mapping(_Sizes, {"depth": 1}, "sizes", "lolama-core")
    with pytest.raises(
        ModelError, match=r"^config model: has fields that are not known here: w; upgrade lolama-x,"
    ):
        from_mapping(_Sizes, {"width": 3, "w": 1}, "model", "lolama-x")
