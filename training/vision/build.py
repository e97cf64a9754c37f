"""Rebuild the built-in model `demo-vision`, from nothing, in one command:

    python -m training.vision.build

Run it in the root of the repository, in an environment with lolama-core and lolama-vision installed. The
first rounds take two CPU cores some hours; with ``--seconds`` they stop after a while and go on at the next
call. The last one takes a GPU some minutes. Where there is none, what the rounds before give is written, for

    python -m training.vision.build --after CHECKPOINT

on a machine that has one (``--device cpu`` would do it, in many hours). Everything is seeded; the weights may
still differ in their last bits between processors and versions of torch. Measure the result with
`python -m training.vision.evaluate`.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer

from lolama_core import write_checkpoint
from lolama_core.protocols.types import CanonicalConfig
from lolama_vision import LLaVA

from ..text.tokenizer import control_id
from .last_round import last_round
from .model import Trainee, fresh_model, load_weights
from .recipe import LAST, ROUNDS
from .tokenizer import BOS, CHAT_TEMPLATE, EOS, IMAGE, train_tokenizer
from .train import train

ROOT = Path(__file__).parents[2]
DESTINATION = ROOT / "packages/lolama-vision/src/lolama_vision/demo_vision"


def canonical_config(model: LLaVA, tokenizer: Tokenizer) -> CanonicalConfig:
    """What `config.json` says of the model."""
    return {
        "format": "lolama",
        "format_version": 1,
        "family": "llava",
        "model": model.config.to_json(),
        "dtype": "bfloat16",
        "generation": {
            "eos_ids": [control_id(tokenizer, EOS)],
            "vocab_size": tokenizer.get_vocab_size(),
            # There is one right description of what it sees.
            "sampling": {"temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.0},
        },
        "tokenizer": {"bos_token": BOS, "eos_token": EOS},
    }


def save(model: LLaVA, tokenizer: Tokenizer, destination: Path) -> None:
    """Write the checkpoint in the place of what is there."""
    tensors = [
        (name, tensor.detach().to(torch.bfloat16).contiguous())
        for name, tensor in model.state_dict().items()
        if name != "language_model.lm_head.weight"  # Tied to the embeddings.
    ]
    write_checkpoint(
        destination,
        canonical_config(model, tokenizer),
        tensors,
        tokenizer_json=tokenizer.to_str(),
        chat_template=CHAT_TEMPLATE,
        replace=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Rebuild the built-in model `demo-vision`.")
    parser.add_argument("--output", type=Path, default=DESTINATION, help="checkpoint directory")
    parser.add_argument(
        "--state",
        type=Path,
        default=ROOT / ".demo-vision.state",
        help="where an unfinished training is kept",
    )
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="stop after that, to go on later"
    )
    parser.add_argument(
        "--after", type=Path, help="checkpoint of all rounds but the last, which alone is trained"
    )
    parser.add_argument("--device", help="of the last round: cuda or cpu (default: cuda if there)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes that make its batches"
    )
    options = parser.parse_args(arguments)
    tokenizer = train_tokenizer()
    model = fresh_model(control_id(tokenizer, IMAGE))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count:,} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    before: Path = options.after or options.output
    if options.after is None:
        trainee = Trainee(model)
        seconds = options.seconds
        if not train(trainee, tokenizer, ROUNDS, options.state, seconds=seconds, report=_print):
            print("not done yet: run it again to go on", flush=True)
            return
        save(model, tokenizer, before)
        options.state.unlink()
    if options.device is None and not torch.cuda.is_available():
        print(f"{before} is without its last round: run --after {before} with a GPU", flush=True)
        return
    load_weights(model, before)
    device = torch.device(options.device or "cuda")
    last_round(model, before, LAST, device=device, workers=options.workers, report=_print)
    save(model, tokenizer, options.output)
    print(f"wrote {options.output}", flush=True)


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
