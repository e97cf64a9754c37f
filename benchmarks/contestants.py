"""Who takes part, and a handle on the process of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """One engine with one layout of the model.

    Attributes:
        label: Row of the tables; of lolama it says which of its wheels do the work.
        engine: As `benchmarks.peer` calls it.
        layout: As `benchmarks.make_model` calls it.
        environment: Variables for its process.
        item, head_item: Bytes of a weight, and of one of ``lm_head``, scales included.
        python: The interpreter that runs it.
        checkout: The folder whose ``benchmarks.peer`` it is; None for this one.
    """

    label: str
    engine: str
    layout: str
    environment: dict[str, str] = field(default_factory=dict)
    item: float = 2
    head_item: float = 2
    python: str = sys.executable
    checkout: Path | None = None


_ALONE = {"LOLAMA_BENCH_KERNELS": "0"}
_Q8_0 = 34 / 32  # a 16-bit scale for every 32 weights

# Without lolama-quant there are no kernels, so a row without them is what lolama-core does alone.
SIXTEEN_BITS = [
    Contestant("lolama bf16 (core + quant)", "lolama", "hf-bf16"),
    Contestant("lolama f16 (core + quant)", "lolama", "hf-f16"),
    Contestant("lolama bf16 (core alone)", "lolama", "hf-bf16", _ALONE),
    Contestant("eager loop bf16", "eager", "hf-bf16"),
    Contestant("transformers bf16", "transformers", "hf-bf16"),
    Contestant("llama.cpp BF16", "llama.cpp", "gguf-bf16"),
    Contestant("llama.cpp F16", "llama.cpp", "gguf-f16"),
    Contestant("CTranslate2 int8", "ctranslate2", "ct2-int8", item=1, head_item=1),
]

# What is kept of a model in int8 is lm_head (and the embedding, of which a token reads a row).
EIGHT_BITS = [
    Contestant("lolama int8", "lolama", "int8-kept", item=1),
    Contestant("lolama int8, lm_head too", "lolama", "int8-head", item=1, head_item=1),
    Contestant("lolama int8, no native library", "lolama", "int8-kept", _ALONE, item=1),
    Contestant("lolama bf16", "lolama", "hf-bf16"),
    Contestant("transformers bf16", "transformers", "hf-bf16"),
    Contestant("llama.cpp Q8_0", "llama.cpp", "gguf-q8_0", item=_Q8_0, head_item=_Q8_0),
    Contestant("CTranslate2 int8", "ctranslate2", "ct2-int8", item=1, head_item=1),
]

# A code is half a byte, 32 weights have two bytes for scale and minimum, and 256 have four. In a Q4_K_M some
# linears are Q6_K, and the head of both is.
_INT4, _Q4_0, _Q4_K_M, _Q6_K = 0.5 + 2 / 32 + 4 / 256, 18 / 32, 0.604, 210 / 256

FOUR_BITS = [
    Contestant("lolama int4", "lolama", "int4-kept", item=_INT4, head_item=1),
    Contestant("lolama int4, lm_head int4", "lolama", "int4-head", item=_INT4, head_item=_INT4),
    Contestant("lolama Q4_K_M", "lolama", "gguf-q4_k_m", item=_Q4_K_M, head_item=_Q6_K),
    Contestant("lolama int8", "lolama", "int8-kept", item=1),
    Contestant("lolama int8, lm_head too", "lolama", "int8-head", item=1, head_item=1),
    Contestant("llama.cpp Q4_0", "llama.cpp", "gguf-q4_0", item=_Q4_0, head_item=_Q6_K),
    Contestant("llama.cpp Q4_K_M", "llama.cpp", "gguf-q4_k_m", item=_Q4_K_M, head_item=_Q6_K),
]

SETS = {"16-bit": SIXTEEN_BITS, "int8": EIGHT_BITS, "int4": FOUR_BITS}
"""Who is measured beside whom, by the weights that the run is about."""


class PeerProcess:
    """A contestant's process.

    Attributes:
        hello: Its first answer, how it started.

    Raises:
        PeerError: from any method, with the last line that the process wrote, if it has ended.
    """

    def __init__(self, contestant: Contestant, path: Path, threads: int) -> None:
        self.log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - as long as the process
        read_through(path)
        self.process = subprocess.Popen(
            [
                contestant.python,
                "-m",
                "benchmarks.peer",
                contestant.engine,
                str(path),
                str(threads),
            ],
            cwd=contestant.checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **contestant.environment},
        )
        self.hello: dict[str, Any] = self._answer()

    def ask(self, job: dict[str, Any]) -> list[float]:
        """Have it do a job; see `benchmarks.peer`."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer, or rather that there is none, tells why
        seconds: list[float] = self._answer()
        return seconds

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        status = self.process.wait()
        self.log.seek(0)
        said = self.log.read().strip().splitlines()
        raise PeerError(f"ended with {status}: {said[-1] if said else 'without a word'}")

    def close(self) -> None:
        """End it, and wait until its memory is free."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


class PeerError(Exception):
    """A process that ended before it was told to."""


def read_through(path: Path) -> None:
    """Have the model's files in the page cache, so that loading does not measure the disk."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with file.open("rb", buffering=0) as data:
            while data.read(1 << 24):
                pass
