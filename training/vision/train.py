"""Train `demo-vision` with lolama's own modules, in pieces that can be interrupted between steps."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lolama_core import Llama, LlamaConfig
from lolama_vision import CLIPImageProcessor, LLaVA, Preprocessing, VisionConfig, VLMConfig

from .muon import Muon
from .questions import ask
from .scene import draw, scene_of
from .tokenizer import IMAGE, VOCAB_SIZE, DialogueEncoder

IGNORE = -100
THREADS = 2

TEXT = LlamaConfig(
    vocab_size=VOCAB_SIZE,
    d_model=128,
    num_heads=4,
    num_kv_heads=2,
    num_layers=4,
    hidden_dim=384,
    max_seq_len=1024,
    tie_word_embeddings=True,
)
VISION = VisionConfig(
    image_size=96,
    patch_size=16,
    width=128,
    num_layers=5,
    num_heads=4,
    mlp_dim=512,
    feature_layer=-1,
    preprocessing=Preprocessing(mode="pad"),
)


@dataclass(frozen=True)
class Recipe:
    """How much to train and how fast.

    Args:
        steps: Batches.
        pictures: In a batch, each of a new scene.
        questions: Asked about each picture.
        described_first: Share of dialogues that begin with a description of the picture.
        empty_from: The step from which on a few pictures have nothing in them. Earlier they would teach to
            answer without looking.
        empty: Share of such pictures.
        peak_rate: Learning rate after the warm-up, of both optimisers.
        warmup: Share of the steps over which the rate rises; it falls linearly from there to zero.
        seed: Of scenes, pictures and questions.
    """

    steps: int = 1500
    pictures: int = 32
    questions: int = 6
    described_first: float = 0.5
    empty_from: int = 900
    empty: float = 0.04
    peak_rate: float = 3e-3
    warmup: float = 0.03
    seed: int = 0


# Each round goes on with the weights of the one before, on scenes that none before it has seen.
ROUNDS = (
    Recipe(),
    Recipe(steps=1800, peak_rate=2e-3, described_first=0.1, empty_from=0, empty=0.03, seed=1),
)


def config_of(image_token_id: int) -> VLMConfig:
    return VLMConfig(
        vision_config=VISION, text_config=TEXT.to_json(), image_token_id=image_token_id
    )


def fresh_model(image_token_id: int, seed: int = 0) -> LLaVA:
    """Normal weights; matrices that write to a residual stream are scaled down by depth."""
    model = LLaVA(config_of(image_token_id), Llama(TEXT))
    generator = torch.Generator().manual_seed(seed)
    depth = {"language_model": TEXT.num_layers, "vision_tower": VISION.layers_used, "projector": 1}
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            nn.init.ones_(parameter)
        elif name.endswith(".bias"):
            nn.init.zeros_(parameter)
        else:
            std = 0.02
            if name.endswith(("o_proj.weight", "w_down.weight", "fc2.weight")):
                std /= math.sqrt(2 * depth[name.partition(".")[0]])
            elif "position_embedding" in name or "class_embedding" in name:
                std = 0.5
            elif "patch_embedding" in name:
                std = 1 / math.sqrt(3 * VISION.patch_size**2)
            nn.init.normal_(parameter, std=std, generator=generator)
    return model


@dataclass(frozen=True)
class Batch:
    """Pictures and the dialogues about them.

    Attributes:
        pixel_values: (B, 3, S, S).
        ids: (B, T), right-padded, one image token a row.
        targets: (B, T' - 1), after the merge: what follows each position, or IGNORE.
        lengths: Ids in use.
    """

    pixel_values: Tensor
    ids: Tensor
    targets: Tensor
    lengths: list[int]

    def split(self, parts: int) -> list[Batch]:
        """By rows."""
        rows = torch.arange(len(self.ids)).chunk(parts)
        return [
            Batch(
                self.pixel_values[row],
                self.ids[row],
                self.targets[row],
                [self.lengths[index] for index in row.tolist()],
            )
            for row in rows
        ]


def make_batch(
    encoder: DialogueEncoder, processor: CLIPImageProcessor, recipe: Recipe, step: int
) -> Batch:
    """The batch of that step: the same whenever and wherever it is made."""
    pictures, rows, wanted = [], [], []
    for index in range(recipe.pictures):
        rng = random.Random(f"train {recipe.seed} {step} {index}")
        empty = step >= recipe.empty_from and rng.random() < recipe.empty
        scene = () if empty else scene_of(rng, held_out=False)
        pictures.append(draw(scene, rng))
        exchanges = ask(scene, rng, recipe.questions, described_first=recipe.described_first)
        ids, ours = encoder.encode(exchanges, plain=rng.random() < 0.15)
        place = ids.index(encoder.ids[IMAGE])
        merged = [IGNORE] * place + [IGNORE] * VISION.features_per_tile
        merged += [
            i if mine else IGNORE
            for i, mine in zip(ids[place + 1 :], ours[place + 1 :], strict=True)
        ]
        rows.append(torch.tensor(ids))
        wanted.append(torch.tensor(merged[1:]))
    return Batch(
        processor.preprocess(pictures)["pixel_values"],
        nn.utils.rnn.pad_sequence(rows, batch_first=True),
        nn.utils.rnn.pad_sequence(wanted, batch_first=True, padding_value=IGNORE),
        [len(row) for row in rows],
    )


def loss_of(model: LLaVA, batch: Batch) -> Tensor:
    """Summed cross-entropy of the answers."""
    width = max(batch.lengths)
    prompt = model.embed_prompt(
        batch.ids[:, :width], batch.lengths, pixel_values=batch.pixel_values
    )
    logits = model.forward_embeds(prompt.embeds, None, prompt.lengths, logits="all")
    targets = batch.targets[:, : logits.shape[1] - 1]
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )


def gradients(model: LLaVA, batch: Batch, pool: ThreadPoolExecutor) -> float:
    """Fill in `.grad` of the batch's mean loss and return that loss; a thread for each half of the rows."""
    parameters = list(model.parameters())
    counted = int((batch.targets != IGNORE).sum())

    def work(part: Batch) -> tuple[float, tuple[Tensor, ...]]:
        torch.set_num_threads(1)
        loss = loss_of(model, part) / counted
        return loss.item(), torch.autograd.grad(loss, parameters)

    results = list(pool.map(work, batch.split(THREADS)))
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.stack([grads[index] for _, grads in results]).sum(0)
    return sum(loss for loss, _ in results)


def make_optimizers(model: LLaVA, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for all else."""
    named = list(model.named_parameters())

    def is_inner(name: str, parameter: Tensor) -> bool:
        return parameter.dim() == 2 and (".layers." in name or name.startswith("projector"))

    inner = [p for name, p in named if is_inner(name, p)]
    outer = [p for name, p in named if not is_inner(name, p)]
    return [
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
        *(Muon(share, lr=rate) for share in (inner[index::THREADS] for index in range(THREADS))),
    ]


def train(
    model: LLaVA,
    tokenizer: Tokenizer,
    recipe: Recipe,
    state: Path,
    *,
    seconds: float = math.inf,
    report: Callable[[str], None] = print,
) -> bool:
    """Go on from ``state`` for so many seconds at most; whether all steps are done.

    The state holds the weights, the optimisers and the step, so a piece goes on exactly where the one
    before it has stopped.
    """
    started = time.monotonic()
    encoder = DialogueEncoder(tokenizer)
    processor = CLIPImageProcessor(VISION)
    optimizers = make_optimizers(model, recipe.peak_rate)
    step, recent = 0, 0.0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, values in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        step, recent = saved["step"], saved["recent"]
    model.train()
    first = step
    # At these lengths the plain form of attention is the fastest to differentiate.
    with (
        ThreadPoolExecutor(THREADS) as pool,
        ThreadPoolExecutor(1) as ahead,
        sdpa_kernel(SDPBackend.MATH),
    ):
        coming = ahead.submit(make_batch, encoder, processor, recipe, step)
        while step < recipe.steps and time.monotonic() - started < seconds:
            batch = coming.result()
            coming = ahead.submit(make_batch, encoder, processor, recipe, step + 1)
            loss = gradients(model, batch, pool)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            rise = (step + 1) / (recipe.warmup * recipe.steps)
            rate = recipe.peak_rate * min(rise, (recipe.steps - step) / recipe.steps)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            list(pool.map(lambda optimizer: optimizer.step(), optimizers))
            step += 1
            recent = loss if step == 1 else 0.97 * recent + 0.03 * loss
            if step % 50 == 0 or step == recipe.steps:
                each = (time.monotonic() - started) / (step - first)
                report(f"step {step}/{recipe.steps}  loss {recent:.4f}  {each:.2f} s a step")
    saved = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "step": step,
        "recent": recent,
    }
    partial = state.with_suffix(".partial")
    torch.save(saved, partial)
    os.replace(partial, state)
    model.eval()
    return step == recipe.steps
