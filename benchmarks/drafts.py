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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from benchmarks.make_model import model_path
from benchmarks.run import processor, versions
from benchmarks.shapes import SHAPES
from benchmarks.versions import interval
from lolama import Generation, GenerationConfig, TextGenerator, load, load_model
from lolama.model import quantize_model_int8
from lolama_core import Llama, LlamaConfig, suit_threads
from lolama_core.generation.speculation import Drafting
from lolama_core.protocols import CausalLM, KVCache
from lolama_core.protocols.types import Spans
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
        spans: Spans = (),
    ) -> Tensor:
        """Logits (1, V) of the guess."""
        found = self.runner.forward_embeds(embeds, cache, lengths, logits, spans)
        assert cache is not None and lengths is not None
        place = cache.lengths[0] + lengths[0] - self.prompt
        guess = self.text[min(place, len(self.text) - 1)]
        if self.draw.random() >= AGREEMENT:
            guess = (guess + 1) % self.vocab_size
        found[:] = 0
        found[:, guess] = 100
        return found


Text: TypeAlias = Callable[[str], tuple[float, Generation[Any]]]
"""``on`` or ``off`` → the seconds that a text took with drafts or without, and what it is."""


def pairs_of(texts: Iterable[Text]) -> dict[str, Any]:
    """Each text with drafts and without, in turns."""
    ratios, drafted, accepted, tokens = [], 0, 0, 0
    for number, text in enumerate(texts):
        order = ["on", "off"] if number % 2 else ["off", "on"]
        found = {name: text(name) for name in order}
        seconds, result = found["on"]
        assert result == found["off"][1], "a draft has changed the text"
        if number:  # what comes first warms up
            ratios.append(found["off"][0] / seconds)
            drafted += result.drafted_tokens
            accepted += result.accepted_tokens
            tokens += len(result.ids)
    return {
        "times as fast": [median(ratios), *interval(ratios)],
        "tokens": tokens,
        "drafted": drafted,
        "accepted": accepted,
    }


def forced_texts(
    model: CausalLM, draft: Drafting, count: int, make: Callable[[list[int]], list[int]]
) -> Iterator[Text]:
    """Texts that ``make`` makes of their prompts. Their seconds are those behind the first token."""
    draw = random.Random(1)
    kept = {"off": TextGenerator(model, draft="off"), "on": TextGenerator(model, draft=draft)}
    config = GenerationConfig.greedy(max_new_tokens=NEW, ignore_eos=True)
    for _ in range(count + 1):
        ids = [draw.randrange(3, model.vocab_size) for _ in range(128)]
        force = forced(len(ids), make(ids))

        def text(name: str, ids: list[int] = ids, force: Any = force) -> Any:
            stream = kept[name].generate_stream(ids, config, logits_processors=[force])
            tokens = iter(stream)
            next(tokens)
            begin = time.perf_counter()
            for _ in tokens:
                pass
            return time.perf_counter() - begin, stream.result

        yield text


def lookup(shape: str, layout: str, root: Path, count: int) -> dict[str, Any]:
    """Texts of which half repeats."""
    model = load_model(str(model_path(shape, layout, root)))
    suit_threads(model)
    draw = random.Random(0)
    # Weights of sixteen bits are not looked up for by themselves.
    draft: Drafting = "auto" if layout.startswith("int8") else "lookup"
    make = partial(half_repeated, draw, model.vocab_size)
    return pairs_of(forced_texts(model, draft, count, make))


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

    def make(ids: list[int]) -> list[int]:
        text = [draw.randrange(3, model.vocab_size) for _ in range(NEW)]
        agreeing.begin(len(ids), text)
        return text

    return pairs_of(forced_texts(model, agreeing, count, make))


def stories(shape: str, layout: str, root: Path, count: int) -> dict[str, Any]:
    """Whole stories, of which each generator knows nothing at its beginning."""
    loaded = load("demo", device="cpu")
    model, tokenizer = loaded.model, loaded.tokenizer
    suit_threads(model)
    names = ["Lily", "Tom", "a dog", "a small bird", "the sun"]

    def story(number: int, name: str) -> tuple[float, Generation[Any]]:
        generator = TextGenerator(model, tokenizer, draft="auto" if name == "on" else "off")
        begin = time.perf_counter()
        prompt = f"Once upon a time there was {names[number % 5]}"
        result = generator.generate(prompt, seed=number, max_new_tokens=200)
        return time.perf_counter() - begin, result

    return pairs_of(partial(story, number) for number in range(10 * count + 1))


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
