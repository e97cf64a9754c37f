"""What a model makes of a text behind its last block."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lolama_core import Llama, hidden_states
from lolama_core.protocols.errors import UsageError

MakeLlama = Callable[..., Llama]


def test_the_output_projection_makes_logits_of_them(tiny_llama: MakeLlama) -> None:
    model = tiny_llama()
    ids = [1, 5, 9, 2]
    states = hidden_states(model, ids)
    assert states.shape == (4, model.config.d_model) and states.dtype == torch.float32
    with torch.inference_mode():
        logits = model(torch.tensor([ids]))[0]
        torch.testing.assert_close(model.lm_head(states.to(model.dtype)).float(), logits)


@pytest.mark.parametrize("ids", [[], [-1], [10**6], [1] * 100_000])
def test_what_is_no_text_of_the_model_is_refused(tiny_llama: MakeLlama, ids: list[int]) -> None:
    with pytest.raises(UsageError):
        hidden_states(tiny_llama(), ids)


def test_another_model_is_refused() -> None:
    class Other:
        def forward_embeds(self) -> None: ...

    with pytest.raises(UsageError, match="does not tell its hidden states"):
        hidden_states(Other(), [1])  # type: ignore[arg-type]
