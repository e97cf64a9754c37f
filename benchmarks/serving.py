"""What one engine is good for: many requests at once.

    python -m benchmarks.serving                        everything, on a random model of TinyLlama's shape
    python -m benchmarks.serving --only memory chats    some of it
    python -m benchmarks.serving --shape 160m --json results/serving.json

| part | what it shows |
|---|---|
| memory | bytes of keys and values while 64 requests of 20 to 2,000 tokens run that name no limit |
| fair | how long rows that decode wait while a prompt of 8,192 runs, and when a short one starts |
| chats | 32 chats with one system prompt of 1,000 tokens: how often it is run, and when a first token comes |
| rows | tokens per second of 16 rows, beside llama.cpp with 16 sequences where it is installed |
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.contestants import EIGHT_BITS, SIXTEEN_BITS, Contestant, PeerError, PeerProcess
from benchmarks.make_model import model_path
from benchmarks.measure import BATCH_CONTEXT
from benchmarks.run import processor, versions
from benchmarks.serving_memory import memory
from benchmarks.shapes import SHAPES
from benchmarks.versions import interval
from lolama import Engine, GenerationConfig, load_model
from lolama_core import suit_threads
from lolama_core.protocols import CausalLM

GREEDY = GenerationConfig.greedy(ignore_eos=True, max_new_tokens=1 << 20)


def fair(model: CausalLM, runs: int) -> dict[str, Any]:
    """Figure → its median, its least and its greatest value in as many runs of `fair_once`."""
    found = []
    for number in range(runs):
        print(f"fair: run {number + 1} of {runs}", file=sys.stderr, flush=True)
        found.append(fair_once(model))
    return {
        name: [median(values), min(values), max(values)]
        for name in found[0]
        for values in [[run[name] for run in found]]
    }


def fair_once(model: CausalLM) -> dict[str, float]:
    """Four rows decode; a prompt of 8,192 comes, and later some of 32, one after another.

    The long prompt is taken out now and then for some steps of the four alone. It goes on from what it has
    run, which is kept. So both are timed in turn. No row tries tokens ahead, which would make steps of the
    four take longer, and give more than a token.
    """
    engine = Engine(model, draft="off")
    for row in range(4):
        engine.submit([3 + row, *range(4, 23)], GREEDY)
    while len(engine.step()) < 4:
        pass

    def step() -> tuple[float, set[int]]:
        begin = time.perf_counter()
        given = engine.step()
        return time.perf_counter() - begin, {ticket for ticket, _ in given}

    prompt = [3 + place * 7 % 500 for place in range(8192)]
    alone: list[float] = []
    beside: list[float] = []
    # What chunks were planned to cost, and their positions.
    costs: list[float] = []
    positions: list[int] = []
    # Steps from when a short prompt came.
    starts: list[int] = []
    first_tokens: list[int] = []
    short = came = long = 0
    while True:
        if len(beside) % 60 == 0:
            engine.cancel(long)
            alone += [step()[0] for _ in range(10)]
            long = engine.submit(prompt, GREEDY)
        seconds, given = step()
        if long in given:
            break
        beside.append(seconds)
        costs.append(engine.costs.planned)
        positions.append(engine.costs.positions)
        runs = short and engine._schedule.requests[short].to_run < 32
        if runs and len(starts) == len(first_tokens):
            starts.append(len(beside) - came)
        if short in given:
            first_tokens.append(len(beside) - came)
            engine.cancel(short)
            short = 0
        # They come at any place between two steps that the engine measures.
        if len(beside) % 50 == 10:
            came = len(beside)
            short = engine.submit([500 + came] * 32, GREEDY)
    of_alone, of_beside = (quantiles(times, n=10)[-1] for times in (alone, beside))
    return {
        "steps beside the prompt": len(beside),
        "median milliseconds of a token alone": 1e3 * median(alone),
        "90th percentile alone": 1e3 * of_alone,
        "median beside": 1e3 * median(beside),
        "90th percentile beside": 1e3 * of_beside,
        "90th percentile, ratio": of_beside / of_alone,
        "greatest planned cost of a chunk, in steps": max(costs),
        "positions of a chunk, least": min(positions),
        "positions of a chunk, median": median(positions),
        "steps until a prompt of 32 begins to run, most": max(starts),
        "steps until its first token, median": median(first_tokens),
        "steps until its first token, most": max(first_tokens),
    }


def chats(model: CausalLM) -> dict[str, Any]:
    """They come one after another, so that a first token waits for nobody else's."""
    engine = Engine(model, rows=32)
    system = [3 + place * 7 % 500 for place in range(1000)]
    first, cached = [], []
    for chat in range(32):
        begin = time.perf_counter()
        ticket = engine.submit([*system, *range(100 + chat, 120 + chat)], GREEDY, max_new_tokens=2)
        while not any(given == ticket for given, _ in engine.step()):
            pass
        first.append(time.perf_counter() - begin)
        while engine.busy:
            engine.step()
        result = engine.collect()[ticket]
        cached.append(getattr(result, "cached_tokens", None))
    together = Engine(model, rows=32)
    for chat in range(32):
        together.submit([*system, *range(100 + chat, 120 + chat)], GREEDY, max_new_tokens=2)
    while together.busy:
        together.step()
    all_cached = [getattr(result, "cached_tokens", 0) for result in together.collect().values()]
    return {
        "seconds to the first token of the first chat": first[0],
        "of the second": first[1],
        "times sooner": first[0] / first[1],
        "median of the others": median(first[1:]),
        "positions that were not run again, of each": cached[:3],
        "chats that ran the system prompt, one after another": cached.count(0),
        "chats that ran it, all at once": all_cached.count(0),
    }


def rows(shape: str, root: Path, pairs: int) -> dict[str, Any]:
    """16 rows after 128 positions each, in pairs with llama.cpp."""
    threads = os.cpu_count() or 1
    found: dict[str, Any] = {}
    pairings = (
        # llama.cpp's Q8_0 has its output matrix in eight bits, too.
        (EIGHT_BITS[1], "llama.cpp Q8_0"),
        (EIGHT_BITS[0], "llama.cpp Q8_0"),
        (SIXTEEN_BITS[0], "llama.cpp BF16"),
    )
    for mine, label in pairings:
        theirs = next(c for c in (*EIGHT_BITS, *SIXTEEN_BITS) if c.label == label)
        job = {"do": "steps", "rows": 16, "context": BATCH_CONTEXT, "steps": 6}
        ours = Contestant(f"{mine.label}, engine", "lolama rows", mine.layout)
        processes = []
        try:
            for each in (ours, theirs):
                path = model_path(shape, each.layout, root)
                processes.append(PeerProcess(each, path, threads))
            ratios, speeds = [], []
            for number in range(pairs):
                print(f"{label}: pair {number + 1} of {pairs}", file=sys.stderr, flush=True)
                order = processes if number % 2 else processes[::-1]
                seconds = {process: median(process.ask(job)) for process in order}
                ratios.append(seconds[processes[1]] / seconds[processes[0]])
                speeds.append(16 / seconds[processes[0]])
            found[f"{ours.label}: tokens/s of 16 rows"] = median(speeds)
            found[f"{ours.label} / {label}"] = [median(ratios), *interval(ratios)]
        except PeerError as error:
            found[f"{ours.label} / {label}"] = str(error)
        finally:
            for process in processes:
                process.close()
    return found


PARTS = ("memory", "fair", "chats", "rows")


def measure(part: str, arguments: argparse.Namespace, root: Path) -> dict[str, Any]:
    """What a part shows. Its model goes with it, so that its memory is free for the next."""
    if part == "memory":
        return memory()
    if part == "rows":
        return rows(arguments.shape, root, arguments.pairs)
    model = load_model(str(model_path(arguments.shape, arguments.layout, root)))
    suit_threads(model)
    return fair(model, arguments.runs) if part == "fair" else chats(model)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=PARTS)
    add("--shape", choices=SHAPES, default="tinyllama", help="default: tinyllama")
    add("--layout", choices=["hf-bf16", "int8-kept"], default="int8-kept")
    add("--runs", type=int, default=3, help="of `fair`, of 1 to 2 minutes each; default: 3")
    add("--pairs", type=int, default=20, help="of `rows`; default: 20")
    add("--models", type=Path, help="where the random models are kept (a temporary folder)")
    add("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    root = arguments.models or Path(tempfile.gettempdir()) / "lolama-benchmarks"
    facts: dict[str, Any] = {
        "shape": arguments.shape,
        "layout": arguments.layout,
        "processor": processor(),
        "versions": versions(),
    }
    for part in arguments.only:
        facts[part] = measure(part, arguments, root)
        print(part, json.dumps(facts[part], indent=2), flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
