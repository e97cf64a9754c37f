"""The family is found and named, and refuses with a reason instead of pretending."""

from importlib.metadata import entry_points
from typing import NoReturn

import pytest

from lolama_core.protocols import ModelFamily
from lolama_core.protocols.errors import NotAvailableError
from lolama_vision import LlavaFamily

family: ModelFamily = LlavaFamily()  # checked by mypy: it is what lolama expects to find


def never_called(config: object) -> NoReturn:
    raise AssertionError("a family that builds nothing has no use for a language model")


def test_is_found_by_its_name() -> None:
    (found,) = entry_points(group="lolama.families", name="llava")
    assert found.load() is LlavaFamily
    assert family.name == found.name


def test_ships_no_model() -> None:
    assert dict(family.builtins) == {}


def test_building_says_what_is_missing() -> None:
    with pytest.raises(
        NotAvailableError, match=r"llava: building .* lolama-vision; use a text model"
    ):
        family.build({}, never_called)


def test_pictures_are_refused_rather_than_ignored() -> None:
    with pytest.raises(NotAvailableError, match=r"llava: preparing pictures .* lolama-vision"):
        family.image_processor({})
