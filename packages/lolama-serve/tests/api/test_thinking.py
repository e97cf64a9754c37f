"""Which models are told to think, and which are told not to."""

from __future__ import annotations

import pytest
from served_demo import SWITCH, THINKS, DemoHost

from lolama_core.protocols.errors import UsageError
from lolama_serve.api.thinking import thinking_switch


@pytest.mark.parametrize(
    ("template_end", "wanted", "told"),
    [
        (SWITCH, True, True),
        (SWITCH, False, False),
        (SWITCH, None, None),
        (THINKS, True, None),  # it does so anyway
        (THINKS, None, None),
        ("", True, None),
        ("", False, None),
    ],
)
def test_a_model_is_told_what_its_template_has_a_switch_for(
    template_end: str, wanted: bool | None, told: bool | None
) -> None:
    tokenizer = DemoHost(template_end=template_end).load("demo").tokenizer
    assert thinking_switch(tokenizer, wanted) is told


def test_a_model_that_always_thinks_cannot_be_asked_not_to() -> None:
    tokenizer = DemoHost(template_end=THINKS).load("demo").tokenizer
    with pytest.raises(UsageError, match="no switch"):
        thinking_switch(tokenizer, False)
