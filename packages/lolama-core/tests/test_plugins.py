"""What other packages provide: found, or one line on which package is missing or broken."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lolama_core import plugins
from lolama_core.model import family
from lolama_core.model.family import LlamaFamily
from lolama_core.protocols.errors import NotAvailableError, ResourceError
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


def provide(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    """Let these be the only entry points: name → module and class, all of families."""

    def entries(*, group: str, name: str | None = None) -> list[EntryPoint]:
        listed = [EntryPoint(one, place, group) for one, place in found.items()]
        in_group = listed if group == "lolama.families" else []
        return [entry for entry in in_group if name in (None, entry.name)]

    monkeypatch.setattr(plugins, "entry_points", entries)


def test_families_have_cores_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(LlamaFamily):
        name = "a-first-letter"

    monkeypatch.setattr(family, "Other", Other, raising=False)
    place = "lolama_core.model.family"
    provide(monkeypatch, another=f"{place}:Other", llama=f"{place}:LlamaFamily")
    assert list(plugins.installed_families()) == ["llama", "a-first-letter"]
    assert type(plugins.installed_family("another")) is Other


def test_what_no_package_provides_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provide(monkeypatch)
    with pytest.raises(NotAvailableError) as missing:
        plugins.installed_family("rwkv", "my/model")
    assert str(missing.value) == (
        "my/model: no installed package provides the model family 'rwkv'; run `pip install lolama-cli`"
    )
    with pytest.raises(NotAvailableError) as missing:
        plugins.installed_quantizer("int3")
    assert str(missing.value) == (
        "int3: no installed package provides the quantizer 'int3'; run `pip install lolama-quant`"
    )
    with pytest.raises(NotAvailableError, match=r"the model source 'huggingface'; .*lolama-hub"):
        plugins.installed_source()


def test_row_240_a_family_that_cannot_be_loaded_is_named_like_a_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provide(monkeypatch, lama="no_such_module:Family")
    with pytest.raises(
        NotAvailableError, match=r"^no_such_module: its model family 'lama' cannot "
    ):
        plugins.installed_families()
    (attempt,) = plugins.plugin_attempts("lolama.families")
    assert (attempt.name, attempt.package, attempt.provider) == ("lama", "no_such_module", None)
    assert attempt.problem == "ModuleNotFoundError: No module named 'no_such_module'"


def test_an_error_of_its_own_is_not_called_a_broken_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full() -> None:
        raise ResourceError("store", "cannot be used", "set LOLAMA_HOME")

    monkeypatch.setattr(family, "full", full, raising=False)
    provide(monkeypatch, full="lolama_core.model.family:full")
    with pytest.raises(ResourceError, match="set LOLAMA_HOME"):
        plugins.installed_family("full")


def test_entry_points_are_read_again_where_packages_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read = importlib.metadata.entry_points

    def counted(*, group: str) -> importlib.metadata.EntryPoints:
        reads.append(1)
        return read(group=group)

    def named() -> set[str]:
        return plugins.entry_points(group="lolama.families").names

    monkeypatch.setattr(importlib.metadata, "entry_points", counted)
    monkeypatch.syspath_prepend(tmp_path)
    before = named()
    assert named() == before and len(reads) == 1
    (tmp_path / "more-1.0.dist-info").mkdir()
    os.utime(tmp_path, (1, 1))  # the clock may not have ticked
    (tmp_path / "more-1.0.dist-info" / "METADATA").write_text("Name: more\nVersion: 1.0\n")
    (tmp_path / "more-1.0.dist-info" / "entry_points.txt").write_text(
        "[lolama.families]\nmore=a:B\n"
    )
    assert named() == before | {"more"}
    assert named() == before | {"more"} and len(reads) == 2
    assert plugins.entry_points(group="lolama.families", name="more").names == {"more"}
    shutil.rmtree(tmp_path / "more-1.0.dist-info")
    os.utime(tmp_path, (2, 2))
    assert named() == before and len(reads) == 3
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert named() == before and len(reads) == 4
