"""What keys and values of int8 save, and what they cost.

    python -m benchmarks.int8_cache                                    decoding at 32,000 positions
    python -m benchmarks.int8_cache --instruction-set AVX2             the same without AVX-512
    python -m benchmarks.int8_cache --quality demo ./stories260K       how far predictions move

Decoding steps at many positions and at few take turns, with both caches. Attention's own time is the
difference of the two. Keys and values are random; no prompt is run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.make_model import model_path
from benchmarks.run import processor, versions
from benchmarks.shapes import SHAPES
from lolama import load_model, load_tokenizer
from lolama_core import prompt_logits, suit_threads
from lolama_core.model.kv_cache import own_cache
from lolama_core.protocols import CausalLM
from lolama_core.runtime.int8_cache import CacheDtype, quantized
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import Pages, pages_for
from lolama_core.runtime.runner import runner_of
from lolama_quant import default_text, measure_quality
from lolama_quant.cpu import decoder
from lolama_quant.cpu.library import NativeLibrary, native_library

CACHES: tuple[CacheDtype | None, ...] = (None, "int8")
FEW = 16


def limit(instruction_set: str) -> None:
    """Let the native step know no more than a set."""
    library = native_library()
    assert isinstance(library, NativeLibrary), library
    number = {"AVX2": 1, "portable": 0}[instruction_set]
    less = replace(library, instruction_set=number, int8_instruction_set=number, tiled=None)
    vars(decoder)["native_library"] = lambda: less


def decoding(model: CausalLM, positions: int, pairs: int) -> dict[str, Any]:
    """Steps of one row with both caches, in turns."""
    runner, like = runner_of(model), own_cache(model.make_cache(1, 1))
    memories: dict[CacheDtype | None, Pages] = {}
    for cache_dtype in CACHES:
        pages = Pages(like, pages_for(positions + 1), cache_dtype=cache_dtype)
        for part in (*pages.keys, *pages.values):
            random = torch.randn(*part.shape[:3], like.read_row(0)[0][0].shape[-1])
            part.copy_(random if cache_dtype is None else quantized(random))
        memories[cache_dtype] = pages
    token = model.embed(torch.tensor([[5]]))

    def step(cache_dtype: CacheDtype | None, length: int) -> float:
        pages = memories[cache_dtype]
        row = Row([*range(pages_for(positions + 1))], length)
        begin = time.perf_counter()
        runner.forward_embeds(token, PagedCache(pages, [row]))
        return time.perf_counter() - begin

    times: dict[CacheDtype | None, list[tuple[float, float]]] = {each: [] for each in CACHES}
    with torch.inference_mode():
        for turn in range(pairs + 2):
            for cache_dtype in CACHES:
                both = step(cache_dtype, positions), step(cache_dtype, FEW)
                if turn > 1:
                    times[cache_dtype].append(both)
    own = {each: [whole - few for whole, few in times[each]] for each in CACHES}
    whole = {each: [one for one, _ in times[each]] for each in CACHES}
    return {
        "positions": positions,
        "pairs": pairs,
        "bytes, ratio": memories["int8"].page_bytes / memories[None].page_bytes,
        "attention, ms": {str(each): 1e3 * median(own[each]) for each in CACHES},
        "attention, ratio": median(a / b for a, b in zip(own["int8"], own[None], strict=True)),
        "whole step, ms": {str(each): 1e3 * median(whole[each]) for each in CACHES},
        "whole step, ratio": median(a / b for a, b in zip(whole["int8"], whole[None], strict=True)),
    }


def quality(name: str) -> dict[str, Any]:
    """How far predictions with an int8 cache are from those with the model's own."""
    model, tokenizer = load_model(name, device="cpu"), load_tokenizer(name)
    turns = iter(range(1 << 30))

    def read(one: CausalLM, ids: Sequence[int], chunk: int | None = None) -> torch.Tensor:
        # The reference is read first, and a third time in chunks.
        small = chunk is None and next(turns) % 2 == 1
        return prompt_logits(one, ids, chunk, cache_dtype="int8" if small else None)

    found = measure_quality(model, model, tokenizer, default_text(), read=read)
    return found.to_json()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8_cache",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--shape", choices=SHAPES, default="tinyllama", help="default: tinyllama")
    add("--layout", choices=["hf-bf16", "int8-kept"], default="hf-bf16")
    add("--positions", type=int, default=32_000)
    add("--pairs", type=int, default=20)
    add("--instruction-set", choices=["AVX2", "portable"], help="the best one if not given")
    add("--quality", nargs="+", default=[], metavar="MODEL", help="measure this and no time")
    add("--models", type=Path, help="where the random models are kept (a temporary folder)")
    add("--json", type=Path, help="where to write the results")
    arguments = parser.parse_args()
    facts: dict[str, Any] = {"processor": processor(), "versions": versions()}
    if arguments.instruction_set:
        limit(arguments.instruction_set)
    for name in arguments.quality:
        facts[name] = quality(name)
    if not arguments.quality:
        root = arguments.models or Path(tempfile.gettempdir()) / "lolama-benchmarks"
        model = load_model(str(model_path(arguments.shape, arguments.layout, root)), device="cpu")
        suit_threads(model)
        facts["instruction set"] = arguments.instruction_set or "the best"
        facts["decoding"] = decoding(model, arguments.positions, arguments.pairs)
    print(json.dumps(facts, indent=2))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
