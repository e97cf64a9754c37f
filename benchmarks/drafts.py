"""How much sooner a text is there if it tries tokens ahead, and that it is the same text.

    python -m benchmarks.drafts                     everything, on a random model of the 160 M shape
    python -m benchmarks.drafts --only stories      some of it
    python -m benchmarks.drafts --layout hf-bf16 --json results/drafts.json

| part | what it shows |
|---|---|
| lookup | a processor forces the text; half of it repeats what the text has said, 32 tokens at a time |
| model | a draft model of 9 M weights, made to agree with what is forced in 60 % of its guesses |
| stories | the built-in model's stories, each by a generator of its own, with the defaults |
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.make_model import model_path
from benchmarks.run import processor, versions
from benchmarks.shapes import SHAPES
from benchmarks.versions import interval
from lolama import GenerationConfig, TextGenerator, load, load_model
from lolama.model import quantize_model_int8
from lolama_core import Llama, LlamaConfig, suit_threads
from lolama_core.generation.speculation import Drafting
from lolama_core.protocols import CausalLM, KVCache
from lolama_core.runtime.runner import runner_of

NEW = 256
"""Tokens of a text."""

PIECE = 32
"""Tokens that are repeated, or new, one after another."""

AGREEMENT = 0.6

SMALL = LlamaConfig(
    vocab_size=32000,
    d_model=128,
    num_heads=4,
    num_kv_heads=4,
    num_layers=4,
    hidden_dim=384,
    max_seq_len=1024,
)
"""The shape of the draft model: 9 M weights, of which a token reads 5 M."""


def half_repeated(draw: random.Random, vocabulary: int, known: Sequence[int]) -> list[int]:
    """A text of which every second piece is a copy of one that stands before it."""
    text = [*known]
    while len(text) < len(known) + NEW:
        text += [draw.randrange(3, vocabulary) for _ in range(PIECE)]
        begin = draw.randrange(len(text) - PIECE)
        text += text[begin : begin + PIECE]
    return text[len(known) :]


def forced(prompt: int, text: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """A processor that lets a text be this one alone."""

    def force(ids: Tensor, scores: Tensor) -> Tensor:
        scores[:] = -torch.inf
        scores[:, text[ids.shape[1] - prompt]] = 0
        return scores

    return force


class Agreeing:
    """A `CausalLM` that takes a model's time, and then guesses what is forced with a certain probability.

    Attributes:
        text: What is forced.
        prompt: Positions before it.
    """

    def __init__(self, model: Llama) -> None:
        self.model, self.text, self.prompt = model, [0], 0
        self.max_seq_len, self.vocab_size = model.max_seq_len, model.vocab_size
        self.device, self.dtype = model.device, model.dtype
        self.generation_defaults = model.generation_defaults
        self.make_cache, self.embed, self.embed_prompt = (
            model.make_cache,
            model.embed,
            model.embed_prompt,
        )
        self.parameters = model.parameters
        self.draw = random.Random(0)

    def begin(self, prompt: int, text: Sequence[int]) -> None:
        """Guess this text from now on."""
        self.prompt, self.text, self.runner = prompt, [*text], runner_of(self.model)

    def forward_embeds(
        self,
        embeds: Tensor,
        cache: KVCache | None = None,
        lengths: Sequence[int] | None = None,
        logits: Literal["last", "all"] = "last",
    ) -> Tensor:
        """Logits (1, V) of the guess."""
        found = self.runner.forward_embeds(embeds, cache, lengths, logits)
        assert cache is not None and lengths is not None
        place = cache.lengths[0] + lengths[0] - self.prompt
        guess = self.text[min(place, len(self.text) - 1)]
        if self.draw.random() >= AGREEMENT:
            guess = (guess + 1) % self.vocab_size
        found[:] = 0
        found[:, guess] = 100
        return found


def timed(
    model: CausalLM, draft: Drafting, job: Any, generator: TextGenerator[None] | None = None
) -> tuple[float, Any]:
    """Seconds for the tokens behind the first one, and the result."""
    stream = (generator or TextGenerator(model, draft=draft)).generate_stream(
        job.ids, job.config, logits_processors=job.processors
    )
    tokens = iter(stream)
    next(tokens)
    begin = time.perf_counter()
    for _ in tokens:
        pass
    return time.perf_counter() - begin, stream.result


class Job:
    """What is generated."""

    def __init__(self, ids: list[int], config: GenerationConfig, *processors: Any) -> None:
        self.ids, self.config, self.processors = ids, config, processors


def pairs_of(
    model: CausalLM, draft: Drafting, jobs: Iterator[Job], count: int, prepare: Any = None
) -> dict[str, Any]:
    """Texts with a draft and without, in turns."""
    ratios, drafted, accepted, tokens = [], 0, 0, 0
    kept = {"off": TextGenerator(model, draft="off"), "on": TextGenerator(model, draft=draft)}
    for number in range(count + 1):
        job = next(jobs)
        if prepare is not None:
            prepare(job)
        order = ["on", "off"] if number % 2 else ["off", "on"]
        found = {name: timed(model, draft, job, kept[name]) for name in order}
        assert found["on"][1] == found["off"][1], "a draft has changed the text"
        if number:  # what comes first warms up
            ratios.append(found["off"][0] / found["on"][0])
            result = found["on"][1]
            drafted += result.drafted_tokens
            accepted += result.accepted_tokens
            tokens += len(result.ids)
    return {
        "times as fast": [median(ratios), *interval(ratios)],
        "tokens": tokens,
        "drafted": drafted,
        "accepted": accepted,
    }


def lookup(shape: str, layout: str, root: Path, count: int) -> dict[str, Any]:
    """Texts of which half repeats."""
    model = load_model(str(model_path(shape, layout, root)))
    suit_threads(model)
    draw = random.Random(0)

    def jobs() -> Iterator[Job]:
        while True:
            ids = [draw.randrange(3, model.vocab_size) for _ in range(128)]
            text = half_repeated(draw, model.vocab_size, ids)
            config = GenerationConfig.greedy(max_new_tokens=NEW, ignore_eos=True)
            yield Job(ids, config, forced(len(ids), text))

    # Weights of sixteen bits are not looked up for by themselves.
    return pairs_of(model, "auto" if layout.startswith("int8") else "lookup", jobs(), count)


def with_model(shape: str, layout: str, root: Path, count: int) -> dict[str, Any]:
    """Texts of which a draft model knows the next token in 60 %."""
    model = load_model(str(model_path(shape, layout, root)))
    suit_threads(model)
    torch.manual_seed(0)
    small = Llama(SMALL).eval().requires_grad_(False)
    quantize_model_int8(small)
    # What is not quantized is kept in sixteen bits, but for norms: as `lolama quantize` does.
    small.embed_tokens.bfloat16()
    small.lm_head.bfloat16()
    agreeing = Agreeing(small)
    draw = random.Random(0)

    def jobs() -> Iterator[Job]:
        while True:
            ids = [draw.randrange(3, model.vocab_size) for _ in range(128)]
            text = [draw.randrange(3, model.vocab_size) for _ in range(NEW)]
            agreeing.begin(len(ids), text)
            config = GenerationConfig.greedy(max_new_tokens=NEW, ignore_eos=True)
            yield Job(ids, config, forced(len(ids), text))

    return pairs_of(model, agreeing, jobs(), count)


def stories(shape: str, layout: str, root: Path, count: int) -> dict[str, Any]:
    """Whole stories, of which each generator knows nothing at its beginning."""
    loaded = load("demo", device="cpu")
    model, tokenizer = loaded.model, loaded.tokenizer
    suit_threads(model)
    names = ["Lily", "Tom", "a dog", "a small bird", "the sun"]

    def timed_text(draft: Drafting, number: int) -> tuple[float, Any]:
        generator = TextGenerator(model, tokenizer, draft=draft)
        begin = time.perf_counter()
        prompt = f"Once upon a time there was {names[number % 5]}"
        result = generator.generate(prompt, seed=number, max_new_tokens=200)
        return time.perf_counter() - begin, result

    ratios, drafted, accepted, tokens = [], 0, 0, 0
    for number in range(10 * count):
        order: list[Drafting] = ["auto", "off"] if number % 2 else ["off", "auto"]
        found = {str(draft): timed_text(draft, number) for draft in order}
        assert found["auto"][1] == found["off"][1]
        ratios.append(found["off"][0] / found["auto"][0])
        drafted += found["auto"][1].drafted_tokens
        accepted += found["auto"][1].accepted_tokens
        tokens += len(found["auto"][1].ids)
    return {
        "times as fast": [median(ratios), *interval(ratios)],
        "tokens": tokens,
        "drafted": drafted,
        "accepted": accepted,
    }


PARTS = {"lookup": lookup, "model": with_model, "stories": stories}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drafts",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=[*PARTS])
    add("--shape", choices=SHAPES, default="160m", help="default: 160m")
    add("--layout", choices=["hf-bf16", "int8-kept"], default="int8-kept")
    add("--pairs", type=int, default=20, help="default: 20; of stories ten times as many")
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
        facts[part] = PARTS[part](arguments.shape, arguments.layout, root, arguments.pairs)
        print(part, json.dumps(facts[part], indent=2), flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
