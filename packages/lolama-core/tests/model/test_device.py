from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lolama_core import Llama, LlamaConfig, choose_device, choose_dtype, suit_threads
from lolama_core.protocols.errors import UsageError


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("width", "expected"), [(32, 1), (1024, 2)])
def test_small_models_run_on_one_thread(width: int, expected: int) -> None:
    config = LlamaConfig(
        vocab_size=32, d_model=width, num_heads=4, num_layers=1, hidden_dim=2 * width
    )
    suit_threads(Llama(config))
    assert torch.get_num_threads() == expected


def test_weights_stay_as_stored_on_a_cpu() -> None:
    cpu = choose_device("cpu")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert choose_dtype("auto", cpu, dtype) == dtype
        assert choose_dtype(dtype, cpu, torch.float32) == dtype
    assert choose_dtype("bfloat16", cpu, torch.float32) == torch.bfloat16


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "cpu:x", "", ["cpu"]])
def test_unusable_devices_are_refused(name: Any) -> None:
    with pytest.raises(UsageError, match=r"^device: "):
        choose_device(name)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("fp16", "did you mean float16?"),
        ("half", "did you mean float16?"),
        ("bf16", "did you mean bfloat16?"),
        ("f32", "did you mean float32?"),
        ("int3", "use float32, bfloat16, float16"),
        (16, "use float32, bfloat16, float16"),
        (torch.float64, "use float32, bfloat16, float16"),
    ],
)
def test_row_204_dtypes_that_weights_cannot_have_are_refused(name: Any, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_dtype(name, torch.device("cpu"), torch.float32)
    assert (caught.value.subject, caught.value.remedy) == ("dtype", remedy)
