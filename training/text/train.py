"""Train the demo with lolama's own modules: Muon for the matrices, AdamW for the rest."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lolama_core import Llama, LlamaConfig

from .corpus import IGNORE, Document, batches
from .tokenizer import VOCAB_SIZE

THREADS = 2

CONFIG = LlamaConfig(
    vocab_size=VOCAB_SIZE,
    d_model=192,
    num_heads=6,
    num_kv_heads=2,
    num_layers=6,
    hidden_dim=512,
    max_seq_len=512,
    tie_word_embeddings=True,
)


@dataclass(frozen=True)
class Recipe:
    """How much to train and how fast.

    Args:
        stories: Number of plain stories in the corpus.
        dialogues: Number of chat dialogues.
        epochs: Passes over the corpus.
        tokens_per_batch: Upper bound on B · T, padding included.
        peak_rate: Learning rate after the warm-up, of both optimizers.
        warmup: Share of the steps over which the rate rises; it falls linearly from there to zero.
        seed: The seed of the corpus.
    """

    stories: int = 80_000
    dialogues: int = 80_000
    epochs: int = 1
    tokens_per_batch: int = 4096
    peak_rate: float = 4e-3
    warmup: float = 0.03
    seed: int = 0


# Each round goes on with the weights of the one before, on texts that none before it has seen.
ROUNDS = (
    Recipe(),
    Recipe(stories=120_000, dialogues=70_000, peak_rate=3e-3, warmup=0.01, seed=1),
)


def fresh_model(config: LlamaConfig = CONFIG, seed: int = 0) -> Llama:
    """Normal(0, 0.02); matrices that write to the residual stream are scaled down by depth."""
    model = Llama(config)
    generator = torch.Generator().manual_seed(seed)
    residual = 0.02 / math.sqrt(2 * model.config.num_layers)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
        else:
            writes = name.endswith(("o_proj.weight", "w_down.weight"))
            nn.init.normal_(parameter, std=residual if writes else 0.02, generator=generator)
    return model


def make_optimizers(model: Llama, rate: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices inside the blocks, AdamW for embeddings and norms."""
    named = list(model.named_parameters())
    inner = [p for name, p in named if p.dim() == 2 and name.startswith("layers.")]
    outer = [p for name, p in named if p.dim() != 2 or not name.startswith("layers.")]
    # One Muon for each thread: its orthogonalization is the costly part of a step.
    shares = [inner[index::THREADS] for index in range(THREADS)]
    return [
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
        *(
            torch.optim.Muon(share, lr=rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
            for share in shares
        ),
    ]


def loss_of(model: Llama, inputs: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy of the counted tokens; products in bfloat16, which halves the time."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(inputs)
    return F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )


def gradients(model: Llama, inputs: Tensor, targets: Tensor, pool: ThreadPoolExecutor) -> float:
    """Fill in `.grad` of the batch's mean loss and return that loss.

    The rows are split between threads of one core each. They meet once per step instead of inside
    every product, which is faster at this size, and far faster on a machine that has other work.
    """
    parameters = list(model.parameters())
    counted = int((targets != IGNORE).sum())

    def work(part: tuple[Tensor, Tensor]) -> tuple[float, tuple[Tensor, ...]]:
        torch.set_num_threads(1)
        loss = loss_of(model, *part) / counted
        return loss.item(), torch.autograd.grad(loss, parameters)

    parts = zip(inputs.chunk(THREADS), targets.chunk(THREADS), strict=True)
    results = list(pool.map(work, parts))
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.stack([grads[index] for _, grads in results]).sum(0)
    return sum(loss for loss, _ in results)


def train(documents: list[Document], recipe: Recipe, model: Llama) -> None:
    """Train the model, which is in float32, on the documents."""
    model.train()
    optimizers = make_optimizers(model, recipe.peak_rate)
    size = recipe.tokens_per_batch
    steps = sum(1 for epoch in range(recipe.epochs) for _ in batches(documents, size, epoch, 0))
    count = sum(p.numel() for p in model.parameters())
    print(f"{count:,} parameters, {len(documents):,} documents, {steps:,} steps", flush=True)
    started, seen, step, recent = time.monotonic(), 0, 0, 0.0
    # At these lengths the plain form of attention is the fastest to differentiate.
    with ThreadPoolExecutor(THREADS) as pool, sdpa_kernel(SDPBackend.MATH):
        for epoch in range(recipe.epochs):
            for inputs, targets in batches(documents, size, epoch, 0):
                scale = min((step + 1) / (recipe.warmup * steps), (steps - step) / steps)
                loss = gradients(model, inputs, targets, pool)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for optimizer in optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = recipe.peak_rate * scale
                list(pool.map(lambda optimizer: optimizer.step(), optimizers))
                step, seen = step + 1, seen + inputs.numel()
                recent = loss if step == 1 else 0.97 * recent + 0.03 * loss
                if step % 100 == 0 or step == steps:
                    seconds = time.monotonic() - started
                    print(
                        f"step {step}/{steps}  loss {recent:.4f}  {seconds:.0f} s  "
                        f"{seen / seconds:,.0f} tokens/s",
                        flush=True,
                    )
    model.eval()
