"""A process that generates whole texts for `benchmarks.versions`. Any version of lolama can run it.

    python benchmarks/text_peer.py MODEL THREADS

Each line of standard input is a job: rows, positions of their prompts, new tokens. Its answer is a line with
the seconds until each row has a token, and the median of the seconds of a token after that.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from statistics import median

import torch

from lolama import BatchGenerator, TextGenerator, load_model
from lolama_core import suit_threads

_SETTINGS = {"temperature": 0.0, "repetition_penalty": 1.0, "ignore_eos": True}


def one_text(generator: TextGenerator[None], ids: list[int], new: int) -> list[float]:
    """When each token came."""
    stream = generator.generate_stream(ids, max_new_tokens=new, **_SETTINGS)  # type: ignore[arg-type]
    return [time.perf_counter() for _ in stream]


def several_texts(batch: BatchGenerator[None], rows: int, ids: list[int], new: int) -> list[float]:
    """When the rows had a token more, from the first step on that gave one to each."""
    for row in range(rows):
        # Texts that begin alike would be run once.
        batch.submit([3 + row, *ids[1:]], max_new_tokens=new, **_SETTINGS)  # type: ignore[arg-type]
    times, begun = [], set[int]()
    while batch.busy:
        begun |= batch.step().keys()
        if len(begun) == rows:
            times.append(time.perf_counter())
    batch.collect()
    return times


def main() -> None:
    """Load a model, and do the jobs."""
    torch.set_num_threads(int(sys.argv[2]))
    model = load_model(sys.argv[1], device="cpu")
    suit_threads(model)
    generator = TextGenerator(model)
    for line in sys.stdin:
        rows, context, new = map(int, line.split())
        ids = [3 + place * 7 % 500 for place in range(context)]
        begin = time.perf_counter()
        if rows == 1:
            times = one_text(generator, ids, new)
        else:
            times = several_texts(BatchGenerator(model, rows=rows), rows, ids, new)
        steps = [after - before for before, after in pairwise(times)]
        print(times[0] - begin, median(steps) if steps else 0.0, flush=True)


if __name__ == "__main__":
    main()
