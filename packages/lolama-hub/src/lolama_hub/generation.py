"""What a folder says about generation: where replies end, and the sampling its authors recommend."""

from __future__ import annotations

from collections.abc import Iterable

from lolama_core.protocols.checkpoint import CheckpointIO
from lolama_core.protocols.types import JSON, GenerationBlock
from lolama_hub.fields import Fields
from lolama_hub.folder import Folder

# Name of the field, lowest and highest value that means something.
_SAMPLING = {
    "temperature": (0.0, 1e6),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "repetition_penalty": (1e-6, 1e6),
}
# Settings that change what is generated and that lolama does not have; ``do_sample`` does not matter to them.
# How long a text becomes is left to the caller; what only makes generation faster, or says what is returned,
# changes no text.
_UNSUPPORTED = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "constraints",
    "dola_layers",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "exponential_decay_length_penalty",
    "force_words_ids",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "max_time",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "num_beams",
    "penalty_alpha",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
    "token_healing",
    "watermarking_config",
)
_UNSUPPORTED_SAMPLING = ("epsilon_cutoff", "eta_cutoff", "top_h")
_ONE_IS_OFF = ("encoder_repetition_penalty", "guidance_scale", "num_beams")


def read_generation(
    folder: Folder,
    config: Fields,
    *,
    vocab_size: int,
    tokenizer_size: int,
    tokenizer_eos: int | None,
    io: CheckpointIO,
) -> GenerationBlock:
    """The canonical ``generation`` block.

    The end ids are generation_config.json's, else config.json's, else the tokenizer's own; the first two
    as transformers has them. Values that are for sampling alone count only where ``do_sample`` is true:
    without it they are what the file was saved with, not advice. ``repetition_penalty`` counts in any
    case. Settings that lolama does not have are named.

    Args:
        folder: The model's folder.
        config: config.json.
        vocab_size: Rows of the model's embedding.
        tokenizer_size: Ids that the tokenizer knows.
        tokenizer_eos: The id of its ``eos_token``.
        io: Reader of untrusted files.

    Raises:
        ModelError: naming the field.
    """
    path = folder.find("generation_config.json")
    generation = Fields(
        folder.root / "generation_config.json",
        io.read_json(path) if path is not None else {},
        {"do_sample": False},
    )
    eos_ids = _eos_ids(generation, vocab_size) or _eos_ids(config, vocab_size)
    if not eos_ids and tokenizer_eos is not None:
        eos_ids = [tokenizer_eos]
    block: GenerationBlock = {"eos_ids": eos_ids, "vocab_size": tokenizer_size, "sampling": {}}
    samples = generation.get("do_sample") is not None and generation.boolean("do_sample")
    block["sampling"] = _sampling(generation, _SAMPLING if samples else ("repetition_penalty",))
    if samples and generation.get("top_k") is not None:
        block["sampling"]["top_k"] = generation.integer("top_k", low=0)
    missing = [
        name
        for name in (*_UNSUPPORTED, *(_UNSUPPORTED_SAMPLING if samples else ()))
        if generation.get(name) and not (name in _ONE_IS_OFF and generation.get(name) == 1)
    ]
    if missing:
        block["unsupported"] = missing
    return block


def _eos_ids(fields: Fields, vocab_size: int) -> list[int]:
    value: JSON = fields.get("eos_token_id")
    if value is None:
        return []
    ids = []
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < vocab_size:
            raise fields.refuse("eos_token_id", f"an id below {vocab_size}, or a list of them")
        ids.append(number)
    return sorted(set(ids))


def _sampling(generation: Fields, names: Iterable[str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name in names:
        if generation.get(name) is not None:
            low, high = _SAMPLING[name]
            values[name] = generation.number(name, low=low, high=high)
    return values
