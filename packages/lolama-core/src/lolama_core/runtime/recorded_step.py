"""Decoding steps that CUDA records once and replays.

A decoding step launches hundreds of small kernels, and launching one takes a host longer than running it
takes a GPU. CUDA can record a step as a graph and replay it as a whole, if nothing in it depends on the
host: tokens, pages and places are read from tensors, and attention looks at all pages through a mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lolama_core.model.experts import Experts
from lolama_core.protocols import CausalLM
from lolama_core.protocols.look import is_as_written
from lolama_core.runtime.paged_cache import FixedPagedCache, PagedCache, Row
from lolama_core.runtime.pages import Pages
from lolama_core.runtime.runner import Runner

_LEAST_PAGES = 64
"""Pages of a row that a recorded step looks at, at least: texts of every usual length share one recording."""


def can_be_recorded(model: CausalLM) -> bool:
    """Whether it runs on CUDA and nothing in its steps needs the host.

    Which experts run depends on it, and a hook runs there.
    """
    whole = model.model if isinstance(model, Runner) else model
    parts = whole.modules() if isinstance(whole, nn.Module) else ()
    return model.device.type == "cuda" and not any(
        isinstance(part, Experts) or not is_as_written(part) for part in parts
    )


class RecordedSteps:
    """Decoding steps of the rows of one memory: one recording for each number of rows and pages.

    Both are rounded up to powers of two. The rows that are too many write to a page of their own.

    Args:
        pages: The memory of the rows. One of its pages is taken at once for those that are too many.

    Attributes:
        spare: Where rows write that are too many.
        recordings: How many steps were recorded.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._steps: dict[tuple[int, int], RecordedStep] = {}
        self._memory: Tensor | None = None
        self.spare = Row(pages.take(1))
        self.recordings = 0

    def __call__(self, model: CausalLM, rows: Sequence[Row], tokens: Sequence[int]) -> Tensor:
        """The last token of each row → logits (B, V) of what follows, and one more position in each.

        Args:
            model: The same as the last time; see `clear`.
            rows: They hold their pages, but for that of a new position.
            tokens: One for each row.

        Raises:
            NoPages: if there are fewer than the rows need.
        """
        count = _power_of_two(len(rows))
        cache = PagedCache(self._pages, rows)
        cache.reserve([1] * len(rows), 1)
        if self._memory is not self._pages.keys[0]:  # they have grown, and lie elsewhere
            self.clear()
            self._memory = self._pages.keys[0]
        listed = [row.pages for row in rows] + [self.spare.pages] * (count - len(rows))
        width = max(_LEAST_PAGES, _power_of_two(max(map(len, listed))))
        step = self._steps.get((count, width))
        if step is None:
            step = self._steps[count, width] = RecordedStep(self._pages, count, width)
            self.recordings += 1
        positions = [row.length for row in rows] + [0] * (count - len(rows))
        given = [*tokens, *[0] * (count - len(rows))]
        logits = step(
            model, given, [pages + [0] * (width - len(pages)) for pages in listed], positions
        )
        cache.advance([1] * len(rows))
        return logits[: len(rows)]

    def clear(self) -> None:
        """Forget what was recorded: the model is another one, or the memory is elsewhere."""
        self._steps.clear()


class RecordedStep:
    """A step of some rows: recorded when it first runs on CUDA, replayed from then on.

    Elsewhere the operators that would be recorded run one by one.

    Args:
        pages: The memory of the rows.
        rows: How many there are.
        width: How many pages each has at most.
    """

    def __init__(self, pages: Pages, rows: int, width: int) -> None:
        device = pages.keys[0].device
        self._tokens = torch.zeros((rows, 1), dtype=torch.int64, device=device)
        self._table = torch.zeros((rows, width), dtype=torch.int64, device=device)
        self._positions = torch.zeros((rows, 1), dtype=torch.int64, device=device)
        self._cache = FixedPagedCache(pages, self._table, self._positions)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None

    def __call__(
        self,
        model: CausalLM,
        tokens: Sequence[int],
        table: Sequence[Sequence[int]],
        positions: Sequence[int],
    ) -> Tensor:
        """Logits (B, V) of what follows each token. What is returned is overwritten by the next step."""
        for fixed, listed in (
            (self._tokens, [[token] for token in tokens]),
            (self._table, table),
            (self._positions, [[position] for position in positions]),
        ):
            given = torch.tensor(listed, dtype=torch.int64, device="cpu")
            fixed.copy_(given, non_blocking=True)
        return self._replay(model) if self._tokens.device.type == "cuda" else self._run(model)

    def _run(self, model: CausalLM) -> Tensor:
        return model.forward_embeds(model.embed(self._tokens), self._cache)

    def _replay(self, model: CausalLM) -> Tensor:
        if self._graph is None:
            # Libraries choose their kernels and workspaces at a first run, which must not be recorded.
            # Running the same step twice writes the same keys to the same place.
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._run(model)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._logits = self._run(model)
            self._graph = graph
        self._graph.replay()
        assert self._logits is not None
        return self._logits


def _power_of_two(number: int) -> int:
    """The least that is no less than ``number``, which is 1 or more."""
    return 1 << (number - 1).bit_length()
