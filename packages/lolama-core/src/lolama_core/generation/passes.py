"""The passes in which requests run together, and what goes into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lolama_core.generation.schedule import Part
from lolama_core.protocols import CausalLM
from lolama_core.runtime.row_memory import RowMemory


def passes(parts: Sequence[Part], memory: RowMemory) -> Iterator[list[Part]]:
    """The passes in which these run: as few as can be, unless padding takes more time than a pass more.

    A row that has its own cache runs alone, and so does one whose prompt is read.
    """
    if len(parts) == 1:
        yield [*parts]
        return
    decoding = [part for part in parts if not part[0].to_run]
    prompts = [part for part in parts if part[0].to_run]
    alone = [part for part in prompts if part[0].reads_prompt]
    together = [part for part in prompts if not part[0].reads_prompt]
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


def _padded_well(parts: Sequence[Part]) -> bool:
    """Whether less than a third of a pass is padding."""
    counts = [count for _, count in parts]
    return 2 * len(counts) * max(counts) < 3 * sum(counts)


def run_pass(together: Sequence[Part], runner: CausalLM, memory: RowMemory) -> Tensor:
    """Run one of `passes`: logits (B, V) of the last position of each request, B or more rows.

    Masks of constraints are made meanwhile.
    """
    rows, counts = [one.row for one, _ in together], [count for _, count in together]
    first = together[0][0]
    for one, _ in together:
        if one.request.constrained is not None:
            one.request.constrained.prepare()
    if not together[-1][0].to_run:  # those that decode come first, so all do
        return memory.decode(rows, [one.request.tokens[-1] for one, _ in together])
    embeds = _embeds(together, runner)
    if not (first.to_run and first.reads_prompt):
        return memory.run(rows, embeds, counts)
    logits = memory.run(rows, embeds, counts, "all")
    assert first.request.prompt_reader is not None
    first.request.prompt_reader(logits[0], memory.held(first.row) - counts[0])
    return logits[:, -1]


def _embeds(together: Sequence[Part], runner: CausalLM) -> Tensor:
    """(B, T, D): the last token of rows that decode, and the chunks of prompts, padded to the longest."""
    tokens = [[one.request.tokens[-1]] for one, _ in together if not one.to_run]
    if len(together) == 1:
        [(one, count)] = together
        return one.embeds[:, :count]
    like = together[-1][0].embeds
    padded = like.new_zeros(len(together), max(count for _, count in together), like.shape[-1])
    if tokens:
        padded[: len(tokens), 0] = runner.embed(torch.tensor(tokens, device=like.device))[:, 0]
    for place, (one, count) in enumerate(together):
        if one.to_run:
            padded[place, :count] = one.embeds[0, :count]
    return padded
