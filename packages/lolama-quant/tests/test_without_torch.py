"""What reports ask of this package's kernels, each time in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

GROUPS = ("lolama.linear_kernels", "lolama.decoder_kernels", "lolama.quantizers")
DESCRIBE = """
import json, sys
from importlib.metadata import entry_points
if "torch" in sys.argv:
    import torch
told = {}
for group in sys.argv[1].split(","):
    for entry in entry_points(group=group):
        if entry.module.startswith("lolama_quant."):
            told[f"{group} {entry.name}"] = entry.load()().describe()
print(json.dumps([told, "torch" in sys.modules]))
"""


def described(*arguments: str) -> tuple[dict[str, str], bool]:
    command = [sys.executable, "-c", DESCRIBE, ",".join(GROUPS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told, has_torch = json.loads(done.stdout)
    return told, has_torch


def test_kernels_describe_themselves_without_torch_as_with_it() -> None:
    told, has_torch = described()
    assert told == described("torch")[0]
    ours = [entry for group in GROUPS for entry in entry_points(group=group)]
    assert len(told) == sum(entry.module.startswith("lolama_quant.") for entry in ours) >= 4
    native = told["lolama.quantizers int8"].startswith("cpu: native")
    if not native or "torch sees none" not in told["lolama.decoder_kernels triton"]:
        pytest.skip("what is left to torch is asked of torch")
    assert not has_torch


def test_the_library_and_torch_share_one_openmp_whichever_comes_first() -> None:
    for order in ("library, torch", "torch, library"):
        code = (
            "import sys\n"
            "from lolama_quant.cpu.library import native_library\n"
            "load = {'library': native_library, 'torch': lambda: __import__('torch')}\n"
            f"for name in {order!r}.split(', '): load[name]()\n"
            "maps = open('/proc/self/maps').read().splitlines()\n"
            "print(*{line.split()[-1] for line in maps if 'libgomp' in line})\n"
        )
        if sys.platform != "linux":
            pytest.skip("reads /proc")
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert len(done.stdout.split()) == 1, (order, done.stdout)
