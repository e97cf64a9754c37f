"""Measure the built-in model `demo` on what it was not trained on:

    python -m training.text.evaluate

Prints and writes `results.json`: perplexity of held-out stories, the share of sampled stories that
the checker accepts, how many of them are distinct and how many repeat 20 tokens of the training text
in a row, and the share of held-out questions that are answered exactly right.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from lolama_core import GenerationConfig, TextGenerator, Tokenizer, __version__, load
from lolama_core.protocols.types import Message

from .chat import MAKERS, remember
from .checker import fault_in
from .corpus import held_out_dialogue_rng, held_out_stories, training_dialogues, training_stories
from .questions import Exchange
from .train import ROUNDS

RESULTS = Path(__file__).with_name("results.json")
RUN = 20  # Tokens in a row that count as copied.
SETTINGS = {
    "temperature 0.8": GenerationConfig.sampling(temperature=0.8),
    "temperature 0.7, top-p 0.9": GenerationConfig.sampling(temperature=0.7, top_p=0.9),
    "temperature 0.7, top-p 0.9, repetition penalty 1.1": GenerationConfig(),
}
PROMPTS = ("", "Once upon a time")


def perplexity(generator: TextGenerator, tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """The perplexity of whole stories, their end token included."""
    [end] = tokenizer.eos_ids
    scores = [generator.score([*tokenizer.encode(text), end]) for text in texts]
    return float(torch.cat(scores).mean().neg().exp())


def written_in_training() -> Iterator[str]:
    """All texts that the model learned to write."""
    for recipe in ROUNDS:
        yield from training_stories(recipe.stories, recipe.seed)
        for dialogue in training_dialogues(recipe.dialogues, recipe.seed):
            yield from (turn["content"] for turn in dialogue if turn["role"] == "assistant")


def runs_of(tokenizer: Tokenizer, text: str) -> set[tuple[int, ...]]:
    """Every run of RUN tokens in the text."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    return {tuple(ids[start : start + RUN]) for start in range(len(ids) - RUN + 1)}


def share_copied(tokenizer: Tokenizer, samples: Sequence[str], training: Iterable[str]) -> float:
    """Share of the samples that have a run of RUN tokens in common with the training texts."""
    sampled = [runs_of(tokenizer, text) for text in samples]
    wanted = set().union(*sampled)
    seen: set[tuple[int, ...]] = set()
    for text in training:
        seen |= wanted & runs_of(tokenizer, text)
    return sum(bool(runs & seen) for runs in sampled) / len(sampled)


def sample_stories(
    generator: TextGenerator, tokenizer: Tokenizer, config: GenerationConfig, count: int, seed: int
) -> list[tuple[str, bool]]:
    """Stories from each of the prompts, and whether each came to its own end."""
    prompts = [PROMPTS[index % len(PROMPTS)] for index in range(count)]
    configs = [config.with_settings(seed=seed + index) for index in range(count)]
    stories = []
    for start in range(0, count, 50):
        batch = prompts[start : start + 50]
        results = generator.generate_batch(
            [tokenizer.encode(prompt) for prompt in batch], configs[start : start + 50]
        )
        for prompt, result in zip(batch, results, strict=True):
            stories.append((prompt + (result.text or ""), result.finish_reason == "eos"))
    return stories


def judge_stories(
    stories: Sequence[tuple[str, bool]], tokenizer: Tokenizer, training: Iterable[str]
) -> dict[str, Any]:
    """Shares, and the faults that were found."""
    faults = [fault_in(text) if ended else "does not end" for text, ended in stories]
    copied = share_copied(tokenizer, [text for text, _ in stories], training)
    return {
        "samples": len(stories),
        "pass": faults.count(None) / len(stories),
        "distinct": len({text for text, _ in stories}) / len(stories),
        f"with a run of {RUN} training tokens": copied,
        "faults": [fault for fault in faults if fault is not None],
    }


def held_out_questions(per_kind: int, seed: int) -> list[tuple[str, list[Message], str]]:
    """(kind, conversation so far, right answer), none of it seen in training."""
    rng = held_out_dialogue_rng(seed)
    questions: dict[str, tuple[str, list[Message], str]] = {}
    wanted = Counter[str]()
    skipped = {"fixed", "talk", "story", "opening", "decline_story"}

    def add(kind: str, exchange: Exchange, before: list[Message]) -> None:
        if exchange.held_out and exchange.key not in questions and wanted[kind] < per_kind:
            wanted[kind] += 1
            asked: Message = {"role": "user", "content": exchange.question}
            questions[exchange.key] = (kind, [*before, asked], exchange.answer)

    for _ in range(per_kind * 200):
        for maker in MAKERS:
            exchange = maker(rng)
            if exchange.kind not in skipped:
                add(exchange.kind, exchange, [])
        told, asked = remember(rng)
        before: list[Message] = [
            {"role": "user", "content": told.question},
            {"role": "assistant", "content": told.answer},
        ]
        add("remember", asked, before)
    return list(questions.values())


def judge_answers(
    generator: TextGenerator, tokenizer: Tokenizer, config: GenerationConfig, seed: int
) -> dict[str, Any]:
    """Share of exactly right answers, by kind of question."""
    questions = held_out_questions(40, seed)
    prompts = [tokenizer.render_chat(conversation) for _, conversation, _ in questions]
    right, asked = Counter[str](), Counter[str]()
    wrong: list[str] = []
    for start in range(0, len(prompts), 50):
        results = generator.generate_batch(prompts[start : start + 50], config, seed=seed)
        for (kind, conversation, answer), result in zip(
            questions[start : start + 50], results, strict=True
        ):
            asked[kind] += 1
            right[kind] += result.text == answer
            if result.text != answer:
                wrong.append(f"{conversation[-1]['content']} -> {result.text}")
    return {
        "questions": sum(asked.values()),
        "right": sum(right.values()) / sum(asked.values()),
        "by kind": {kind: f"{right[kind]}/{asked[kind]}" for kind in sorted(asked)},
        "wrong": wrong,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the built-in model `demo`.")
    parser.add_argument("--model", default="demo", help="demo, or a checkpoint directory")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    model, tokenizer = load(options.model, device="cpu")
    generator = TextGenerator(model, tokenizer)
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "seed": options.seed,
        "versions": {
            "lolama-core": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "machine": f"{platform.machine()} CPU, bfloat16 weights",
        "trained on": {
            "stories": sum(recipe.stories for recipe in ROUNDS),
            "dialogues": sum(recipe.dialogues for recipe in ROUNDS),
        },
        "perplexity of held-out stories": perplexity(
            generator, tokenizer, held_out_stories(500, options.seed)
        ),
        "stories": {},
        "answers": {},
    }
    for name, config in SETTINGS.items():
        stories = sample_stories(generator, tokenizer, config, options.samples, options.seed)
        results["stories"][name] = judge_stories(stories, tokenizer, written_in_training())
    for name, config in {"greedy": GenerationConfig.greedy(), **SETTINGS}.items():
        results["answers"][name] = judge_answers(generator, tokenizer, config, options.seed)
    text = json.dumps(results, indent=2)
    options.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
