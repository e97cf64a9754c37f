"""The last round: the language model alone, on features that are made once.

A step of it needs no encoder and has always the same shape. On a GPU it is recorded as one CUDA graph, so
that thousands of steps take minutes; on a CPU the same steps are taken one operator at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lolama_core import Llama
from lolama_vision import LLaVA

from .batches import IGNORE
from .features import WIDTH, Rows, made
from .model import VISION
from .muon import orthogonal
from .recipe import LastRecipe
from .train import is_inner


class Optimizer:
    """AdamW and Muon of `make_optimizers`, with all that changes in tensors: a recorded step reads them anew.

    Args:
        named: Parameters and their names in the whole model.

    Attributes:
        rate: The learning rate of the next step.
    """

    def __init__(self, named: list[tuple[str, nn.Parameter]]) -> None:
        device = named[0][1].device
        self.rate, self._count = (torch.zeros((), device=device) for _ in range(2))
        self._moments: dict[nn.Parameter, tuple[Tensor, Tensor]] = {}
        self._alike: dict[torch.Size, list[nn.Parameter]] = {}
        for name, parameter in named:
            if is_inner(name, parameter):
                self._alike.setdefault(parameter.shape, []).append(parameter)
            else:
                self._moments[parameter] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        self._sums = {
            shape: torch.zeros(len(matrices), *shape, device=device)
            for shape, matrices in self._alike.items()
        }

    @torch.no_grad()
    def step(self, gradients: dict[nn.Parameter, Tensor]) -> None:
        """Move every parameter by its gradient."""
        self._count.add_(1)
        for parameter, (mean, square) in self._moments.items():
            mean.lerp_(gradients[parameter], 1 - 0.9)
            square.lerp_(gradients[parameter] ** 2, 1 - 0.98)
            scale = (square / (1 - 0.98**self._count)).sqrt() + 1e-8
            parameter.sub_(self.rate * (mean / (1 - 0.9**self._count)) / scale)
        for shape, matrices in self._alike.items():
            gradient, sums = torch.stack([gradients[m] for m in matrices]), self._sums[shape]
            sums.lerp_(gradient, 1 - 0.95)
            moves = orthogonal(gradient.lerp(sums, 0.95)) * 0.2 * math.sqrt(max(shape))
            for matrix, move in zip(matrices, moves, strict=True):
                matrix.mul_(1 - self.rate * 0.02).sub_(self.rate * move)

    def forget(self) -> None:
        """Be as new."""
        self._count.zero_()
        for moment in (*self._sums.values(), *(m for pair in self._moments.values() for m in pair)):
            moment.zero_()


class Step:
    """One step on what `fill` was given.

    Args:
        model: Its language model is trained, where it is.
        features: (pictures, P, D), on the same device.
        dialogues: The number of dialogues in a batch.

    Attributes:
        loss: Mean cross-entropy of the answers' tokens, of the last step.
    """

    def __init__(self, model: LLaVA, features: Tensor, dialogues: int) -> None:
        assert isinstance(model.language_model, Llama)
        self._language_model = model.language_model
        self._named = [
            (name, parameter)
            for name, parameter in model.named_parameters()
            if name.startswith("language_model.")
        ]
        self.optimizer = Optimizer(self._named)
        self._features, device = features, features.device
        ids = torch.zeros(dialogues, WIDTH, dtype=torch.long, device=device)
        self._ids, self._places, self._targets = ids, ids.clone(), ids.clone()
        self._shown = torch.zeros(dialogues, *features.shape[1:], device=device)
        self.loss = torch.zeros((), device=device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def fill(self, rows: Rows) -> None:
        """Take the batch of the next step."""
        self._ids.copy_(torch.from_numpy(rows.ids))
        self._places.copy_(torch.from_numpy(rows.features))
        self._targets.copy_(torch.from_numpy(rows.targets))
        pictures = torch.from_numpy(rows.pictures).to(self._features.device)
        self._shown.copy_(self._features[pictures])

    def take(self) -> None:
        """Compute the loss and its gradient, clip it, and move the parameters."""
        if self._graph is None:
            self._take()
        else:
            self._graph.replay()

    def record(self) -> None:
        """Record the step as a CUDA graph, with what is filled in; parameters stay as they are."""
        before = [parameter.detach().clone() for _, parameter in self._named]
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # What is chosen or allocated at first must not be recorded.
            for _ in range(2):
                self._take()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._take()
        self._graph = graph
        with torch.no_grad():
            for (_, parameter), values in zip(self._named, before, strict=True):
                parameter.copy_(values)
        self.optimizer.forget()

    def _take(self) -> None:
        index = self._places.clamp(min=0)[..., None].expand(-1, -1, self._shown.shape[-1])
        embeds = torch.where(
            self._places[..., None] >= 0,
            self._shown.gather(1, index),
            self._language_model.embed_tokens(self._ids),
        )
        logits = self._language_model.forward_embeds(embeds, None, None, logits="all")
        loss = F.cross_entropy(logits.flatten(0, 1), self._targets.flatten(), ignore_index=IGNORE)
        parameters = [parameter for _, parameter in self._named]
        gradients = torch.autograd.grad(loss, parameters)
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        scale = (1 / (norm + 1e-6)).clamp(max=1)
        self.loss.copy_(loss.detach())
        self.optimizer.step(
            {p: gradient * scale for p, gradient in zip(parameters, gradients, strict=True)}
        )


def train_on(
    model: LLaVA,
    features: Tensor,
    batches: Iterator[Rows],
    recipe: LastRecipe,
    *,
    device: torch.device,
    report: Callable[[str], None] = print,
) -> None:
    """Train the language model in place, until steps or seconds end; the model is on the CPU again then."""
    started = time.monotonic()
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    model.language_model.to(device).train()
    step = Step(model, features.to(device), recipe.dialogues)
    recent = None
    for number, rows in enumerate(batches):
        done = recipe.done(number, time.monotonic() - started)
        if done >= 1:
            break
        step.fill(rows)
        if number == 0 and device.type == "cuda":
            step.record()
        step.optimizer.rate.fill_(recipe.rate(number, done))
        step.take()
        if number % 50 == 0 or number + 1 == recipe.steps:
            loss = step.loss.item()
            recent = loss if recent is None else 0.7 * recent + 0.3 * loss
            each = (time.monotonic() - started) / (number + 1)
            report(f"step {number + 1}/{recipe.steps}  loss {recent:.4f}  {each:.3f} s a step")
    model.cpu().eval()


def last_round(
    model: LLaVA,
    checkpoint: Path,
    recipe: LastRecipe,
    *,
    device: torch.device,
    workers: int,
    report: Callable[[str], None] = print,
) -> None:
    """Train ``model``, which holds what ``checkpoint`` does, on features that ``workers`` processes make."""
    with made(checkpoint, recipe, workers) as (features, batches):
        report(f"features of {len(features)} pictures, {VISION.features_per_tile} each")
        train_on(model, features, batches, recipe, device=device, report=report)
