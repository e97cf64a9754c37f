"""Downloads of a model of 2 GB from the stand-in hub on this machine: lolama beside huggingface_hub alone.

    python -m benchmarks.downloads --rounds 3

Both fetch the same files into an empty directory, each in a process of its own that is timed as a whole;
lolama verifies the sha256 of every file and forces it to the disk, which huggingface_hub does not. Then the
model is loaded from the disk, and the bytes that came from there are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.make_model import write_hugging_face
from benchmarks.page_cache import drop_from_memory
from benchmarks.shapes import SHAPES

REPO = "bench/model"
PEER = f"""
from huggingface_hub import snapshot_download
snapshot_download({REPO!r}, max_workers=8)
"""
LOAD = f"""
import json
from lolama import load_model
def read():
    with open("/proc/self/io") as file:
        return int(dict(line.split(": ") for line in file)["read_bytes"])
import torch
before = read()
model = load_model({REPO!r})
print(json.dumps([read() - before, sum(t.numel() * t.element_size() for t in model.state_dict().values())]))
"""


@contextmanager
def hub(folder: Path) -> Iterator[dict[str, str]]:
    """The stand-in hub in a process of its own; what its clients need in their environment."""
    command = [sys.executable, "-m", "lolama_hub.testing.stand_in_hub", f"{REPO}={folder}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        env = {}
        for _ in range(5):
            name, _, value = (
                process.stdout.readline().removeprefix("export ").strip().partition("=")
            )
            env[name] = value
        try:
            yield {**env, "HF_HUB_DOWNLOAD_TIMEOUT": "60", "HF_HUB_ETAG_TIMEOUT": "60"}
        finally:
            process.terminate()


def timed(command: list[str], env: Mapping[str, str]) -> float:
    """Seconds of wall time of a process."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **env})
    return time.perf_counter() - started


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the model is, or is to be kept")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tinyllama")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lolama-downloads-") as name:
        work = Path(name)
        folder = options.folder or work / "model"
        if not folder.exists():
            write_hugging_face(folder, SHAPES[options.shape], "bf16")
        size = sum(path.stat().st_size for path in folder.iterdir())
        seconds: dict[str, list[float]] = {"huggingface_hub": [], "lolama": []}
        with hub(folder) as env:
            timed([sys.executable, "-c", "import urllib.request as r, os;"
                   f"r.urlopen(os.environ['HF_ENDPOINT'] + '/api/models/{REPO}/tree/x')"], env)  # fmt: skip
            own = {**env, "HF_HOME": str(work / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
            own["LOLAMA_HOME"] = str(work / "store")
            for _ in range(options.rounds):
                shutil.rmtree(work / "hf", ignore_errors=True)
                seconds["huggingface_hub"].append(timed([sys.executable, "-c", PEER], own))
                shutil.rmtree(work / "hf")
                shutil.rmtree(work / "store", ignore_errors=True)
                pull = [sys.executable, "-m", "lolama_cli", "pull", "--yes", REPO]
                seconds["lolama"].append(timed(pull, own))
        os.sync()
        drop_from_memory([work / "store"])
        own["HF_HUB_OFFLINE"] = "1"
        loaded = subprocess.run(
            [sys.executable, "-c", LOAD],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **own},
        )
        read, weights = json.loads(loaded.stdout)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    report = {
        "bytes": size,
        "seconds": {name: [round(s, 2) for s in values] for name, values in seconds.items()},
        "ratio of medians": round(medians["lolama"] / medians["huggingface_hub"], 3),
        "bytes read by loading": read,
        "bytes of weights": weights,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
