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
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from benchmarks.contestants import EIGHT_BITS, SIXTEEN_BITS, Contestant, PeerError, PeerProcess
from benchmarks.make_model import model_path
from benchmarks.measure import BATCH_CONTEXT
from benchmarks.run import processor, versions
from benchmarks.shapes import SHAPES, cache_bytes
from benchmarks.versions import interval
from lolama import Engine, GenerationConfig, load_model
from lolama_core import Llama, LlamaConfig, suit_threads
from lolama_core.protocols import CausalLM
from lolama_core.runtime.pages import PAGE

GREEDY = GenerationConfig.greedy(ignore_eos=True, max_new_tokens=1 << 20)


def until(length: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A processor that ends a text with token 2 when it has ``length`` tokens."""

    def end(ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, 2] = -torch.inf
        if ids.shape[1] >= length:
            scores[:, 2] = torch.finfo(scores.dtype).max
        return scores

    return end


def memory(_model: CausalLM) -> dict[str, Any]:
    """The cache of TinyLlama's shape in a model that is else small: only bytes are measured."""
    shape = SHAPES["tinyllama"]
    config = LlamaConfig(
        vocab_size=512,
        d_model=64,
        num_heads=4,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        num_layers=shape.num_layers,
        hidden_dim=64,
        max_seq_len=4096,
    )
    torch.manual_seed(0)
    model = Llama(config).eval().requires_grad_(False)
    draw, engine = random.Random(0), Engine(model, rows=64)
    position = cache_bytes(config, 1, item=4)
    lengths: dict[int, int] = {}
    for _ in range(64):
        prompt = [draw.randrange(3, 512) for _ in range(draw.randint(8, 18))]
        length = draw.randint(20, 2000)
        config_of_text = GenerationConfig.greedy(max_new_tokens=4000)
        ticket = engine.submit(prompt, config_of_text, logits_processors=[until(length)])
        lengths[ticket] = len(prompt)
    worst, most, most_kept = 0.0, 0, 0
    while engine.busy:
        for ticket, emission in engine.step():
            lengths[ticket] += 1
            if emission.finish_reason:
                del lengths[ticket]
        engine.collect()
        used = engine.used_cache_bytes
        worst = max(
            worst, (used - len(lengths) * PAGE * position) / (1 + sum(lengths.values()) * position)
        )
        most, most_kept = max(most, used), max(most_kept, engine.kept_cache_bytes)
    return {
        "most of (bytes - a page a row) / bytes of the positions": worst,
        "most bytes of unfinished requests": most,
        "most bytes kept": most_kept,
        "bytes if each row had memory for its context": 64 * config.max_seq_len * position,
    }


def fair(model: CausalLM) -> dict[str, Any]:
    """Four rows decode; a prompt of 8,192 comes, and later one of 32."""
    engine = Engine(model)
    for row in range(4):
        engine.submit([3 + row, *range(4, 23)], GREEDY)
    while len(engine.step()) < 4:
        pass

    def step() -> tuple[float, set[int]]:
        begin = time.perf_counter()
        given = engine.step()
        return time.perf_counter() - begin, {ticket for ticket, _ in given}

    alone = [step()[0] for _ in range(40)]
    long = engine.submit([3 + place * 7 % 500 for place in range(8192)], GREEDY)
    beside, costs, short, came = [], [], 0, 0
    first_token = None
    while True:
        seconds, given = step()
        if long in given:
            break
        beside.append(seconds)
        costs.append(engine.costs.planned)
        if len(beside) == 50:
            short, came = engine.submit([9] * 32, GREEDY), len(beside)
        if short and first_token is None and short in given:
            first_token = len(beside) - came
            engine.cancel(short)
    return {
        "steps beside the prompt": len(beside),
        "median milliseconds of a token alone": 1e3 * median(alone),
        "90th percentile alone": 1e3 * quantiles(alone, n=10)[-1],
        "median beside": 1e3 * median(beside),
        "90th percentile beside": 1e3 * quantiles(beside, n=10)[-1],
        "90th percentile, ratio": quantiles(beside, n=10)[-1] / quantiles(alone, n=10)[-1],
        "greatest planned cost of a chunk, in steps": max(costs),
        "steps until the first token of a prompt of 32": first_token,
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
    for mine, label in ((EIGHT_BITS[0], "llama.cpp Q8_0"), (SIXTEEN_BITS[0], "llama.cpp BF16")):
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


PARTS = {"memory": memory, "fair": fair, "chats": chats}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=[*PARTS, "rows"], default=[*PARTS, "rows"])
    add("--shape", choices=SHAPES, default="tinyllama", help="default: tinyllama")
    add("--layout", choices=["hf-bf16", "int8-kept"], default="int8-kept")
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
    model = None
    for part in arguments.only:
        if part == "rows":
            model = None  # its memory is for the others
            facts[part] = rows(arguments.shape, root, arguments.pairs)
        else:
            if model is None:
                model = load_model(str(model_path(arguments.shape, arguments.layout, root)))
                suit_threads(model)
            facts[part] = PARTS[part](model)
        print(part, json.dumps(facts[part], indent=2), flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
