"""Kernels of other packages: found, or one line on which package is broken."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from lolama_core import kernels
from lolama_core.decode import decoder_kernels
from lolama_core.linear import linear_kernels
from lolama_core.protocols.errors import NotAvailableError


@pytest.mark.parametrize("find", [linear_kernels, decoder_kernels])
def test_a_kernel_that_cannot_be_loaded_is_named(
    monkeypatch: pytest.MonkeyPatch, find: Any
) -> None:
    def broken(*, group: str) -> tuple[EntryPoint, ...]:
        return (EntryPoint("fast", "no_such_module:Kernel", group),)

    monkeypatch.setattr(kernels, "entry_points", broken)
    with pytest.raises(NotAvailableError) as raised:
        find()
    assert str(raised.value) == (
        "no_such_module: its kernel 'fast' cannot be loaded (ModuleNotFoundError: No module named "
        "'no_such_module'); `pip install --force-reinstall no_such_module`, or uninstall it to run without"
    )
