"""Tokens a second of `lolama serve` beside llama.cpp's server, with many clients at once.

    python -m benchmarks.http_rates --llama-server llama.cpp/build/bin/llama-server

Both have the same random weights, in int8 and in Q8_0, and as many rows and threads. They get the requests of
`benchmarks.http_load`, made of token ids, since the random model has no words; a third of all clients leave
before their answer has ended. Each server runs in a process of its own, one after the other, and the order
changes with each round. The tokens of whole answers count, from the first request to the end of the last.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.http_load import Load, Tally, run
from benchmarks.make_model import model_path
from benchmarks.run import processor
from benchmarks.shapes import SHAPES

_CONTEXT = 512
"""Positions of a prompt and its answer."""

_FIRST_WORD = 3
"""The first id that is no control token."""


def make_loads(count: int, shape: str, seed: int) -> list[Load]:
    """Requests of mixed lengths, in token ids; no end token ends an answer."""
    rng = random.Random(seed)
    loads = []
    for number in range(count):
        length = rng.choice([5, 20, 60, 180])
        body = {
            "prompt": [rng.randrange(_FIRST_WORD, SHAPES[shape].vocab_size) for _ in range(length)],
            "max_tokens": rng.choice([8, 24, 64]),
            "temperature": rng.choice([0, 0.7, 1]),
            "top_p": rng.choice([0.9, 1]),
            "seed": number,
            "stream": rng.random() < 0.5,
            "ignore_eos": True,
        }
        leaves = rng.randrange(6) if rng.random() < 1 / 3 else None
        loads.append(Load(body, leaves))
    return loads


def commands(options: argparse.Namespace, root: Path) -> dict[str, list[str]]:
    """Name → the command line of a server, but for its port."""
    int8 = model_path(options.shape, "int8-kept", root)
    q8_0 = model_path(options.shape, "gguf-q8_0", root)
    rows = str(options.parallel)
    lolama = [sys.executable, "-m", "lolama_cli", "serve", "-m", str(int8), "--parallel", rows]
    lolama += ["--context", str(_CONTEXT), "--draft", "off", "--max-queue", str(options.clients)]
    theirs = [str(options.llama_server), "-m", str(q8_0), "--parallel", rows]
    theirs += ["--ctx-size", str(_CONTEXT * options.parallel), "--threads", str(options.threads)]
    return {"lolama int8": lolama, "llama.cpp Q8_0": theirs}


def measure(
    command: list[str], threads: int, loads: list[Load], clients: int
) -> tuple[Tally, float]:
    """Start a server, send the requests to it, and end it.

    Returns:
        What came of the requests, and the seconds that they took.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = subprocess.DEVNULL
    command = [*command, "--port", str(port)]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    server = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=env)
    try:
        _wait_until_ready(server, port)
        run(port, server.pid, [Load(load.body, None) for load in loads[:4]], 4)  # warms it up
        return run(port, server.pid, loads, clients)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def _wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    while server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except ConnectionError:
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    raise RuntimeError(f"a server ended with {server.returncode} at its start")


def main() -> int:
    """Measure both servers in turn, and print their ratio; 1 if any answer failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-server", type=Path, required=True, help="llama.cpp's program")
    parser.add_argument("--shape", choices=SHAPES, default="160m")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=Path, help="where the random models are kept")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        servers = commands(options, options.models or Path(folder))
        loads = make_loads(options.requests, options.shape, seed=1)
        rates: dict[str, list[float]] = {name: [] for name in servers}
        wrong = 0
        for number in range(options.rounds):
            order = list(servers) if number % 2 == 0 else list(servers)[::-1]
            for name in order:
                tally, seconds = measure(servers[name], options.threads, loads, options.clients)
                rates[name].append(tally.tokens / seconds)
                wrong += len(tally.wrong)
                print(
                    f"round {number + 1}: {name}: {tally.tokens:,} tokens of {len(tally.answers):,} "
                    f"answers in {seconds:.1f} s, {rates[name][-1]:,.1f} tokens/s",
                    flush=True,
                )
                for line in tally.wrong[:5]:
                    print(f"  wrong: {line}")
    ours, theirs = rates.values()
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(processor())
    print(
        f"{options.shape}, {options.clients} clients, {options.parallel} rows: {median(ratios):.2f} times "
        f"llama.cpp's tokens/s, from {min(ratios):.2f} to {max(ratios):.2f} in {options.rounds} rounds"
    )
    if options.json is not None:
        options.json.write_text(json.dumps({"rates": rates, "processor": processor()}, indent=2))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
