"""The passes in which requests run together, and what goes into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lolama_core.generation.scheduled import Part
from lolama_core.protocols import CausalLM
from lolama_core.protocols.types import Spans
from lolama_core.runtime.row_memory import RowMemory


def passes(parts: Sequence[Part], memory: RowMemory) -> Iterator[list[Part]]:
    """The passes in which these run: as few as can be, unless padding takes more time than a pass more.

    A row that has its own cache runs alone, and so does one whose prompt is read. So does one with positions
    that see each other in both directions: kernels decline its pass, and no row beside it is to notice.
    """
    if len(parts) == 1:
        yield [*parts]
        return
    decoding = [part for part in parts if not part[0].to_run]
    prompts = [part for part in parts if part[0].to_run]
    alone = [(one, count) for one, count in prompts if one.reads_prompt or one.spans(count)]
    together = [part for part in prompts if part not in alone]
    if memory.rows_run_alone:
        yield from ([part] for part in parts)
        return
    if together and memory.skips_padding:
        decoding, together = [*decoding, *together], []
    if decoding:
        yield decoding
    while together:
        count = 1
        while count < len(together) and _padded_well(together[: count + 1]):
            count += 1
        yield together[:count]
        together = together[count:]
    yield from ([part] for part in alone)


def counted(parts: Sequence[Part]) -> tuple[int, int, int]:
    """How many rows decode, how many positions of prompts run, and how many tokens are tried ahead."""
    prompts = sum(count for one, count in parts if one.to_run)
    drafted = sum(len(one.draft.tokens) for one, _ in parts)
    decoding = sum(not one.to_run for one, _ in parts)
    return decoding, prompts, drafted


def _padded_well(parts: Sequence[Part]) -> bool:
    """Whether less than a third of a pass is padding."""
    counts = [count for _, count in parts]
    return 2 * len(counts) * max(counts) < 3 * sum(counts)


def run_pass(together: Sequence[Part], runner: CausalLM, memory: RowMemory) -> Sequence[Tensor]:
    """Run one of `passes`: for each request the logits (1, V) of its last position.

    With a draft they are (1 + k, V), of its last token and of each that it tries ahead. Masks of constraints
    are made meanwhile.
    """
    rows, counts = [one.row for one, _ in together], [count for _, count in together]
    first = together[0][0]
    for one, _ in together:
        if one.request.constrained is not None:
            one.request.constrained.prepare()
    decodes = not together[-1][0].to_run  # those that decode come first, so all do
    if decodes and max(counts) == 1:
        logits = memory.decode(rows, [one.request.tokens[-1] for one, _ in together])
        return [*logits[:, None]] if len(rows) > 1 else [logits]
    embeds = _embeds(together, runner)
    if decodes:
        logits = memory.run(rows, embeds, counts, "all")
        return [own[:count] for own, count in zip(logits, counts, strict=True)]
    if not (first.to_run and first.reads_prompt):
        return [*memory.run(rows, embeds, counts, spans=_spans(together))[:, None]]
    logits = memory.run(rows, embeds, counts, "all", _spans(together))
    assert first.request.prompt_reader is not None
    first.request.prompt_reader(logits[0], memory.held(first.row) - counts[0])
    return [logits[:, -1]]


def _spans(together: Sequence[Part]) -> Spans:
    """`Prompt.spans` of what runs in a pass."""
    spans = tuple(one.spans(count) for one, count in together)
    return spans if any(spans) else ()


def _embeds(together: Sequence[Part], runner: CausalLM) -> Tensor:
    """(B, T, D): what rows that decode run, and the chunks of prompts, padded to the longest."""
    if len(together) == 1 and together[0][0].to_run:
        [(one, count)] = together
        return one.embeds[:, :count]
    tokens = [[one.request.tokens[-1], *one.draft.tokens] for one, _ in together if not one.to_run]
    width = max(map(len, tokens), default=0)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in tokens], device=runner.device)
    if len(tokens) == len(together):
        return runner.embed(ids)
    like = together[-1][0].embeds
    padded = like.new_zeros(len(together), max(count for _, count in together), like.shape[-1])
    if tokens:
        padded[: len(tokens), :width] = runner.embed(ids)
    for place, (one, count) in enumerate(together):
        if one.to_run:
            padded[place, :count] = one.embeds[0, :count]
    return padded
