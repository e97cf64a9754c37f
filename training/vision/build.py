"""Rebuild the built-in model `demo-vision`, from nothing, in one command:

    python -m training.vision.build

Run it in the root of the repository, in an environment with lolama-core and lolama-vision installed.
Everything is seeded; the weights may still differ in their last bits between processors and versions of
torch. With ``--seconds`` it stops after a while and goes on at the next call. Measure the result with
`python -m training.vision.evaluate`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer

from lolama_core import FileCheckpoint, load_into, open_checkpoint, write_checkpoint
from lolama_core.protocols.types import CanonicalConfig
from lolama_vision import LLaVA

from ..text.tokenizer import control_id
from .tokenizer import BOS, CHAT_TEMPLATE, EOS, IMAGE, train_tokenizer
from .train import ROUNDS, fresh_model, train

ROOT = Path(__file__).parents[2]
DESTINATION = ROOT / "packages/lolama-vision/src/lolama_vision/demo_vision"


def canonical_config(model: LLaVA, tokenizer: Tokenizer) -> CanonicalConfig:
    """What `config.json` says of the model."""
    return {
        "format": "lolama",
        "format_version": 1,
        "family": "llava",
        "model": model._vlm_config.to_json(),
        "dtype": "bfloat16",
        "generation": {
            "eos_ids": [control_id(tokenizer, EOS)],
            "vocab_size": tokenizer.get_vocab_size(),
            # Of what it sees there is one right description.
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
        "--from-round",
        type=int,
        choices=range(1, len(ROUNDS) + 1),
        default=1,
        help="go on with the checkpoint that the round before has left in --output",
    )
    options = parser.parse_args(arguments)
    started = time.monotonic()
    tokenizer = train_tokenizer()
    model = fresh_model(control_id(tokenizer, IMAGE))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count:,} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    if options.from_round > 1:
        load_into(model, FileCheckpoint(open_checkpoint(options.output)), torch.float32)
    for number, recipe in enumerate(ROUNDS[options.from_round - 1 :], options.from_round):
        done_before = options.state.with_suffix(f".{number}.done")
        if done_before.exists():
            load_into(model, FileCheckpoint(open_checkpoint(options.output)), torch.float32)
            continue
        state = options.state.with_suffix(f".{number}")
        left = options.seconds - (time.monotonic() - started)
        if not train(model, tokenizer, recipe, state, seconds=left, report=_print):
            print("not done yet: run it again to go on", flush=True)
            return
        save(model, tokenizer, options.output)
        done_before.touch()
        state.unlink()
        print(f"round {number}: wrote {options.output}", flush=True)
    for number in range(1, len(ROUNDS) + 1):
        options.state.with_suffix(f".{number}.done").unlink(missing_ok=True)


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
