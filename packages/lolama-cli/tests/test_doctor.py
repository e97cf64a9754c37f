"""``lolama doctor``, and what ``lolama -v generate`` says of kernels."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint, requires, version
from pathlib import Path
from typing import Any

import program
import pytest
import torch
from program import environment, shell
from warm_program import on_terminal, run

import lolama_core
from lolama import devices, doctor, torch_devices
from lolama.device import Device
from lolama.doctor import Product
from lolama_cli import model_choice
from lolama_cli.commands.doctor import _about, _about_dtypes, _rows
from lolama_cli.schemas import DOCTOR

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
DEVICE_KEYS = [
    *("name", "problem", "processor", "instruction_set", "cores", "threads"),
    *("memory_bytes", "free_memory_bytes", "native_bfloat16"),
]


def with_modules(folder: Path, entry_points: str = "", **modules: str) -> dict[str, str]:
    """An environment with these modules and a distribution ``extra`` with these entry points."""
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    metadata = folder / "extra-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *([before] if before else [])])}


def without_library(folder: Path) -> dict[str, str]:
    """An environment in which lolama-quant does not find its native library."""
    hide = (
        "import lolama_quant.cpu.library as native\n"
        "native.LIBRARY = native.LIBRARY.with_name('absent.so')\n"
    )
    return with_modules(folder, sitecustomize=hide)


def kernel(description: str) -> str:
    """Source of a module with a kernel that is never the faster choice."""
    return (
        "class Kernel:\n"
        "    name = 'extra'\n"
        f"    def describe(self): return {description!r}\n"
        "    def max_rows(self, *anything): return 0\n"
    )


def facts(env: dict[str, str] | None = None) -> dict[tuple[str, str], str]:
    """(section, name) → value, from a pipe."""
    outcome = program.run("doctor", env=env)
    assert (outcome.code, outcome.err) == (0, "")
    header, *rows = [line.split("\t") for line in outcome.out.decode().splitlines()]
    assert header == ["section", "name", "value"]
    return {(section, name): value for section, name, value in rows}


def as_json(env: dict[str, str] | None = None) -> Any:
    outcome = program.run("doctor", "--json", env=env)
    assert (outcome.code, outcome.err) == (0, "")
    return json.loads(outcome.out)


def plain(terminal: bytes) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", terminal.decode()).replace("\r\n", "\n")


def test_text_and_json_tell_the_same() -> None:
    told, found = facts(), as_json()
    assert list(found) == [
        *("schema", "versions", "devices", "device", "dtypes"),
        *("linear_kernels", "decoder_kernels", "quantizers", "models", "broken"),
    ]
    assert found["schema"] == DOCTOR.id == "lolama.doctor/1"
    assert {name: told["versions", name] for name in found["versions"]} == found["versions"]
    # torch's own version may add +cpu or +cu130.
    assert found["versions"]["torch"] == version("torch")
    declared = {re.split(r"[^\w-]", one)[0] for one in requires("lolama-cli") or ()}
    ours = {"lolama-cli", *(name for name in declared if name.startswith("lolama-"))}
    assert {name for name in found["versions"] if name.startswith("lolama-")} == ours
    for device in found["devices"]:
        assert list(device) == DEVICE_KEYS
        assert (device["problem"] or device["processor"]) in told["devices", device["name"]]
    cpu = found["devices"][0]
    assert (cpu["name"], cpu["threads"]) == ("cpu", 1)
    assert f"{cpu['instruction_set']}, {cpu['cores']} core" in told["devices", "cpu"]
    assert ", 1 thread, " in told["devices", "cpu"]
    assert told["devices", "--device auto"] == found["device"]
    assert list(found["dtypes"]) == ["float32", "bfloat16", "float16"]
    assert [(kernel["name"], kernel["package"]) for kernel in found["linear_kernels"]] == [
        ("native", "lolama-quant")
    ]
    assert told["multiplications", "native"] == found["linear_kernels"][0]["description"]
    assert told["decoding", "native"] == found["decoder_kernels"][0]["description"]
    assert [quantizer["name"] for quantizer in found["quantizers"]] == ["gguf", "int4", "int8"]
    for quantizer in found["quantizers"]:
        assert told["quantizing", quantizer["name"]] == quantizer["description"]
        assert quantizer["description"].startswith("cpu: ")
    assert found["models"] == [
        {"name": "demo", "package": "lolama-core"},
        {"name": "demo-vision", "package": "lolama-vision"},
    ]
    assert told["models", "demo"] == "ships with lolama-core"
    assert found["broken"] == []


def test_on_a_terminal_it_fits_80_columns() -> None:
    outcome = on_terminal("doctor")
    assert (outcome.code, outcome.err) == (0, "")
    text = plain(outcome.out)
    assert max(map(len, text.splitlines())) <= 80
    for section in ("versions", "devices", "multiplications", "decoding", "models"):
        assert len(re.findall(rf"^{section} ", text, re.MULTILINE)) == 1
    assert "\x1b" not in on_terminal("doctor", env={"NO_COLOR": "1", "TERM": "dumb"}).out.decode()


def test_help_tells_of_it_and_needs_no_torch() -> None:
    assert re.search(r"^  doctor  +Show what is installed", run("--help").out.decode(), re.M)
    outcome = program.run("doctor", "--help", python=("-X", "importtime"))
    assert b"docs/json.md" in outcome.out
    assert "| torch" not in outcome.err


def test_without_the_native_library(tmp_path: Path) -> None:
    env = without_library(tmp_path)
    assert facts(env)["multiplications", "native"].startswith("not built: ")
    outcome = program.run("-v", "generate", "-m", "demo", "--max-tokens", "3", "z", env=env)
    assert outcome.code == 0
    assert re.search(
        r"^matrix multiplications: torch for 43 linears; not in use: native \(not built: .+\)$",
        outcome.err,
        re.M,
    )


def test_verbose_tells_the_kernel_in_use() -> None:
    told = facts()
    about, decoding = told["multiplications", "native"], told["decoding", "native"]
    outcome = run("-v", "generate", "-m", "demo", "--max-tokens", "3", "z")
    assert outcome.code == 0
    lines = [
        line for line in outcome.err.splitlines() if line.startswith("matrix multiplications: ")
    ]
    if "rows" in about:
        # Keys and values of so small a model have too few heads to be worth a call.
        assert lines == [
            f"matrix multiplications: native ({about}) for 31 linears, torch for 12 linears"
        ]
        assert f"decoding: native ({decoding}), all blocks in one call" in outcome.err
    else:
        assert "decoding: block by block" in outcome.err
        assert lines == [
            f"matrix multiplications: torch for 43 linears; not in use: native ({about})"
        ]


def test_no_kernel_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**kwargs: str) -> tuple[EntryPoint, ...]:
        return ()

    monkeypatch.setattr("lolama_core.plugins.entry_points", none)
    found = doctor.gather()
    assert (found.linear_kernels, found.models) == ([], [])
    assert (
        "multiplications",
        "torch",
        "no kernel is installed (pip install lolama-quant)",
    ) in _rows(found)


@pytest.mark.parametrize(
    ("products", "line"),
    [
        (
            [Product(name="torch", description="", linears=1155)],
            "torch for 1,155 linears; no linear kernel is installed (pip install lolama-quant)",
        ),
        (
            [
                Product(name="a", description="here", linears=2),
                Product(name="torch", description="", linears=1),
                Product(name="b", description="broken", linears=0),
            ],
            "a (here) for 2 linears, torch for 1 linear; not in use: b (broken)",
        ),
    ],
)
def test_the_line_on_products(
    monkeypatch: pytest.MonkeyPatch, products: list[Product], line: str
) -> None:
    monkeypatch.setattr(doctor, "products", lambda model: products)
    assert model_choice._products_line(None) == f"matrix multiplications: {line}"  # type: ignore[arg-type]


def test_broken_packages_are_lines(tmp_path: Path) -> None:
    entry_points = (
        "[lolama.linear_kernels]\nextra = extra_kernel:Kernel\n"
        "[lolama.families]\nlama = extra_family:Family\n"
        "[lolama.sources]\nnowhere = extra_missing:Source\n"
    )
    env = with_modules(
        tmp_path,
        entry_points,
        extra_kernel="raise OSError('one\\n\\ttwo')",
        extra_family="def Family(): raise RuntimeError('x' * 1000)",
    )
    told, found = facts(env), as_json(env)
    assert (
        told["multiplications", "extra"] == "cannot be loaded: OSError: one two (reinstall extra)"
    )
    assert ("multiplications", "native") in told
    assert ("models", "demo") in told
    assert "ModuleNotFoundError" in told["broken", "nowhere"]
    assert len(told["broken", "lama"]) < 250
    assert [(b["kind"], b["name"], b["package"]) for b in found["broken"]] == [
        ("lolama.families", "lama", "extra"),
        ("lolama.sources", "nowhere", "extra"),
    ]
    assert [kernel["name"] for kernel in found["linear_kernels"] if kernel["problem"]] == ["extra"]


def test_a_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    env = with_modules(tmp_path, torch="raise ImportError('libcudart.so: no such file')")
    told = facts(env)
    problem = "ImportError: libcudart.so: no such file"
    assert told["broken", "torch"] == f"cannot be loaded: {problem} (reinstall torch)"
    assert as_json(env)["device"] is None


def test_row_184_a_broken_torch_is_found_by_whoever_asks_it(tmp_path: Path) -> None:
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('libcudart.so: no such file')")
    (folder / "version.py").write_text("cuda: str | None = None\nhip = None\n")
    env = with_modules(tmp_path)
    assert as_json(env)["broken"] == []
    outcome = program.run("doctor", "--deep", "--json", env=env)
    (broken,) = json.loads(outcome.out)["broken"]
    assert broken["name"] == "torch" and "libcudart.so: no such file" in broken["problem"]


def test_row_184_what_is_told_without_torch_is_what_torch_tells() -> None:
    def lasting(found: list[Device]) -> list[Device]:
        return [replace(device, free_memory_bytes=None) for device in found]

    assert lasting(devices.all_devices()) == lasting(devices.all_devices(ask_torch=True))


ASKING = """
import json
from lolama import devices
found = [devices.all_devices(ask_torch=ask)[0] for ask in (False, True)]
print(json.dumps([{"threads": cpu.threads, "set": cpu.instruction_set} for cpu in found]))
"""


@pytest.fixture(
    scope="module",
    params=[
        {"OMP_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "1000", "ATEN_CPU_CAPABILITY": "default"},
        {"OMP_NUM_THREADS": "", "MKL_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2"},
        {"OMP_NUM_THREADS": "", "MKL_NUM_THREADS": "1000"},
    ],
    ids=lambda env: " ".join(f"{name}={value}" for name, value in env.items()),
)
def cpus(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """The processor as a new process tells of it without torch, and as it does once it asks torch."""
    command = [sys.executable, "-c", ASKING]
    env = environment(request.param)
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_row_184_threads_are_told_as_torch_tells_them(cpus: list[dict[str, Any]]) -> None:
    told, asked = (cpu["threads"] for cpu in cpus)
    assert told in (None, asked)


def test_row_184_the_instruction_set_is_told_as_torch_tells_it(cpus: list[dict[str, Any]]) -> None:
    told, asked = (cpu["set"] for cpu in cpus)
    assert told in (None, asked)


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("native", [True, False])
def test_row_184_dtypes_are_those_that_a_model_gets(
    monkeypatch: pytest.MonkeyPatch, kind: str, native: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: native)
    found = Device(name=f"{kind}:0" if kind == "cuda" else kind, native_bfloat16=native)
    device, dtypes = doctor._choices([Device(name="cpu"), found])
    assert device == kind
    for stored, used in dtypes.items():
        dtype = lolama_core.choose_dtype(None, torch.device(kind), getattr(torch, stored))
        assert str(dtype) == f"torch.{used}"


def test_an_ascii_terminal_and_control_characters(tmp_path: Path) -> None:
    points = "[lolama.linear_kernels]\nextra = extra_kernel:Kernel\n"
    env = with_modules(tmp_path, points, extra_kernel=kernel("caf\xe9 \x1b]0;title\x07"))
    assert facts({**env, **ASCII})["multiplications", "extra"] == "caf\xe9 \x1b]0;title\x07"
    outcome = program.on_terminal("doctor", env={**env, **ASCII})
    assert (outcome.code, outcome.err) == (0, "")
    assert re.search(r"extra +caf\? \^\[\]0;title\^G", plain(outcome.out))
    assert as_json({**env, **ASCII})["linear_kernels"][0]["description"].startswith("caf\xe9")


def test_a_closed_a_full_and_an_abandoned_standard_output() -> None:
    shell("lolama doctor >&-").refused(2, "standard output", "closed")
    if os.path.exists("/dev/full"):
        shell("lolama doctor > /dev/full").refused(6, "standard output", "No space left")
    outcome = shell("lolama doctor --json | true; exit ${PIPESTATUS[0]}")
    assert (outcome.code, outcome.err) == (141, "")


def test_a_gpu_in_words() -> None:
    gpu = Device(
        name="cuda:0",
        processor="NVIDIA H100",
        memory_bytes=80_000_000_000,
        free_memory_bytes=79_500_000_000,
        native_bfloat16=True,
    )
    assert _about(gpu) == "NVIDIA H100, 79.5 of 80.0 GB available, native bfloat16"
    chosen = {"float32": "bfloat16", "bfloat16": "bfloat16", "float16": "float16"}
    assert _about_dtypes(chosen) == "float32 weights as bfloat16; bfloat16, float16 as stored"


def test_cuda_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise RuntimeError("Found no NVIDIA driver on your system. Please check that you have one.")

    monkeypatch.setattr("torch.backends.cuda.is_built", lambda: True)
    monkeypatch.setattr("torch.cuda.init", no_driver)
    (cuda,) = torch_devices._cuda()
    assert cuda == Device(name="cuda", problem="Found no NVIDIA driver on your system")


def test_each_gpu_is_asked_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name, total_memory = "a GPU", 8_000_000_000

    class Selected:
        def __init__(self, index: int) -> None:
            self.index = index

        def __enter__(self) -> None:
            if self.index == 1:
                raise RuntimeError("CUDA-capable device(s) is/are busy or unavailable\nmore")

        def __exit__(self, *error: object) -> None:
            pass

    for name, value in (
        ("backends.cuda.is_built", lambda: True),
        ("cuda.init", lambda: None),
        ("cuda.device_count", lambda: 2),
        ("cuda.device", Selected),
        ("cuda.get_device_properties", lambda index: Properties),
        ("cuda.mem_get_info", lambda device: (7_000_000_000, 8_000_000_000)),
        ("cuda.is_bf16_supported", lambda including_emulation: False),
    ):
        monkeypatch.setattr(f"torch.{name}", value)
    good, busy = torch_devices._cuda()
    assert _about(good) == "a GPU, 7.0 of 8.0 GB available, no native bfloat16"
    assert _about(busy).startswith("not available here: RuntimeError: CUDA-capable device")
