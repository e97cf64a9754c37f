"""Arguments of types that Python cannot keep a caller from giving."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lolama_core import BatchGenerator, GenerationConfig, Llama, TextGenerator
from lolama_core.model.device import choose_device, choose_dtype
from lolama_core.protocols.arguments import listed, truth
from lolama_core.protocols.errors import UsageError

MakeLlama = Callable[..., Llama]
GREEDY = GenerationConfig.greedy(max_new_tokens=3)
WRONG: list[Any] = [
    *("false", "no", "\ud800", b"x", 0, 1, 1.5, float("nan"), 10**5000, 1j, [1], ["x"], {}, {1}),
    *(
        object(),
        lambda: 0,
        torch.tensor([1, 2]),
        torch.tensor(1.5),
        np.array([1, 2]),
        np.array("x"),
    ),
]


def kind(value: object) -> str:
    """A test's name; numbers of thousands of digits and lone surrogates have none of their own."""
    return type(value).__name__


@pytest.mark.parametrize("value", [*WRONG, None, torch.tensor([True, True])], ids=kind)
def test_row_212_a_boolean_is_a_boolean(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^ignore_eos: .* is not a boolean; give True or False"):
        GenerationConfig(ignore_eos=value)


@pytest.mark.parametrize(
    "yes", [True, np.True_, torch.tensor(True), torch.tensor([True])], ids=kind
)
def test_row_212_booleans_of_other_libraries_are_booleans(yes: Any) -> None:
    assert GenerationConfig(ignore_eos=yes).ignore_eos is True
    assert truth("it", ~yes if not isinstance(yes, bool) else False) is False
    with pytest.raises(UsageError, match="it: "):
        truth("it", torch.ones((), dtype=torch.bool, device="meta"))


@pytest.mark.parametrize("value", [{"temperature": 0}, *WRONG], ids=kind)
def test_row_212_a_config_is_a_config(tiny_llama: MakeLlama, value: Any) -> None:
    generator = TextGenerator(tiny_llama())
    for run in (generator.generate, generator.generate_stream, BatchGenerator(tiny_llama()).submit):
        with pytest.raises(
            UsageError, match=r"^config: .* is not a GenerationConfig; .*temperature=0"
        ):
            run([1, 2], value, max_new_tokens=1)
    with pytest.raises(UsageError, match=r"^config: "):
        generator.generate_batch([[1, 2]], value)


@pytest.mark.parametrize(
    "value", [None, 1, 1.5, True, object(), {}, {1}, b"x", torch.tensor(1), np.array(1)], ids=kind
)
def test_row_212_a_list_is_a_list(tiny_llama: MakeLlama, value: Any) -> None:
    generator = TextGenerator(tiny_llama())
    with pytest.raises(UsageError, match=r"^prompts: .* is not a list; give a list of prompts"):
        generator.generate_batch(value, GREEDY)
    with pytest.raises(UsageError, match=r"^logits_processors: is no list of .*\[function\]"):
        generator.generate([1], GREEDY, logits_processors=value)
    with pytest.raises(UsageError, match="it: "):
        listed("it", value, "")


def test_row_212_whatever_gives_out_its_elements_is_a_list(tiny_llama: MakeLlama) -> None:
    generator = TextGenerator(tiny_llama())
    expected = [generator.generate(ids, GREEDY) for ids in ([1, 2], [3, 4])]
    assert generator.generate_batch(torch.tensor([[1, 2], [3, 4]]), GREEDY) == expected  # type: ignore[arg-type]
    assert generator.generate_batch(iter([[1, 2], [3, 4]]), GREEDY) == expected  # type: ignore[arg-type]

    def only_five(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, -torch.inf).index_fill(-1, torch.tensor([5]), 0.0)

    processors: Any = (one for one in [only_five])
    assert generator.generate([1], GREEDY, logits_processors=processors).ids == (5, 5, 5)


@pytest.mark.parametrize("value", [value for value in WRONG if type(value) is not int], ids=kind)
def test_row_212_a_device_and_a_dtype_are_named(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^device: .* is not a device"):
        choose_device(value)
    with pytest.raises(UsageError, match=r"^dtype: .* is not a dtype of weights"):
        choose_dtype(value, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("value", [10**30, -(10**30), 10**5000, -1], ids=kind)
def test_row_212_no_device_has_such_a_number(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^device: "):
        choose_device(value)


@pytest.mark.parametrize("value", ["2", None, 1.5, True, 0, [1]], ids=kind)
def test_row_212_numbers_of_rows_are_whole(tiny_llama: MakeLlama, value: Any) -> None:
    for name in ("rows", "prefill_chunk", "cache_bytes"):
        if value is None and name != "rows":
            continue  # leaves it to the engine
        with pytest.raises(UsageError, match=f"^{name}: is .*; give a whole number"):
            BatchGenerator(tiny_llama(), **{name: value})
