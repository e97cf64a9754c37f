"""The training and held-out texts, as ids, and their batches.

A row of a batch is one whole document that starts at position 0, as at inference. Rows of a batch
have similar lengths, so padding stays small.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from .chat import make_dialogue
from .stories import make_story
from .tokenizer import encode_dialogue, encode_story

IGNORE = -100


@dataclass(frozen=True)
class Document:
    """Token ids of one text; `counted` marks those whose prediction counts."""

    ids: array[int]
    counted: array[int]


def training_stories(count: int, seed: int) -> Iterator[str]:
    """Stories that are not held out."""
    index = 0
    while count:
        story = make_story(f"story{seed}/{index}")
        index += 1
        if not story.held_out:
            count -= 1
            yield story.text


def held_out_stories(count: int, seed: int) -> Iterator[str]:
    """Stories whose parameters training never saw."""
    index = 0
    while count:
        story = make_story(f"held-out{seed}/{index}")
        index += 1
        if story.held_out:
            count -= 1
            yield story.text


def training_dialogues(count: int, seed: int) -> Iterator[list[dict[str, str]]]:
    return (make_dialogue(f"dialogue{seed}/{index}") for index in range(count))


def held_out_dialogue_rng(seed: int) -> random.Random:
    """Draws questions from another stream than the training dialogues."""
    return random.Random(f"held-out-dialogue{seed}")


def tokenizer_texts(seed: int, count: int = 20000) -> Iterator[str]:
    """What the tokenizer learns its merges from: stories, and both sides of dialogues."""
    yield from training_stories(count, seed)
    for dialogue in training_dialogues(count, seed):
        yield from (message["content"] for message in dialogue)


def build_corpus(
    tokenizer: Tokenizer, stories: int, dialogues: int, seed: int, max_length: int
) -> list[Document]:
    """All training documents; the rare dialogue longer than `max_length` is left out."""
    encoded = [encode_story(tokenizer, text) for text in training_stories(stories, seed)]
    encoded += [encode_dialogue(tokenizer, turns) for turns in training_dialogues(dialogues, seed)]
    return [
        Document(array("H", ids), array("B", counted))
        for ids, counted in encoded
        if len(ids) <= max_length
    ]


def batches(
    documents: list[Document], tokens_per_batch: int, seed: int, pad_id: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the documents in seeded order: pairs of inputs and targets, each (B, T)."""
    rng = random.Random(seed)
    order = list(range(len(documents)))
    rng.shuffle(order)
    pool_size = 4096
    for start in range(0, len(order), pool_size):
        pool = sorted(order[start : start + pool_size], key=lambda i: len(documents[i].ids))
        groups: list[list[int]] = [[]]
        for index in pool:
            if len(documents[index].ids) * (len(groups[-1]) + 1) > tokens_per_batch:
                groups.append([])
            groups[-1].append(index)
        rng.shuffle(groups)
        for group in groups:
            yield _pad([documents[index] for index in group], pad_id)


def _pad(rows: list[Document], pad_id: int) -> tuple[Tensor, Tensor]:
    width = max(len(row.ids) for row in rows) - 1
    inputs = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    targets = torch.full((len(rows), width), IGNORE, dtype=torch.int64)
    for index, row in enumerate(rows):
        ids = torch.tensor(row.ids.tolist())
        counted = torch.tensor(row.counted.tolist(), dtype=torch.bool)
        inputs[index, : len(ids) - 1] = ids[:-1]
        targets[index, : len(ids) - 1] = torch.where(counted[1:], ids[1:], IGNORE)
    return inputs, targets
