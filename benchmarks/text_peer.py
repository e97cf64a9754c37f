"""A process that generates whole texts for `benchmarks.versions`. Any version of lolama can run it.

    python benchmarks/text_peer.py MODEL THREADS

MODEL is a folder, or `demo`. Each line of standard input is a job: rows, positions of their prompts, new
tokens. Its answer is a line with the seconds until each row has a token, the median of the seconds of a token
after that, and the seconds of everything.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from statistics import median

import torch

from lolama import BatchGenerator, TextGenerator, load_model, load_tokenizer
from lolama_core import suit_threads

_SETTINGS = {"temperature": 0.0, "repetition_penalty": 1.0, "ignore_eos": True}


def one_text(generator: TextGenerator[str], ids: list[int], new: int) -> list[float]:
    """When each token came."""
    stream = generator.generate_stream(ids, max_new_tokens=new, **_SETTINGS)  # type: ignore[arg-type]
    return [time.perf_counter() for _ in stream]


def several_texts(batch: BatchGenerator[str], rows: int, ids: list[int], new: int) -> list[float]:
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
    tokenizer = load_tokenizer(sys.argv[1])
    generator = TextGenerator(model, tokenizer)
    for line in sys.stdin:
        rows, context, new = map(int, line.split())
        ids = [3 + place * 7 % 500 for place in range(context)]
        begin = time.perf_counter()
        if rows == 1:
            times = one_text(generator, ids, new)
        else:
            times = several_texts(BatchGenerator(model, tokenizer, rows=rows), rows, ids, new)
        whole = time.perf_counter() - begin
        steps = [after - before for before, after in pairwise(times)]
        print(times[0] - begin, median(steps) if steps else 0.0, whole, flush=True)


if __name__ == "__main__":
    main()
