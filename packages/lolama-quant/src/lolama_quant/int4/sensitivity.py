"""What a language model's predictions are sensitive to: which tokens, and which outputs of its last linear.

An error e in what the last block makes of a token moves the prediction by eᵀ F e / 2 (the KL divergence, to
second order). F = E[g gᵀ] is the Fisher information: g is the gradient of log p(y), and y is drawn from p.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lolama_core.protocols.causal_module import CausalLMModule

_DRAWN = 2
"""Next tokens that are drawn for each token of the text: the fewer, the more F is off by chance."""

_LEAST_OPEN = 0.1
"""How open a prediction is at least, of 1: a sure one may be less sure on other text."""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """How much errors count.

    Attributes:
        importance: (B, T) float32 of each text, 1 on average: the root of how open the prediction is behind
            each token, 1 - Σp², by the mean square of what the last block makes of it. The last norm divides
            by that, so an error is larger where it is small. Without the root, fewer tokens would count, as
            if there were less text. Tokens of which NaN or Inf is made count 0.
        last: The name of the linear that runs last in the last block; None if it is not in all tokens' way,
            as those of experts are not.
        outputs: (N, N) float32, the Fisher information of its outputs; None where there is no last linear, or
            where float32 does not have the information.
    """

    importance: tuple[Tensor, ...]
    last: str | None = None
    outputs: Tensor | None = None

    def outputs_of(self, name: str) -> Tensor | None:
        """(N, N), how much errors of the outputs of this linear count together; None: all count alike."""
        return self.outputs if name == self.last else None


def sensitivity(
    model: CausalLMModule,
    texts: Sequence[Tensor],
    linears: Collection[str],
    steps: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """What a model is sensitive to as it reads these texts.

    Args:
        model: Its linears may be quantized, but for ``lm_head``: a gradient is taken through that. It is run
            as it is called, so within `lolama_core.runtime.fast_products` by kernels.
        texts: Token ids (B, T), without padding.
        linears: Names of the linears that `Sensitivity.last` is one of.
        steps: Is told how many tokens are read, and how many there are.
    """
    generator = torch.Generator().manual_seed(0)
    importance = list[Tensor]()
    last = _last_linear(model, texts[0][:, :2], linears)
    total, gradients = None, 0
    tokens, all_tokens = 0, sum(ids.numel() for ids in texts)
    steps(tokens, all_tokens)
    for ids in texts:
        seen = _seen(model, ids, last)
        p = seen.logits.detach().softmax(-1)
        openness = _LEAST_OPEN + 1 - p.square().sum(-1)
        count = (openness / seen.stream.float().square().mean(-1)).sqrt()
        importance.append(torch.where(count.isfinite(), count, 0).cpu())
        if seen.outputs is not None and bool(p.isfinite().all()):
            drawn = torch.multinomial(p.flatten(0, 1).cpu(), _DRAWN, True, generator=generator)
            log_p = seen.logits.log_softmax(-1).flatten(0, 1).gather(1, drawn.to(p.device))
            for one in log_p.sum(0):
                [gradient] = torch.autograd.grad(one, seen.outputs, retain_graph=True)
                rows = gradient.float().flatten(0, 1)  # (tokens, N)
                total = rows.T @ rows if total is None else total.addmm_(rows.T, rows)
                gradients += len(rows)
        tokens += ids.numel()
        steps(tokens, all_tokens)
    mean = torch.cat([one.flatten() for one in importance]).mean()
    counted = tuple(one / mean if mean > 0 else torch.ones_like(one) for one in importance)
    if total is None or not bool(total.isfinite().all()):
        return Sensitivity(importance=counted)
    return Sensitivity(importance=counted, last=last, outputs=(total / gradients).cpu())


class _Seen(NamedTuple):
    """What is seen while a model reads a text.

    Attributes:
        stream: (B, T, D), what the last block makes of it.
        outputs: (B, T, N) of the linear that runs last, which the logits depend on; None if there is none.
        logits: (B, T, V) float32.
    """

    stream: Tensor
    outputs: Tensor | None
    logits: Tensor


def _seen(model: CausalLMModule, ids: Tensor, last: str | None) -> _Seen:
    found = dict[str, Tensor]()

    def begin(linear: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        found["outputs"] = output.detach().requires_grad_()
        return found["outputs"]

    def end(block: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        found["stream"] = output.detach()

    hooks = [model.layers[-1].register_forward_hook(end)]
    if last is not None:
        hooks.append(model.get_submodule(last).register_forward_hook(begin))
    try:
        with torch.enable_grad():
            logits = _run(model, ids)
    finally:
        for hook in hooks:
            hook.remove()
    return _Seen(found["stream"], found.get("outputs"), logits)


def _last_linear(model: CausalLMModule, ids: Tensor, linears: Collection[str]) -> str | None:
    """The name of the linear that runs last, if all tokens run through it in their order, once."""
    ran = list[tuple[str, bool]]()
    hooks = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: ran.append((name, output.shape[:-1] == ids.shape))
        )
        for name, module in model.named_modules()
        if name in linears
    ]
    try:
        with torch.no_grad():
            _run(model, ids)
    finally:
        for hook in hooks:
            hook.remove()
    return ran[-1][0] if ran and ran[-1][1] else None


def _run(model: CausalLMModule, ids: Tensor) -> Tensor:
    return model.forward_embeds(model.embed(ids.to(model.device)), logits="all")
