"""Many prompts together against one by one: what `lolama generate --batch` gains.

    python -m benchmarks.batch                          the built-in model
    python -m benchmarks.batch --shape 160m             a random model of that shape
    python -m benchmarks.batch --prompts 500 --rows 16 64 --rounds 5 --json results/batch.json

The same prompts of different lengths, the same number of new tokens, greedy, in one process: each alone with
`TextGenerator`, then together with `BatchGenerator`, as the command runs them. Rounds alternate between the
contestants, so that whatever else the machine does meets all of them. Prints the ratios of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.make_model import model_path
from benchmarks.run import processor, versions
from benchmarks.shapes import SHAPES
from lolama import BatchGenerator, GenerationConfig, TextGenerator, load_model, names, wiring
from lolama_core.protocols import CausalLM
from lolama_core.protocols.generation import Generation

_LENGTHS = (8, 64)

Contestant = Callable[[Sequence[list[int]]], int]
"""Generates for prompts; how many tokens came of it."""


def prompts_of(count: int, vocabulary: int) -> list[list[int]]:
    """Random ids, past the control tokens that stand first."""
    generator = torch.Generator().manual_seed(0)
    low, high = _LENGTHS
    lengths = torch.randint(low, high + 1, (count,), generator=generator).tolist()
    return [
        torch.randint(vocabulary // 4, vocabulary, (length,), generator=generator).tolist()
        for length in lengths
    ]


def alone(model: CausalLM, config: GenerationConfig, prompts: Sequence[list[int]]) -> int:
    """One after another; how many tokens came of it."""
    generator = TextGenerator(model)
    return sum(len(generator.generate(ids, config).ids) for ids in prompts)


def together(
    model: CausalLM, config: GenerationConfig, rows: int, prompts: Sequence[list[int]]
) -> int:
    """``rows`` at a time; how many tokens came of it."""
    batch = BatchGenerator(model, rows=rows)
    for ids in prompts:
        batch.submit(ids, config)
    tokens = 0
    while batch.busy:
        batch.step()
        for result in batch.collect().values():
            if not isinstance(result, Generation):
                raise result
            tokens += len(result.ids)
    return tokens


def measure(
    contestants: dict[str, Contestant], prompts: Sequence[list[int]], new: int, rounds: int
) -> dict[str, list[float]]:
    """Tokens per second of every contestant in every round. Two prompts warm each up before."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant(prompts[:2])
    for _ in range(rounds):
        for name, contestant in contestants.items():
            started = time.perf_counter()
            tokens = contestant(prompts)
            seconds = time.perf_counter() - started
            assert tokens == len(prompts) * new, f"{name} made {tokens} tokens"
            speeds[name].append(tokens / seconds)
    return speeds


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="demo", help="what lolama generate -m takes; default: demo")
    add("--shape", choices=SHAPES, help="a random model of that shape, in the place of --model")
    add("--quantize", action="store_true", help="in int8")
    add("--prompts", type=int, default=64, help="default: 64")
    add("--new", type=int, default=64, help="new tokens of each; default: 64")
    add("--rows", type=int, nargs="+", default=[16], help="prompts at the same time; default: 16")
    add("--rounds", type=int, default=3, help="default: 3")
    add("--json", type=Path, help="where to write the results")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        name = arguments.model
        if arguments.shape:
            name = str(model_path(arguments.shape, "hf-bf16", Path(folder)))
        vocabulary = names.text_shape(names.resolve(name))["vocab_size"]
        model = load_model(name, quantize=arguments.quantize)
    wiring.suit_threads(model)
    assert isinstance(vocabulary, int)
    prompts = prompts_of(arguments.prompts, vocabulary)
    config = GenerationConfig(
        max_new_tokens=arguments.new, temperature=0, repetition_penalty=1, ignore_eos=True
    )
    contestants: dict[str, Contestant] = {"one by one": partial(alone, model, config)}
    for rows in arguments.rows:
        contestants[f"{rows} together"] = partial(together, model, config, rows)
    speeds = measure(contestants, prompts, arguments.new, arguments.rounds)
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    facts = {
        "model": arguments.shape or arguments.model,
        "int8": arguments.quantize,
        "prompts": arguments.prompts,
        "new_tokens": arguments.new,
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "versions": versions(),
        "tokens_per_second": speeds,
    }
    weights = "int8" if arguments.quantize else str(model.dtype).removeprefix("torch.")
    print(f"{facts['model']}, {weights}: {len(prompts)} prompts, {arguments.new} new tokens each")
    for name, speed in middle.items():
        print(f"{name:16}{speed:12,.0f} tokens/s{speed / middle['one by one']:10.2f} x")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
