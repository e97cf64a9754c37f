"""The engines that are C++ programs behind a Python module: llama.cpp and CTranslate2."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from benchmarks.engine import ROOM, Engine, SteppedEngine, prompt, token


class LlamaCppEngine(SteppedEngine):
    """llama.cpp through the plain C functions that llama-cpp-python binds.

    Its high-level ``Llama`` spends time in Python on every token and chooses settings of its own. Here are
    llama.cpp's defaults: file mapped, flash attention where it helps, 16-bit cache, prompts in pieces of 512.
    """

    @staticmethod
    def import_library() -> None:
        """See `Engine`."""
        import llama_cpp

        llama_cpp.llama_backend_init()

    def __init__(self, path: str, threads: int) -> None:
        import llama_cpp

        self.api: Any = llama_cpp
        self.threads = threads
        settings = self.api.llama_model_default_params()
        settings.n_gpu_layers = 0
        self.model = self.api.llama_model_load_from_file(path.encode(), settings)
        if not self.model:
            raise ValueError(f"llama.cpp cannot load {path}")
        self.vocabulary = self.api.llama_vocab_n_tokens(self.api.llama_model_get_vocab(self.model))
        self.context: Any = None
        self.rows = self.capacity = 0
        self.held = 0  # positions of the prompt in the cache of every row
        self.position = 0  # of the next token

    def detail(self) -> str:
        """See `Engine`."""
        facts = self.api.llama_print_system_info().decode().removeprefix("CPU : ").split("|")
        return ", ".join(fact.split("=")[0].strip() for fact in facts if "= 1" in fact)

    def reserve(self, tokens: int) -> None:
        """See `Engine`."""
        self._reserve(1, tokens)

    def _reserve(self, rows: int, tokens: int) -> None:
        """Have a context for ``rows`` sequences of ``tokens`` tokens, and `ROOM` more each."""
        if self.rows == rows and self.capacity >= tokens + ROOM:
            return
        if self.context is not None:
            self.api.llama_free(self.context)
        settings = self.api.llama_context_default_params()
        settings.n_threads = settings.n_threads_batch = self.threads
        settings.n_seq_max = rows
        settings.n_ctx = rows * (tokens + ROOM)
        self.context = self.api.llama_init_from_model(self.model, settings)
        if not self.context:
            raise ValueError(f"llama.cpp has no room for {rows} rows of {tokens} tokens")
        self.memory = self.api.llama_get_memory(self.context)
        self.rows, self.capacity, self.held = rows, tokens + ROOM, 0

    def start(self, tokens: int) -> None:
        """See `Engine`."""
        self.api.llama_memory_clear(self.memory, False)
        self.held = 0
        self._run_prompt(tokens)
        self._best()

    def _run_prompt(self, tokens: int) -> None:
        """Run what row 0 does not hold yet; the logits of the last token are wanted, no others."""
        most = self.api.llama_n_batch(self.context)
        ids = prompt(tokens)
        for begin in range(self.held, tokens, most):
            piece = ids[begin : begin + most]
            array = (self.api.llama_token * len(piece))(*piece)
            self._decode(self.api.llama_batch_get_one(array, len(piece)))
        self.held = tokens

    def _decode(self, batch: Any) -> None:
        status = self.api.llama_decode(self.context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")

    def _best(self, outputs: int = 1) -> list[int]:
        """The likeliest token of each output of the last pass."""
        import numpy as np

        pointer = self.api.llama_get_logits(self.context)
        logits = np.ctypeslib.as_array(pointer, shape=(outputs, self.vocabulary))
        best: list[int] = logits.argmax(-1).tolist()
        return best

    def fill(self, rows: int, context: int) -> None:
        """See `SteppedEngine`.

        The C functions cannot write a cache, so the prompt has to run, but no more than once: a cache that
        holds a longer beginning of it is rolled back, and other rows are copies of row 0.
        """
        self._reserve(rows, context)
        for row in range(rows):
            keep = min(self.held, context) if row == 0 else 0
            self.api.llama_memory_seq_rm(self.memory, row, keep, -1)
        self.held = min(self.held, context)
        self._run_prompt(context)
        for row in range(1, rows):
            self.api.llama_memory_seq_cp(self.memory, 0, row, -1, -1)
        self.position = context
        self.best = [token(context)] * rows

    def step(self) -> None:
        """See `SteppedEngine`."""
        batch = self.api.llama_batch_init(self.rows, 0, 1)
        batch.n_tokens = self.rows
        for row, best in enumerate(self.best):
            batch.token[row] = best
            batch.pos[row] = self.position
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, row
            batch.logits[row] = True
        self._decode(batch)
        self.api.llama_batch_free(batch)
        self.position += 1
        self.best = self._best(self.rows)

    def forget(self) -> None:
        """See `Engine`. A cache of one row stays: its prompt is worth minutes."""
        if self.rows > 1:
            self.api.llama_free(self.context)
            self.context, self.rows, self.capacity, self.held = None, 0, 0, 0


class CTranslate2Engine(Engine):
    """CTranslate2's generator. Its cache is closed; it tells of every token when it has chosen it."""

    @staticmethod
    def import_library() -> None:
        """See `Engine`."""
        import ctranslate2  # noqa: F401

    def __init__(self, path: str, threads: int) -> None:
        import ctranslate2

        self.model: Any = ctranslate2.Generator(path, intra_threads=threads)

    def detail(self) -> str:
        """See `Engine`."""
        return f"computes in {self.model.compute_type}"

    def _generate(self, rows: int, tokens: int, steps: int) -> list[float]:
        """The times at which ``steps`` passes ended, for prompts of ``tokens``."""
        moments: list[float] = []

        def note(result: Any) -> bool:
            if result.batch_id == 0:
                moments.append(time.perf_counter())
            return False

        self.model.generate_batch(
            [[f"t{i}" for i in prompt(tokens)]] * rows,
            max_length=steps,
            min_length=steps,
            sampling_topk=1,
            include_prompt_in_result=False,
            callback=note,
        )
        return moments

    def start(self, tokens: int) -> None:
        """See `Engine`."""
        self._generate(1, tokens, 1)

    def step_times(self, rows: int, context: int, steps: int) -> list[float]:
        """See `Engine`. A step lies between two tokens; before the first lies the prompt, then a warm-up."""
        moments = self._generate(rows, context, steps + 2)[-steps - 1 :]
        return [after - before for before, after in pairwise(moments)]
