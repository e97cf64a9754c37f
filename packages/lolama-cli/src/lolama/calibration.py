"""What weights of four bits are fitted to: text that a model writes itself, or one of the user's."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import lolama_core
import lolama_quant
from lolama.steps import Steps
from lolama_core.protocols.errors import LolamaError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from lolama_core.protocols import CausalLM, Tokenizer
    from lolama_core.protocols.types import ModelFiles

TOKENS = 8192
"""How much text: more gains little, and a linear of 5,632 inputs needs as many tokens."""

_LENGTH = 512
_ROWS = 16
_MOST_TEXTS = 256


def calibrated_blocks(
    files: ModelFiles, linears: Collection[str], text: str | None, steps: Steps | None
) -> Iterator[tuple[str, Tensor]]:
    """Canonical name → tensor in four bits, of the linears inside the blocks of a language model.

    Args:
        files: The model, not quantized.
        linears: Names of the linears that get four bits.
        text: One that is typical of what the model will read; None: the model writes one itself.
        steps: Is told how many tokens are written, then how many linears are done.

    Raises:
        UsageError: for a text that is too short.
    """
    model = lolama_core.load_model(files, lolama_core.installed_families(), device="cpu")
    tokenizer = lolama_core.load_tokenizer(files)
    texts = own_text(model, tokenizer, steps) if text is None else text_of(model, tokenizer, text)
    tell = steps or (lambda done, total: None)
    for block in lolama_quant.quantize_blocks(model, texts, linears, steps=tell):
        yield from block.tensors.items()


def own_text(model: CausalLM, tokenizer: Tokenizer, steps: Steps | None) -> list[Tensor]:
    """Texts that the model writes at temperature 1, (1, T) each, of about `TOKENS` together.

    Each begins with the token that texts begin with, or where there is none with another one.
    """
    import torch

    limit, bos = min(_LENGTH, model.max_seq_len) - 1, tokenizer.bos_id
    found: list[Tensor] = []
    written, batch = 0, lolama_core.BatchGenerator(model)
    if steps is not None:
        steps(0, TOKENS)
    # A model whose texts are very short would write for ever.
    while written < TOKENS and len(found) < _MOST_TEXTS:
        begins: dict[int, int] = {}
        for seed in range(len(found), len(found) + _ROWS):
            begin = (seed * 7919 + 1) % model.vocab_size if bos is None else bos
            ticket = batch.submit(
                [begin], max_new_tokens=limit, temperature=1.0, top_p=1.0, top_k=0, seed=seed
            )
            begins[ticket] = begin
        while batch.busy:
            batch.step()
        for ticket, result in batch.collect().items():
            if isinstance(result, LolamaError):
                raise result
            found.append(torch.tensor([[begins[ticket], *result.ids]]))
            written += found[-1].shape[1]
        if steps is not None:
            steps(min(written, TOKENS), TOKENS)
    return found


def text_of(model: CausalLM, tokenizer: Tokenizer, text: str) -> list[Tensor]:
    """The beginning of a text as ids, (1, T) each, of `TOKENS` together at most.

    Raises:
        UsageError: if it is too short.
    """
    import torch

    ids = tokenizer.encode_ids(text, split_special_tokens=True)[:TOKENS]
    length = min(_LENGTH, model.max_seq_len)
    if len(ids) < length:
        reason = f"has {len(ids):,} tokens, and {length:,} are the least to calibrate with"
        raise UsageError("the text", reason, "give a longer one, or none")
    return [torch.tensor([list(ids[i : i + length])]) for i in range(0, len(ids), length)]
