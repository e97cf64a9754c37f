"""A model has the same identity in every process, and any change gives it another, or none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lolama_core import Llama, TextGenerator
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.types import GenerationDefaults
from lolama_core.runtime.model_identity import model_identity, sums_of


class Watched(Llama):
    """A model of somebody else, with a decorator of Python's own."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        yield

    @torch.no_grad()
    def watch(self) -> None:
        pass


MADE = """
import torch
from lolama_core import Llama, LlamaConfig
from lolama_core.runtime.model_identity import model_identity

torch.manual_seed(0)
config = LlamaConfig(vocab_size=9, d_model=8, num_heads=2, num_layers=2, hidden_dim=8, max_seq_len=50)
model = Llama(config).eval()
"""


def test_it_is_the_same_in_another_process_and_after_a_generation() -> None:
    here: dict[str, Any] = {}
    exec(MADE, here)
    model = here["model"]
    before = model_identity(model)
    TextGenerator(model).generate([1, 2, 3], max_new_tokens=2)
    script = MADE + "print(model_identity(model))"
    there = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert there.stdout.split() == [before] == [model_identity(model)]


def test_what_a_model_is_called_and_recommends_does_not_count(
    tiny_llama: Callable[..., Llama],
) -> None:
    model, other = tiny_llama(), tiny_llama()
    other.generation_defaults = GenerationDefaults(vocab_size=300)
    vars(other)["nothing"] = None
    assert model_identity(model) == model_identity(other)
    vars(other)["scale"] = 2.0
    assert model_identity(model) != model_identity(other)


def test_decorators_of_python_and_torch_are_part_of_a_class(
    tiny_llama: Callable[..., Llama],
) -> None:
    model = tiny_llama()
    assert model_identity(Watched(model.config))


@pytest.mark.parametrize("base", [False, True])
def test_a_class_whose_functions_were_replaced_has_none(
    tiny_llama: Callable[..., Llama], monkeypatch: pytest.MonkeyPatch, base: bool
) -> None:
    model = Watched(tiny_llama().config) if base else tiny_llama()
    monkeypatch.setattr(Llama, "run_blocks", lambda self, x, slots, cache: x)
    with pytest.raises(UsageError, match="the model has a hook, a function of its own or compiled"):
        model_identity(model)


def test_row_404_a_model_with_a_method_of_its_own_has_none(
    tiny_llama: Callable[..., Llama],
) -> None:
    model = tiny_llama()
    vars(model.layers[0])["add"] = lambda x, change, norm: x
    with pytest.raises(UsageError, match=r"layers\.0 has a hook, a function of its own"):
        model_identity(model)


def test_a_model_that_is_watched_or_compiled_or_no_module_has_none(
    tiny_llama: Callable[..., Llama],
) -> None:
    compiled = tiny_llama()
    vars(compiled.norm)["_compiled_call_impl"] = print
    with pytest.raises(UsageError, match="norm has"):
        model_identity(compiled)
    with pytest.raises(UsageError, match=r"no torch\.nn\.Module"):
        model_identity(object())  # type: ignore[arg-type]
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        with pytest.raises(UsageError, match="hooks watch all modules"):
            model_identity(tiny_llama())
    finally:
        handle.remove()


@pytest.mark.parametrize("size", [0, 1, 7, 509 * 4, 509 * 8 + 3, 40_000])
@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float32, torch.bool])
def test_any_change_of_a_value_changes_the_sums(size: int, dtype: torch.dtype) -> None:
    def values() -> Tensor:
        return (torch.arange(size) % 2).to(dtype)

    first = sums_of(values())
    assert first == sums_of(values())
    for place in {0, size // 2, size - 1} if size else ():
        other = values()
        other[place] = 1 - other[place].int()
        assert sums_of(other) != first
    # The memory that it is a view of, and how, does not count.
    assert sums_of(torch.cat((values()[:1], values()))[min(size, 1) :]) == first
    assert sums_of(torch.stack((values(), values()), -1)[..., 0]) == first
