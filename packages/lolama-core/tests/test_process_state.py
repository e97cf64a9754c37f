"""What somebody else has set for the whole process: results are those of a fresh one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

from lolama_core import (
    BatchGenerator,
    Generation,
    GenerationConfig,
    Llama,
    PrefixCache,
    RopeScaling,
    TextGenerator,
    load,
)
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of

GREEDY = GenerationConfig.greedy(max_new_tokens=8)
PROMPT = list(range(5, 45))


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES: dict[str, Any] = {
    "with_device": lambda: torch.device("meta"),
    "default_device": default_device,
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "deterministic": deterministic,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest) -> AbstractContextManager[None]:
    made: AbstractContextManager[None] = STATES[request.param]()
    return made


class Even:
    """A constraint: even ids alone."""

    def mask(self) -> torch.Tensor:
        return torch.arange(100, device="cpu") % 2 == 0

    def accept(self, token: int) -> None:
        assert token % 2 == 0

    def rollback(self, count: int) -> None:
        pass


def everything(model: Any, tokenizer: Any) -> dict[str, object]:
    """What each entrance of generation comes to."""
    cache = PrefixCache(1 << 24)
    generator = TextGenerator(model, tokenizer, prefix_cache=cache)
    recorded = TextGenerator(model)
    recorded._idle = [RowMemory(runner_of(model), 1, record=True)]
    batch = BatchGenerator(model, tokenizer, rows=2, prefill_chunk=16)
    tickets = [batch.submit(PROMPT[:n], GREEDY) for n in (3, 40, 20)]
    while batch.busy:
        batch.step()
    rows = batch.collect()
    return {
        "generate": generator.generate(PROMPT, GREEDY).ids,
        "again": generator.generate(PROMPT, GREEDY).ids,
        "from the cache": len(cache) > 0 or model.make_cache(1, 1).changed_by is not None,
        "sampled": generator.generate(
            "Once", seed=1, top_k=20, typical_p=0.9, max_new_tokens=8
        ).text,
        "penalties": generator.generate(
            PROMPT, GREEDY, presence_penalty=0.5, frequency_penalty=0.5, logit_bias={7: 3.0}
        ).ids,
        "stream": tuple(generator.generate_stream(PROMPT, GREEDY)),
        "constrained": generator.generate(PROMPT, GREEDY, constraint=Even()).ids,
        "recorded": recorded.generate(PROMPT, GREEDY).ids,
        "batch": [row.ids for t in tickets if isinstance(row := rows[t], Generation)],
        "together": [row.ids for row in generator.generate_batch(["Once upon", PROMPT], GREEDY)],
        "read": [
            (token.id, round(token.logprob, 3))
            for token in generator.generate(PROMPT, GREEDY, prompt_logprobs=1).prompt_logprobs or ()
        ],
        "score": [round(one, 3) for one in generator.score(PROMPT).tolist()],
    }


@pytest.fixture(scope="module")
def expected() -> dict[str, object]:
    return everything(*load("demo", device="cpu"))


def test_row_122_loading_and_generating(
    state: AbstractContextManager[None], expected: dict[str, object]
) -> None:
    with state:
        model, tokenizer = load("demo", device="cpu")
        assert everything(model, tokenizer) == expected
    assert everything(model, tokenizer) == expected


def test_row_122_a_model_that_was_loaded_before(
    state: AbstractContextManager[None], expected: dict[str, object]
) -> None:
    model, tokenizer = load("demo", device="cpu")
    with state:
        assert everything(model, tokenizer) == expected


def test_row_122_what_was_loaded_and_made_there_is_of_the_ordinary_kind(
    state: AbstractContextManager[None],
) -> None:
    """It can train, move and be written to anywhere."""
    with state:
        model, _ = load("demo", device="cpu", dtype="float32")
        cache = model.make_cache(1, 16)
    assert isinstance(model, Llama)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        logits = model(ids, cache)
        cache.advance([3])
        model(ids, cache)
        torch.testing.assert_close(model(ids), logits, atol=1e-4, rtol=1e-4)
    assert not any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))
    model.requires_grad_(True)
    assert model.to(torch.bfloat16)(ids).isfinite().all()


def test_row_122_dynamic_rope(
    state: AbstractContextManager[None], tiny_llama: Any, byte_level: Any
) -> None:
    """The cache of such a model keeps inputs, too."""
    scaling = RopeScaling(type="dynamic", factor=2.0, original_max_seq_len=16)
    model = tiny_llama(rope_scaling=scaling, vocab_size=byte_level.vocab_size)
    whole = everything(model, byte_level)
    with state:
        assert everything(model, byte_level) == whole
