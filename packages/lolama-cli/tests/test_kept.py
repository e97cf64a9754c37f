"""Quantized models that are kept: listed, and deleted with what they were made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import known_model
import pytest
from warm_program import on_terminal, run

from lolama import downloads, kept, names, quantize, removal
from lolama_cli.commands.rm import _removable
from lolama_core.protocols.errors import UsageError
from lolama_hub import Store


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return known_model.write(tmp_path / "me@home")


def keep(name: str | Path, **options: int) -> Path:
    """Where the int8 form of a model is kept now."""
    files = quantize.keep(names.resolve(name), quantize.Options(**options))  # type: ignore[arg-type]
    return next(iter(files.tensors.values())).path.parent


def listed(home: Path) -> dict[str, int]:
    """Names that ``lolama models --json`` has quantized models of → their bytes."""
    facts: dict[str, Any] = json.loads(
        run("models", "--json", env={"LOLAMA_HOME": str(home)}).out.decode()
    )
    return {one["name"]: one["int8_bytes"] for one in facts["models"] if one["int8_bytes"]}


def test_row_207_they_are_listed_by_what_they_were_made_from(home: Path, folder: Path) -> None:
    assert listed(home) == {}
    demo, one, other = keep("demo"), keep(folder), keep(folder, lm_head=True)
    sizes = [sum(file.stat().st_size for file in place.iterdir()) for place in (demo, one, other)]
    assert listed(home) == {"demo": sizes[0], str(folder): sizes[1] + sizes[2]}
    env = {"LOLAMA_HOME": str(home)}
    rows = [line.split("\t") for line in run("models", env=env).out.decode().splitlines()]
    assert (rows[0][10], rows[1][0], rows[1][10]) == ("quantized", "demo", str(sizes[0]))
    assert (rows[-1][0], rows[-1][10]) == (str(folder), str(sizes[1] + sizes[2]))
    shown = on_terminal("models", env=env).out.decode()
    assert f"quantized {downloads.size_text(sizes[0])}" in shown


@pytest.mark.parametrize("damage", ["cut short", "without configuration", "empty"])
def test_row_467_one_that_is_damaged_is_made_anew_on_request(home: Path, damage: str) -> None:
    place, env = keep("demo"), {"LOLAMA_HOME": str(home)}
    before = (place / "model.safetensors").read_bytes()
    if damage == "cut short":
        (place / "model.safetensors").write_bytes(before[:100_000])
    else:
        for name in ("model.safetensors", "config.json") if damage == "empty" else ("config.json",):
            (place / name).unlink()
    words = "delete its folder, and it is made anew\n"
    run("generate", "-m", "demo", "--quantize", "x", env=env).refused(3, str(place), words)
    run("quantize", "-m", "demo", env=env).refused(3, str(place), words)
    assert run("quantize", "-m", "demo", "--force", env=env).code == 0
    assert (place / "model.safetensors").read_bytes() == before
    assert [*place.parent.iterdir()] == [place]
    shutil.rmtree(place)
    assert run("generate", "-m", "demo", "--quantize", "x", env=env).code == 0


def test_row_207_rm_deletes_them_by_that_name(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo, one, other = keep("demo"), keep(folder), keep(folder, lm_head=True)
    assert _removable("") == [str(folder), "demo"]
    freed = sum(place.stat().st_size for each in (one, other) for place in each.iterdir())
    monkeypatch.chdir(folder.parent)
    assert removal.remove(f"./{folder.name}") == freed
    assert (demo.exists(), one.exists(), other.exists()) == (True, False, False)
    with pytest.raises(UsageError, match="folder of your own"):
        removal.remove(str(folder))
    assert folder.is_dir()
    outcome = run("rm", "demo", env={"LOLAMA_HOME": str(home)})
    assert (outcome.code, demo.exists()) == (0, False)
    run("rm", "demo", env={"LOLAMA_HOME": str(home)}).refused(2, "built in")
    assert not list((home / "int8").iterdir())


def test_row_207_rm_of_a_name_never_means_a_folder_of_that_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    shutil.copytree(folder, "tinyllama")
    shutil.copytree(folder, "demo")
    place = keep("./tinyllama")
    for name in ("tinyllama", "demo"):
        with pytest.raises(UsageError):
            removal.remove(name)
    assert place.exists()


def test_row_207_gc_deletes_those_whose_source_is_gone(home: Path, folder: Path) -> None:
    demo, one = keep("demo"), keep(folder)
    leftover = one.with_name(f"{one.name}.removed-1")
    shutil.copytree(one, leftover)
    assert (removal.collect_garbage(), leftover.exists()) == (0, False)
    freed = sum(file.stat().st_size for file in one.iterdir())
    shutil.rmtree(folder)
    assert removal.collect_garbage() == freed
    assert [path.name for path in (home / "int8").iterdir()] == [demo.name]


def test_row_207_those_of_a_repository_go_with_their_commit(folder: Path) -> None:
    config = json.loads((keep(folder) / "config.json").read_bytes())
    for commit in "ab":
        place = Store().directory(kept.KIND, f"llama-{commit}")
        source = {"name": "owner/name", "repo": "owner/name", "revision": commit}
        (place / "config.json").write_text(json.dumps({**config, "source": source}))
    kept.collect_garbage(lambda repo, revision: (repo, revision) == ("owner/name", "b"))
    left = {model.revision for model in kept.kept_models() if model.source == "owner/name"}
    assert left == {"b"}
    assert kept.remove(lambda model: model.source == "owner/name") > 0


def test_row_207_what_does_not_say_its_source_has_a_name_too(folder: Path) -> None:
    place = keep(folder)
    path = place / "config.json"
    config = json.loads(path.read_bytes())
    del config["source"]["name"]
    path.write_text(json.dumps(config))
    assert [model.source for model in kept.kept_models()] == [str(place)]
    assert removal.collect_garbage() == 0
    assert removal.remove(str(place)) > 0
    assert not place.exists()


def test_row_207_a_model_that_is_saved_does_not_tell_of_folders(
    folder: Path, tmp_path: Path
) -> None:
    quantize.save(names.resolve(folder), tmp_path / "saved")
    assert str(tmp_path) not in (tmp_path / "saved" / "config.json").read_text()
