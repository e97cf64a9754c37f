"""Whether a prompt gets the same tokens alone, streamed, and in batches of any company and order.

    python -m benchmarks.sameness --dtype bfloat16

In float32 it must (a test holds it to that). In sixteen bits rows of a batch are multiplied by another
routine than one row is, which rounds in another place; this counts how many of 100 prompts part, and where.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lolama_core import GenerationConfig, TextGenerator, Tokenizer, load
from lolama_core.protocols import CausalLM

NAMES = "Anna Ben Clara David Emma Finn Grace Hugo Iris Jack".split()
OPENINGS = (
    "Once upon a time",
    "{name} had three red apples.",
    "On Monday, {name} went to the lake and saw",
    "{name} was sad. Her friend",
    "One sunny morning a brave fox named {name}",
    "{name}",
    "It was a cold day in winter, and {name} wanted to learn to swim near the old castle by the river.",
    "The cat and the dog",
    "There once was a kind boy named {name} who lived in a small house. He found two shells. Then",
    '"Help me, {name}!"',
)
TOKENS = 24
BATCHES = (2, 4, 8)


@dataclass(frozen=True)
class Divergence:
    """A prompt whose tokens differ from those it gets alone, and the first that does."""

    way: str
    prompt: str
    token: int


def prompts() -> list[str]:
    """100 prompts of 1 to about 25 tokens."""
    return [opening.format(name=name) for name in NAMES for opening in OPENINGS]


def divergences(
    model: CausalLM, tokenizer: Tokenizer, config: GenerationConfig
) -> Iterator[Divergence]:
    """Run all prompts in all ways. ``config`` is that of each row; with a seed each draws by itself."""
    generator = TextGenerator(model, tokenizer)
    texts = prompts()
    ids = [tokenizer.encode(text) for text in texts]
    # Some prompts are the same.
    found = {text: generator.generate(text, config).ids for text in dict.fromkeys(texts)}
    alone = [found[text] for text in texts]

    def compare(
        way: str, which: Sequence[int], found: Sequence[tuple[int, ...]]
    ) -> Iterator[Divergence]:
        for index, tokens in zip(which, found, strict=True):
            if tokens != alone[index]:
                pairs = enumerate(zip(tokens, alone[index], strict=False))
                shorter = min(len(tokens), len(alone[index]))
                first = next((i for i, (one, other) in pairs if one != other), shorter)
                yield Divergence(way, texts[index], first)

    # `generate` is a stream that is read to its end, so one of each opening will do.
    some = range(len(OPENINGS))
    streamed = [tuple(generator.generate_stream(ids[row], config)) for row in some]
    yield from compare("streamed", some, streamed)
    for size in BATCHES:
        order = list(range(len(ids)))
        random.Random(size).shuffle(order)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            results = generator.generate_batch([ids[row] for row in rows], config)
            yield from compare(f"in batches of {size}", rows, [result.ids for result in results])


def main() -> None:
    """Print a table: how many of the prompts part, and after how many tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    model, tokenizer = load(options.model, device="cpu", dtype=options.dtype)
    settings = {
        "greedy": GenerationConfig.greedy(max_new_tokens=TOKENS),
        "seeded": GenerationConfig.sampling(temperature=0.8, seed=5, max_new_tokens=TOKENS),
    }
    print(f"{options.model}, {options.dtype}: of {len(prompts())} prompts, {TOKENS} tokens each")
    for name, config in settings.items():
        found = list(divergences(model, tokenizer, config))
        for way in ("streamed", *(f"in batches of {size}" for size in BATCHES)):
            places = sorted(one.token for one in found if one.way == way)
            print(
                f"{name}, {way}: {len(places)} part" + (f", at tokens {places}" if places else "")
            )


if __name__ == "__main__":
    main()
