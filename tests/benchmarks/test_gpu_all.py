"""What needs a GPU is tried without one: tiny models, the same program."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.gpu_all import LIMIT, Part, main, parts

from benchmarks import gpu_all, gpu_switches
from lolama_core.protocols.decoder_kernel import BlockWeights, DecoderShape
from lolama_core.runtime.kernels import Kernels
from lolama_core.testing.switches import SWITCHED
from lolama_quant.cpu.decoder import NativeDecoderKernel, NativeStep
from lolama_quant.cpu.library import native_library

NATIVE = pytest.mark.skipif(isinstance(native_library(), str), reason="no native library")


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_part_that_fails_or_hangs_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    writes = "import sys; open(sys.argv[1], 'w').write('[7]'); print('well'); print('| 7 | 8 |')"
    chosen = [
        Part("breaks", "an error", 60, ["-c", "raise SystemExit('oh')"]),
        Part("hangs", "no end", 1, ["-c", "while True: pass"]),
        Part("writes", "a number", 60, ["-c", writes, "{json}"]),
        Part("late", "nothing", LIMIT + 1, ["-c", ""]),
    ]
    monkeypatch.setattr(gpu_all, "parts", lambda device, small: chosen)
    assert main([str(tmp_path / "new"), "--device", "cpu"]) == 1
    facts, *found = results(tmp_path / "new")
    assert {"date", "device", "versions"} <= facts.keys()
    assert [one["outcome"] for one in found] == [
        "failed with 1",
        "took longer than 1 s",
        "passed",
        "not run: no time",
    ]
    assert (found[0]["said"], found[2]["said"], found[2]["measured"]) == ("oh", "well", [7])
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "new" / "results.md").read_text()
    for one in found:
        assert one["part"] in printed and one["outcome"] in printed


def test_all_that_passes_is_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_all, "parts", lambda device, small: [Part("one", "", 60, ["-c", ""])])
    assert main([str(tmp_path), "--device", "cpu"]) == 0


def test_without_a_gpu_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([str(tmp_path / "new")]) == 3
    assert capsys.readouterr().err == (
        "error: cuda: no GPU that torch can use is here; run this where one is\n"
    )
    assert not (tmp_path / "new").exists()


def test_all_parts_fit_into_the_limit() -> None:
    for device in ("cuda", "cpu"):
        for small in (False, True):
            chosen = parts(device, small)
            # Some seconds are for what is between them.
            assert sum(part.seconds for part in chosen) <= LIMIT - 10
            assert len({part.name for part in chosen}) == len(chosen)


def run_part(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a part has measured of tiny models on the CPU."""
    [part] = [part for part in parts("cpu", True) if part.name == name]
    monkeypatch.setattr(gpu_all, "parts", lambda device, small: [part])
    status = main([str(folder), "--device", "cpu", "--small"])
    assert status == 0, (folder / f"{name}.log").read_text()
    measured: dict[str, Any] = results(folder)[1]["measured"]
    return measured


def test_the_rows_of_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This part is run as it is: recorded steps run the same operators one by one."""
    measured = run_part("rows", tmp_path, monkeypatch)["steps"]
    assert len(measured) == 8
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in measured.values())


@NATIVE
def test_each_switch_of_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This part is run as it is, with the kernels of the CPU."""
    measured = run_part("switches", tmp_path, monkeypatch)["switches"]
    assert len(measured) == len(gpu_switches.CASES) * len(SWITCHED)
    assert all("distance" in one for one in measured.values())


class ForgetfulKernel(NativeDecoderKernel):
    """Takes every activation for SiLU."""

    def bind(self, blocks: Sequence[BlockWeights], shape: DecoderShape) -> NativeStep | None:
        return super().bind(blocks, dataclasses.replace(shape, activation="silu"))


@NATIVE
def test_a_kernel_that_computes_something_else_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Kernels, "installed", lambda: Kernels(decoder=[ForgetfulKernel()]))
    monkeypatch.setattr(gpu_switches, "CASES", [("bfloat16", None)])
    monkeypatch.setattr(gpu_switches, "SWITCHED", {"gelu": {"activation": "gelu"}, "window": {}})
    options = ["--device", "cpu", "--shape", "stories260k", "--context", "20"]
    monkeypatch.setattr(sys, "argv", ["gpu_switches", *options])
    assert gpu_switches.main() == 1
    told = capsys.readouterr()
    assert told.err.startswith("wrong: gelu, weights bfloat16, cache as wide: kernels are ")
    assert "gelu" not in told.out and "window" in told.out
