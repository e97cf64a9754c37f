"""Four bits for the blocks of a language model, each fitted to what reaches it as the model reads text.

Text runs through the model block by block. Hooks gather E[x xᵀ] of what each linear reads, and `gptq` chooses
its codes. What the block makes of the text with these is the input of the next one, so that each block makes
up for what the ones before it lost. Memory holds one block, and the text between two blocks.

`sensitivity` says how much each token counts, and how much errors in the outputs of the last linear do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lolama_core.protocols.causal_module import CausalLMModule
from lolama_core.protocols.inference import run_inference
from lolama_quant.grouped.codes import dequantize, pack
from lolama_quant.int4 import gptq, least_squares
from lolama_quant.int4.least_squares import FORM
from lolama_quant.int4.moments import Moments
from lolama_quant.int4.sensitivity import Sensitivity


@dataclass(frozen=True, kw_only=True)
class QuantizedBlock:
    """The linears of one block, in four bits.

    Attributes:
        name: As modules are named, such as ``layers.0``.
        tensors: Canonical name → tensor, as `GroupFormat.tensors` lists them for each linear.
        plain: The linears that read fewer tokens than they have inputs, so that each number is rounded by
            itself: those of experts that are seldom chosen, or all of them where there is little text.
    """

    name: str
    tensors: Mapping[str, Tensor]
    plain: tuple[str, ...]


@torch.no_grad()
def quantize_blocks(
    model: CausalLMModule,
    texts: Iterable[Tensor],
    linears: Collection[str],
    *,
    sensitive: Sensitivity | None = None,
    read: Callable[[str], Mapping[str, Tensor]] | None = None,
    finished: Callable[[str], Mapping[str, Tensor] | None] = lambda name: None,
    steps: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[QuantizedBlock]:
    """The blocks of a language model in four bits, one after another. The model stays as it is.

    Args:
        model: Not quantized. Its blocks may be on the meta device if ``read`` is given.
        texts: Token ids (B, T) that are typical of what the model will read, without padding.
        linears: Names of the linears that are quantized; those outside of blocks are left out.
        sensitive: How much errors count, as the model read these texts; all alike if not given.
        read: The name of a block → its tensors by their names inside it; the block's own if not given.
        finished: The name of a block → its tensors in four bits if they were made before, else None. Such a
            block only runs, and is not handed out again.
        steps: Is told how many linears are done, and how many there are. Behind blocks that were made before
            it begins anew with what is left.

    Raises:
        ModelError: naming the weight, if it holds NaN or Inf.
        ValueError: if there is no text.
    """
    text = _Text(model, texts)
    names = {id(module): name for name, module in model.named_modules()}
    prefix = names[id(model.layers)]
    blocks = {f"{prefix}.{place}": block for place, block in enumerate(model.layers)}
    paths = {name: _linears_inside(block, name, linears) for name, block in blocks.items()}
    total, done, begun = sum(map(len, paths.values())), 0, False
    for name, block in blocks.items():
        tensors = dict(block.state_dict() if read is None else read(name))
        weights = {path: tensors[f"{path}.weight"] for path in paths[name]}
        made, new = finished(name), None
        if made is None:
            if not begun:  # the blocks so far took less time than those that are left will take
                total, done, begun = total - done, 0, True
            moments = Moments(block, paths[name])
            for place in range(len(text.stream)):
                importance = None if sensitive is None else sensitive.importance[place]
                moments.gather(partial(text.run, block, tensors, place), importance)
            tell = partial(_tell, steps, done, total)
            new = _quantized(name, weights, moments, sensitive, tell)
            made = new.tensors
        else:
            steps(done, total)
        for path, weight in weights.items():
            parts = {part: made[f"{name}.{path}.{part}"] for part in FORM.tensors(*weight.shape)}
            tensors[f"{path}.weight"] = dequantize(parts, FORM, weight.shape[1])
        text.advance(block, tensors)
        done += len(weights)
        if new is not None:
            yield new


def _quantized(
    name: str,
    weights: Mapping[str, Tensor],
    moments: Moments,
    sensitive: Sensitivity | None,
    tell: Callable[[int], None],
) -> QuantizedBlock:
    """The block of this name in four bits, from its weights by their linears' names inside it."""
    made, plain = dict[str, Tensor](), []
    for done, (path, weight) in enumerate(weights.items()):
        tell(done)
        own, moment = f"{name}.{path}", moments.of(path)
        if moment is None:
            plain.append(own)
            rows = least_squares.quantize_rows(weight, f"{own}.weight")
        else:
            outputs = None if sensitive is None else sensitive.outputs_of(own)
            rows = gptq.quantize_rows(weight, f"{own}.weight", moment, outputs)
        made |= {f"{own}.{part}": one for part, one in pack(rows, FORM).items()}
    return QuantizedBlock(name=name, tensors=made, plain=tuple(plain))


def _tell(steps: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    steps(before + done, total)


class _Text:
    """Texts on their way through the blocks of a model.

    Attributes:
        stream: (B, T, D) of each text, as it reaches a block.
        others: What all blocks are handed beside it.

    Raises:
        ValueError: if there is none.
    """

    def __init__(self, model: CausalLMModule, texts: Iterable[Tensor]) -> None:
        self.stream: list[Tensor] = []
        self.others: list[tuple[Any, ...]] = []
        hook = model.layers[0].register_forward_pre_hook(self._begin)
        try:
            for ids in texts:
                with contextlib.suppress(_Reached):
                    run_inference(model.device, partial(_start, model, ids))
        finally:
            hook.remove()
        if not self.stream:
            raise ValueError("there is no text to calibrate with")

    def advance(self, block: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        """Keep what a block makes of each text in its place."""
        for place in range(len(self.stream)):
            self.stream[place] = self.run(block, tensors, place)

    def run(self, block: nn.Module, tensors: Mapping[str, Tensor], place: int) -> Tensor:
        """What a block with these tensors makes of a text, (B, T, D)."""
        x, others = self.stream[place], self.others[place]
        call = partial(functional_call, block, dict(tensors), (x, *others))
        y: Tensor = run_inference(x.device, call)
        return y

    def _begin(self, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.stream.append(inputs[0])
        self.others.append(inputs[1:])
        raise _Reached


class _Reached(Exception):
    """The first block is called: the rest of the model need not run."""


def _start(model: CausalLMModule, ids: Tensor) -> None:
    model.forward_embeds(model.embed(ids.to(model.device)))


def _linears_inside(block: nn.Module, name: str, linears: Collection[str]) -> list[str]:
    """The linears of a block by their names inside it."""
    return [
        path
        for path, module in block.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.{path}" in linears
    ]
