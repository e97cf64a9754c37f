"""Where a generation gets its cache and its decoding step from; on CUDA, a step that is recorded once.

A decoding step launches hundreds of small kernels, and launching one takes a host longer than running it
takes a GPU. CUDA can record a step as a graph and replay it as a whole, if nothing in it depends on the
host: the token and its place are read from tensors, and attention looks at the whole capacity through a mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lolama_core.model.device import inference
from lolama_core.model.kv_cache import KVCache, own_cache
from lolama_core.protocols import CausalLM
from lolama_core.runtime.step import Decode, decode

# Room that a recorded step has at least: prompts of every usual length then share one recording.
_LEAST_CAPACITY = 2048


class DecodingSteps:
    """Lends caches with their decoding steps to the generations of one model.

    Args:
        record: Whether steps are recorded and kept for the next generation: by default on CUDA. (Elsewhere
            a recorded step runs the same operators one by one, for tests.)
    """

    def __init__(self, *, record: bool | None = None) -> None:
        self._record = record
        self._idle: RecordedStep | None = None
        self.recordings = 0

    @contextmanager
    def lend(self, model: CausalLM, capacity: int) -> Iterator[tuple[KVCache, Decode]]:
        """An empty cache of one row with room for ``capacity`` positions, and its step.

        A recorded step comes back when the block ends, and serves the next generation by the same runner, if
        it is large enough. Two generations at the same time have two.

        Args:
            model: What runs, as `runner_of` gives it.
            capacity: Positions.
        """
        record = model.device.type == "cuda" if self._record is None else self._record
        step = self._take(model, capacity) if record else None
        if step is None:  # or this model's cache cannot be recorded
            cache = own_cache(model.make_cache(1, capacity))
            yield cache, lambda token: decode(model, token, cache)
            return
        try:
            yield step.cache, step
        finally:
            with torch.inference_mode():
                step.cache.reset()
            self._idle = step

    def _take(self, model: CausalLM, capacity: int) -> RecordedStep | None:
        step, self._idle = self._idle, None
        if step is not None and step.cache.capacity >= capacity and step.model is model:
            return step
        del step  # its memory goes before more is asked for
        room = max(_LEAST_CAPACITY, 1 << (capacity - 1).bit_length())
        cache = own_cache(model.make_cache(1, min(room, model.max_seq_len)))
        if not cache.stable:
            return None
        self.recordings += 1
        return RecordedStep(model, cache)


class RecordedStep:
    """One decoding step over one cache: recorded when it first runs on CUDA, replayed from then on.

    Elsewhere the operators that would be recorded run one by one.
    """

    def __init__(self, model: CausalLM, cache: KVCache) -> None:
        self.cache = cache
        self.model = model
        self._token = torch.zeros((1, 1), dtype=torch.int64, device=cache.device)
        self._position = torch.zeros((1, 1), dtype=torch.int64, device=cache.device)
        self._view = cache.at_positions(self._position)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None

    def __call__(self, token: int) -> Tensor:
        """See `Decode`."""
        with inference(self.cache.device):
            slots = self.cache.reserve([1], 1)  # the bounds, which a replay would not check
            self._token.fill_(token)
            self._position.copy_(slots.positions)
            logits = self._replay() if self.cache.device.type == "cuda" else self._run()
            self.cache.advance([1])
        return logits

    def _run(self) -> Tensor:
        return self.model.forward_embeds(self.model.embed(self._token), self._view)

    def _replay(self) -> Tensor:
        if self._graph is None:
            # Libraries choose their kernels and workspaces at a first run, which must not be recorded.
            # Running the same step twice writes the same keys to the same place.
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._run()
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._logits = self._run()
        self._graph.replay()
        assert self._logits is not None
        return self._logits
