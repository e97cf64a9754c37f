from __future__ import annotations

from collections.abc import Iterator

import pytest

from lolama_quant.cpu import library
from lolama_quant.cpu.decoder import NativeDecoderKernel


@pytest.fixture
def fresh() -> Iterator[None]:
    library.native_library.cache_clear()
    yield
    library.native_library.cache_clear()


@pytest.mark.skipif(isinstance(library.native_library(), str), reason="no native library")
def test_a_library_of_other_sources_is_not_called(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a checkout has it that was changed and not installed again: it would read arguments wrong."""
    monkeypatch.setattr(library, "INTERFACE", library.INTERFACE + 1)
    why = "built for another version of lolama-quant: install it again"
    assert library.native_library() == why
    assert library.int8_rows() == 0
    assert NativeDecoderKernel().describe() == why
