"""A server's model is explained through a second view: what runs texts meanwhile sees nothing of that."""

from __future__ import annotations

import gc
import weakref

import pytest

import lolama_core
from lolama.serving import LocalModels
from lolama_core import Engine, GenerationConfig, TextGenerator
from lolama_core.protocols.explaining import ExplainedModel, PartsOff

TEXT = "Once upon a time"
GREEDY = GenerationConfig.greedy(max_new_tokens=12)


@pytest.mark.parametrize("name", ["demo", "demo-vision"])
def test_it_is_what_python_says(name: str) -> None:
    model = LocalModels([name]).load(name)
    assert isinstance(model, ExplainedModel)
    own, tokenizer = lolama_core.second_view(model._model), model.tokenizer
    off = PartsOff(layers=[2], heads=[(0, 1)])
    ids = tokenizer.encode_ids(TEXT)
    assert model.explain(TEXT, PartsOff()) == lolama_core.explain(own, tokenizer, ids)
    with lolama_core.ablate(own, layers=[2], heads=[(0, 1)]):
        assert model.explain(TEXT, off) == lolama_core.explain(own, tokenizer, ids)
        expected = TextGenerator(own, tokenizer).generate(TEXT, GREEDY).text
    assert model.continued(TEXT, off, 12) == expected != model.continued(TEXT, PartsOff(), 12)


def test_texts_that_run_meanwhile_are_left_alone() -> None:
    model = LocalModels(["demo"]).load("demo")
    alone = TextGenerator(model._model, model.tokenizer).generate(TEXT, GREEDY)
    engine = model.engine(rows=2, cache_bytes=None)
    assert isinstance(engine, Engine)
    ticket = engine.submit(TEXT, GREEDY)
    while engine.busy:
        engine.step()
        model.explain("Another", PartsOff(layers=[0, 1, 2]))
    assert engine.collect()[ticket] == alone


def test_a_model_that_leaves_the_memory_takes_its_view_along() -> None:
    model = LocalModels(["demo"]).load("demo")
    model.explain(TEXT, PartsOff(layers=[0]))
    model.continued(TEXT, PartsOff(), 2)
    weights = weakref.ref(next(model._model.parameters()))
    model.close()
    gc.collect()
    assert weights() is None
