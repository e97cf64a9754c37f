"""What a model makes of a text before it predicts: the vectors behind its last block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lolama_core.generation.request_factory import RequestFactory, too_long
from lolama_core.model.cache_slots import reserve
from lolama_core.model.device import memory_errors
from lolama_core.model.llama import Llama
from lolama_core.protocols import CausalLM, HasTextModel
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.inference import run_inference


def hidden_states(model: CausalLM, ids: Sequence[int]) -> Tensor:
    """(T, D) float32 on the CPU: each position of a text behind the last block and the final norm.

    Args:
        model: A `Llama`, or a model around one.
        ids: T token ids.

    Raises:
        UsageError: for no ids, more than the model can attend over, what is no id of it, or a model that is
            no `Llama` inside.
        ResourceError: if the memory does not suffice.
    """
    inner = model.text_model() if isinstance(model, HasTextModel) else model
    if not isinstance(inner, Llama):
        reason = "does not tell its hidden states"
        raise UsageError("model", reason, "use a model that lolama builds")
    ids = RequestFactory(model, None).ids(ids)
    if len(ids) > inner.max_seq_len:
        raise too_long(len(ids), inner.max_seq_len)
    text: Llama = inner

    def run() -> Tensor:
        embeds = text.embed(torch.tensor([[*ids]], device=text.device))
        hidden = text.run_blocks(embeds, reserve(embeds, None, None), None)
        states: Tensor = text.norm(hidden)[0]
        return states.float().cpu()

    with memory_errors(text.device):
        return run_inference(text.device, run)
