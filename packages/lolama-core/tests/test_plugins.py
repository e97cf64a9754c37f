"""Kernels of other packages: found, or one line on which package is broken."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from lolama_core import plugins
from lolama_core.protocols.errors import NotAvailableError
from lolama_core.runtime.kernels import Kernels


@pytest.mark.parametrize("group", ["lolama.linear_kernels", "lolama.decoder_kernels"])
def test_a_kernel_that_cannot_be_loaded_is_named(
    monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    def broken(*, group: str, wanted: str = group) -> tuple[EntryPoint, ...]:
        return (EntryPoint("fast", "no_such_module:Kernel", group),) if group == wanted else ()

    monkeypatch.setattr(plugins, "entry_points", broken)
    with pytest.raises(NotAvailableError) as raised:
        Kernels.installed()
    assert str(raised.value) == (
        "no_such_module: its kernel 'fast' cannot be loaded (ModuleNotFoundError: No module named "
        "'no_such_module'); `pip install --force-reinstall no_such_module`, or uninstall it to run without"
    )
