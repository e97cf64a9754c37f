"""Models in four bits that are made bit by bit: broken off anywhere, gone on with, never of two models."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from program import environment
from torch import Tensor
from warm_program import run

import lolama
from lolama import calibration, kept, names, quantize, removal
from lolama.unfinished import KIND, Unfinished, unfinished
from lolama_core import BatchGenerator, Llama, LlamaConfig
from lolama_core.protocols.errors import ResourceError, UsageError
from lolama_hub import Store, locked

OPTIONS = quantize.Options(bits=4)
PARTS = ["text", *(f"layers.{place}" for place in range(3))]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setattr("lolama.calibration.TOKENS", 600)
    monkeypatch.setattr("lolama.calibration._LENGTH", 64)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights."""
    torch.manual_seed(0)
    tokenizer = lolama.load_tokenizer("demo")
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        d_model=64,
        num_heads=4,
        num_kv_heads=2,
        num_layers=3,
        hidden_dim=96,
        max_seq_len=128,
    )
    place = tmp_path_factory.mktemp("made") / "small"
    lolama.save(Llama(config).to(torch.bfloat16), place, tokenizer=tokenizer)
    return place


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parts that were written, in order."""
    found: list[str] = []
    write = Unfinished.write

    def noted(
        self: Unfinished, name: str, tensors: Mapping[str, Tensor], depends: str = ""
    ) -> None:
        write(self, name, tensors, depends)
        found.append(name)

    monkeypatch.setattr(Unfinished, "write", noted)
    return found


def break_off(monkeypatch: pytest.MonkeyPatch, small: Path, parts: int) -> None:
    """A run with Ctrl-C behind this many parts that it makes."""
    with monkeypatch.context() as patch:
        left, write = iter(range(parts - 1)), Unfinished.write

        def some(self: Unfinished, *arguments: object, **options: object) -> None:
            write(self, *arguments, **options)  # type: ignore[arg-type]
            if next(left, None) is None:
                raise KeyboardInterrupt

        patch.setattr(Unfinished, "write", some)
        with pytest.raises(KeyboardInterrupt):
            quantize.save(names.resolve(small), small.with_name("broken off"), OPTIONS)


def weights(target: Path) -> bytes:
    return (target / "model.safetensors").read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from lolama import calibration, names, quantize
from lolama.unfinished import Unfinished

torch.set_num_threads(1)  # or what is forked has none
calibration.TOKENS, calibration._LENGTH = 600, 64
source, target, write, runs = sys.argv[1], Path(sys.argv[2]), Unfinished.write, 0

def killed(self, *arguments, **options):
    write(self, *arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

Unfinished.write = killed
status = 1
while status:
    runs += 1
    child = os.fork()
    if child == 0:
        quantize.save(names.resolve(source), target, quantize.Options(bits=4))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
print(runs)
"""


def test_row_414_texts_stand_in_one_order_whichever_ends_first(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = lolama.load_model(small), lolama.load_tokenizer(small)
    expected = calibration.own_text(model, tokenizer, lambda done, total: None)
    collect = BatchGenerator.collect
    monkeypatch.setattr(
        BatchGenerator, "collect", lambda self: dict(reversed(collect(self).items()))
    )
    found = calibration.own_text(model, tokenizer, lambda done, total: None)
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]


def test_row_484_killed_after_every_part_and_the_same_bit_for_bit(
    small: Path, home: Path, tmp_path: Path
) -> None:
    quantize.save(names.resolve(small), tmp_path / "at once", OPTIONS)
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(small), str(tmp_path / "in parts")],
        capture_output=True,
        text=True,
        env=environment({**os.environ, "LOLAMA_HOME": str(home)}),
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) == len(PARTS) + 1
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        one, other = (tmp_path / place / name for place in ("at once", "in parts"))
        assert one.read_bytes() == other.read_bytes()
    assert not [*(home / KIND).iterdir()]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_row_484_ctrl_c_and_then_the_same_command(
    small: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str]
) -> None:
    break_off(monkeypatch, small, 3)
    [place] = (home / KIND).iterdir()
    assert sorted(path.name for path in place.iterdir()) == sorted(PARTS[:3])
    assert kept.kept_models() == []
    env = {"LOLAMA_HOME": str(home)}
    assert str(home / KIND) not in run("models", env=env).out.decode()
    written.clear()
    told: list[tuple[int, int]] = []
    target = tmp_path / "int4"
    quantize.save(
        names.resolve(small), target, OPTIONS, steps=lambda done, all_: told.append((done, all_))
    )
    assert written == PARTS[3:]
    # What is there is run, and then it begins anew with what is left.
    assert told == [(0, 21), (7, 21), *((done, 7) for done in range(7))]
    assert not place.exists()
    quantize.save(names.resolve(small), tmp_path / "at once", OPTIONS)
    assert weights(target) == weights(tmp_path / "at once")


def of_another_text(part: Path) -> None:
    config = json.loads((part / "config.json").read_text())
    config["source"]["and"] = "0" * 64
    (part / "config.json").write_text(json.dumps(config))


def of_another_model(part: Path) -> None:
    config = json.loads((part / "config.json").read_text())
    config["source"]["made_from"] = "0" * 64
    (part / "config.json").write_text(json.dumps(config))


def cut_short(part: Path) -> None:
    os.truncate(part / "model.safetensors", 70_000)


def without_configuration(part: Path) -> None:
    (part / "config.json").unlink()


@pytest.mark.parametrize(
    "damage", [of_another_text, of_another_model, cut_short, without_configuration, shutil.rmtree]
)
def test_row_485_a_part_that_is_damaged_or_of_something_else_is_made_anew(
    small: Path,
    damage: Callable[[Path], None],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: list[str],
) -> None:
    quantize.save(names.resolve(small), tmp_path / "at once", OPTIONS)
    break_off(monkeypatch, small, 3)
    [place] = (home / KIND).iterdir()
    damage(place / "layers.1")
    written.clear()
    quantize.save(names.resolve(small), tmp_path / "int4", OPTIONS)
    assert written == ["layers.1", "layers.2"]
    assert weights(tmp_path / "int4") == weights(tmp_path / "at once")


def test_row_485_other_options_text_or_versions_have_parts_of_their_own(
    small: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str]
) -> None:
    break_off(monkeypatch, small, 2)
    written.clear()
    text = "Once upon a time there was a small dog. " * 200
    quantize.save(names.resolve(small), tmp_path / "a", quantize.Options(bits=4, text=text))
    assert written == PARTS
    assert len([*(home / KIND).iterdir()]) == 1
    monkeypatch.setattr("lolama_quant.__version__", "9.9")
    written.clear()
    quantize.save(names.resolve(small), tmp_path / "b", OPTIONS)
    assert written == PARTS


def test_what_is_kept_goes_on_with_what_a_folder_began(
    small: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str]
) -> None:
    break_off(monkeypatch, small, 3)
    written.clear()
    quantize.keep(names.resolve(small), OPTIONS)
    assert written == PARTS[3:]
    assert [one.source for one in kept.kept_models()] == [str(small)]


def test_a_text_that_is_too_short_leaves_nothing(small: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too few tokens: 5, where 64 are the least"):
        quantize.save(
            names.resolve(small), tmp_path / "int4", quantize.Options(bits=4, text="Short.")
        )
    assert not [*(home / KIND).iterdir()] and not [*(home / "locks").iterdir()]


def test_row_485_a_part_that_somebody_removes_meanwhile(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str]
) -> None:
    read = Unfinished.read

    def without(self: Unfinished, name: str, depends: str = "") -> dict[str, Tensor] | None:
        if written == PARTS:
            self.remove("layers.1")
        return read(self, name, depends)

    monkeypatch.setattr(Unfinished, "read", without)
    with pytest.raises(ResourceError, match=r"layers\.1: was changed or removed while"):
        quantize.save(names.resolve(small), tmp_path / "int4", OPTIONS)
    assert not (tmp_path / "int4").exists()


def test_gc_deletes_what_nobody_is_at(
    small: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert removal.collect_garbage() == 0
    break_off(monkeypatch, small, 2)
    [place] = (home / KIND).iterdir()
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    with locked(Store().directory("locks") / place.name):
        assert removal.collect_garbage() == 0 and place.is_dir()
    assert removal.collect_garbage() == size > 0
    assert not place.exists() and not [*(home / "locks").iterdir()]


def test_parts_are_read_as_they_were_written(small: Path, home: Path) -> None:
    with unfinished(names.resolve(small), {"a": 1}) as made:
        assert made.read("one") is None
        made.write("one", {"x": torch.arange(5), "y": torch.ones(2, 3, dtype=torch.float16)}, "z")
        assert made.read("one") is None  # it depends on something
        found = made.read("one", "z")
        assert found is not None and torch.equal(found["x"], torch.arange(5))
        made.remove("one")
        assert made.read("one", "z") is None
    assert not [*(home / KIND).iterdir()]
