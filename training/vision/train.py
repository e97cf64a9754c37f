"""Train `demo-vision` with lolama's own modules, in pieces that can be interrupted between steps."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lolama_vision import CLIPImageProcessor

from .batches import IGNORE, Batch, make_batch
from .model import VISION, Trainee
from .muon import Muon
from .recipe import Recipe
from .tokenizer import DialogueEncoder

THREADS = 2


def loss_of(trainee: Trainee, batch: Batch, recipe: Recipe, whole: Batch) -> Tensor:
    """A part's share of the loss of the ``whole`` batch.

    Mean cross-entropy of the answers' tokens, and the reader's, per patch, times its weight.
    """
    model, patches = trainee.model, VISION.features_per_tile
    per_patch = recipe.reading / whole.labels[..., 0].numel()
    if not recipe.questions:
        features = model.projector(model.vision_tower(batch.pixel_values))
        return per_patch * trainee.reader.loss(features, batch.labels, places=recipe.places)
    width = max(batch.lengths)
    prompt = model.embed_prompt(
        batch.ids[:, :width], batch.lengths, pixel_values=batch.pixel_values
    )
    logits = model.forward_embeds(prompt.embeds, None, prompt.lengths, logits="all")
    targets = batch.targets[:, : logits.shape[1] - 1]
    answers = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    rows = zip(prompt.embeds, batch.starts, strict=True)
    features = torch.stack([row[start : start + patches] for row, start in rows])
    counted = (whole.targets != IGNORE).sum()
    return answers / counted + per_patch * trainee.reader.loss(
        features, batch.labels, places=recipe.places
    )


def gradients(trainee: Trainee, batch: Batch, recipe: Recipe, pool: ThreadPoolExecutor) -> float:
    """Fill in `.grad` of the batch's loss and return that loss; a thread for each part of the rows."""
    parameters = [parameter for _, parameter in trainee.trained(recipe)]

    def work(part: Batch) -> tuple[float, tuple[Tensor, ...]]:
        torch.set_num_threads(1)
        loss = loss_of(trainee, part, recipe, batch)
        return loss.item(), torch.autograd.grad(loss, parameters)

    results = list(pool.map(work, batch.split(THREADS)))
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.stack([grads[index] for _, grads in results]).sum(0)
    return sum(loss for loss, _ in results)


def is_inner(name: str, parameter: Tensor) -> bool:
    """Whether it is a matrix inside a block, which Muon trains."""
    return parameter.dim() == 2 and (".layers." in name or ".projector." in name)


def make_optimizers(trainee: Trainee, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for all else."""
    named = trainee.trained(recipe)
    inner = [p for name, p in named if is_inner(name, p)]
    outer = [p for name, p in named if not is_inner(name, p)]
    rate = recipe.peak_rate
    return [
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
        *(Muon(share, lr=rate) for share in (inner[index::THREADS] for index in range(THREADS))),
    ]


def train(
    trainee: Trainee,
    tokenizer: Tokenizer,
    rounds: Sequence[Recipe],
    state: Path,
    *,
    seconds: float = math.inf,
    report: Callable[[str], None] = print,
) -> bool:
    """Go on from ``state`` for a limited time, and return whether all rounds are done.

    The state holds the weights, the optimizers, the round and its step, so a piece goes on exactly where
    the one before it has stopped. Each round goes on with the weights of the one before.
    """
    ends = time.monotonic() + seconds
    saved: dict[str, Any] = {"round": 0}
    if state.exists():
        saved = torch.load(state, weights_only=True)
        trainee.load_state_dict(saved["trainee"])
    trainee.train()
    for number in range(saved["round"], len(rounds)):
        optimizers = make_optimizers(trainee, rounds[number])
        step, loss = 0, None
        if number == saved["round"] and "step" in saved:
            step, loss = saved["step"], saved["loss"]
            for optimizer, values in zip(optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(values)
        else:
            with torch.no_grad():
                positions = trainee.model.vision_tower.position_embedding
                positions.mul_(rounds[number].position_scale)
        step, loss = _take_steps(
            trainee,
            DialogueEncoder(tokenizer),
            rounds[number],
            optimizers,
            step,
            loss,
            ends=ends,
            report=partial(_report, report, number + 1),
        )
        done = step == rounds[number].steps
        reached: dict[str, Any] = {"trainee": trainee.state_dict(), "round": number + done}
        if not done:
            states = [optimizer.state_dict() for optimizer in optimizers]
            reached |= {"step": step, "loss": loss, "optimizers": states}
        fresh = state.with_suffix(".partial")
        torch.save(reached, fresh)
        os.replace(fresh, state)
        if not done:
            return False
    trainee.eval()
    return True


def _report(report: Callable[[str], None], number: int, line: str) -> None:
    report(f"round {number}  {line}")


def _take_steps(
    trainee: Trainee,
    encoder: DialogueEncoder,
    recipe: Recipe,
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
    recent: float | None,
    *,
    ends: float,
    report: Callable[[str], None],
) -> tuple[int, float | None]:
    """Go on until the recipe or the time ends → the next step, and a running mean of the loss."""
    processor = CLIPImageProcessor(VISION)
    parameters = [parameter for _, parameter in trainee.trained(recipe)]
    started, first = time.monotonic(), step
    # At these lengths the plain form of attention is the fastest to differentiate.
    with (
        ThreadPoolExecutor(THREADS) as pool,
        ThreadPoolExecutor(1) as ahead,
        sdpa_kernel(SDPBackend.MATH),
    ):
        coming = ahead.submit(make_batch, encoder, processor, recipe, step)
        while step < recipe.steps and time.monotonic() < ends:
            batch = coming.result()
            coming = ahead.submit(make_batch, encoder, processor, recipe, step + 1)
            loss = gradients(trainee, batch, recipe, pool)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate(step)
            list(pool.map(lambda optimizer: optimizer.step(), optimizers))
            step += 1
            recent = loss if recent is None else 0.97 * recent + 0.03 * loss
            if step % 50 == 0 or step == recipe.steps:
                each = (time.monotonic() - started) / (step - first)
                report(f"step {step}/{recipe.steps}  loss {recent:.4f}  {each:.2f} s a step")
    return step, recent
