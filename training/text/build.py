"""Rebuild the built-in model `demo`, from nothing, in one command:

    python -m training.text.build

Run it in the root of the repository, in an environment with lolama-core installed. On two CPU cores
it takes about an hour and a half. Everything is seeded; the weights may still differ in their last bits
between processors and versions of torch. Measure the result with `python -m training.text.evaluate`.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer

from lolama_core import FileCheckpoint, Llama, load_into, open_checkpoint, write_checkpoint
from lolama_core.protocols.types import CanonicalConfig

from .corpus import build_corpus, tokenizer_texts
from .tokenizer import BOS, CHAT_TEMPLATE, EOS, control_id, train_tokenizer
from .train import CONFIG, ROUNDS, fresh_model, train

DESTINATION = Path(__file__).parents[2] / "packages/lolama-core/src/lolama_core/demo"


def canonical_config(model: Llama, tokenizer: Tokenizer) -> CanonicalConfig:
    """What `config.json` says of the model."""
    return {
        "format": "lolama",
        "format_version": 1,
        "family": "llama",
        "model": {
            key: value
            for key, value in dataclasses.asdict(model.config).items()
            if value is not None
        },
        "dtype": "bfloat16",
        "generation": {
            "eos_ids": [control_id(tokenizer, EOS)],
            "vocab_size": tokenizer.get_vocab_size(),
            # So small a model needs its own words again and again: no repetition penalty.
            "sampling": {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.0},
        },
        "tokenizer": {"bos_token": BOS, "eos_token": EOS},
    }


def save(model: Llama, tokenizer: Tokenizer, destination: Path) -> None:
    """Write the checkpoint in the place of what is there."""
    tensors = [
        (name, tensor.detach().to(torch.bfloat16).contiguous())
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # Tied to the embeddings.
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
    parser = argparse.ArgumentParser(description="Rebuild the built-in model `demo`.")
    parser.add_argument("--output", type=Path, default=DESTINATION, help="checkpoint directory")
    parser.add_argument(
        "--from-round",
        type=int,
        choices=range(1, len(ROUNDS) + 1),
        default=1,
        help="go on with the checkpoint that the round before has left in --output",
    )
    options = parser.parse_args(arguments)
    started = time.monotonic()
    model = fresh_model()
    if options.from_round > 1:
        tokenizer = Tokenizer.from_file(str(options.output / "tokenizer.json"))
        load_into(model, FileCheckpoint(open_checkpoint(options.output)), torch.float32)
    else:
        tokenizer = train_tokenizer(tokenizer_texts(ROUNDS[0].seed))
    for recipe in ROUNDS[options.from_round - 1 :]:
        documents = build_corpus(
            tokenizer, recipe.stories, recipe.dialogues, recipe.seed, CONFIG.max_seq_len
        )
        tokens = sum(len(document.ids) for document in documents)
        print(f"{tokens:,} tokens, {time.monotonic() - started:.0f} s", flush=True)
        train(documents, recipe, model)
        save(model, tokenizer, options.output)
        print(f"wrote {options.output} after {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
