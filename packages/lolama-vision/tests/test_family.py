"""The family is found and named, and refuses with a reason instead of pretending."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import NoReturn

import pytest

from lolama_core.protocols import ModelFamily
from lolama_core.protocols.errors import NotAvailableError
from lolama_core.protocols.types import JSON
from lolama_core.testing.model import ModelFamilySuite
from lolama_vision import LlavaFamily

LLAVA: ModelFamily = LlavaFamily()  # checked by mypy: it is what lolama expects to find


class TestLlavaFamily(ModelFamilySuite):
    @pytest.fixture
    def family(self) -> ModelFamily:
        return LLAVA

    @pytest.fixture
    def config(self) -> Mapping[str, JSON]:
        return {}

    # Strict: once the family builds, this mark fails the test until it is taken away.
    @pytest.mark.xfail(raises=NotAvailableError, strict=True, reason="not in this version")
    def test_builds_on_the_meta_device(
        self, family: ModelFamily, config: Mapping[str, JSON]
    ) -> None:
        super().test_builds_on_the_meta_device(family, config)


def never_called(config: object) -> NoReturn:
    raise AssertionError("a family that builds nothing has no use for a language model")


def test_is_found_by_its_name() -> None:
    (found,) = entry_points(group="lolama.families", name="llava")
    assert found.load() is LlavaFamily
    assert found.name == LLAVA.name


def test_ships_no_model() -> None:
    assert dict(LLAVA.builtins) == {}


def test_building_says_what_is_missing() -> None:
    with pytest.raises(
        NotAvailableError, match=r"llava: building .* lolama-vision; use a text model"
    ):
        LLAVA.build({}, never_called)


def test_pictures_are_refused_rather_than_ignored() -> None:
    with pytest.raises(NotAvailableError, match=r"llava: preparing pictures .* lolama-vision"):
        LLAVA.image_processor({})
