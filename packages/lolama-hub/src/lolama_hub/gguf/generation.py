"""What a GGUF file says about generation: the settings that its authors recommend."""

from __future__ import annotations

from lolama_core.protocols.checkpoint import GGUFValue
from lolama_core.protocols.checks import is_number
from lolama_core.protocols.settings import PENALTY_FACTOR, PROBABILITY, TEMPERATURE
from lolama_core.protocols.types import JSON, GenerationBlock
from lolama_hub.folder.fields import LARGEST_INTEGER
from lolama_hub.gguf.metadata import GGUFModel

_SAMPLING = {
    "temp": ("temperature", TEMPERATURE),
    "top_p": ("top_p", PROBABILITY),
    "min_p": ("min_p", PROBABILITY),
    "penalty_repeat": ("repetition_penalty", PENALTY_FACTOR),
    "xtc_probability": ("xtc_probability", PROBABILITY),
    "xtc_threshold": ("xtc_threshold", PROBABILITY),
}
"""Key of ``general.sampling`` → lolama's name, lowest and highest value."""

# They come to nothing with these values.
_UNSUPPORTED = {"mirostat": 0, "penalty_last_n": 0, "sequence": ""}


def read_generation(model: GGUFModel, tokenizer_size: int, eos_ids: list[int]) -> GenerationBlock:
    """The canonical ``generation`` block.

    Args:
        model: What the files say.
        tokenizer_size: Ids that the tokenizer knows.
        eos_ids: Those that end a reply.

    Raises:
        ModelError: naming the key.
    """
    found = model.general("general.sampling")
    sampling: dict[str, JSON] = {
        ours: found.number(theirs, low=low, high=high)
        for theirs, (ours, (low, high)) in _SAMPLING.items()
        if found.get(theirs) is not None
    }
    if found.get("top_k") is not None:
        sampling["top_k"] = found.integer("top_k", low=0)
    block: GenerationBlock = {
        "eos_ids": eos_ids,
        "vocab_size": tokenizer_size,
        "sampling": sampling,
    }
    missing = [name for name, off in _UNSUPPORTED.items() if found.get(name) not in (None, off)]
    if "repetition_penalty" not in sampling:
        missing = [name for name in missing if name != "penalty_last_n"]
    if missing:
        block["unsupported"] = missing
    return block


def sampling_metadata(block: GenerationBlock) -> tuple[dict[str, GGUFValue], list[str]]:
    """What a file says of the recommended settings, and the names of those that it has no place for."""
    keys = {ours: (theirs, limits) for theirs, (ours, limits) in _SAMPLING.items()}
    keys["top_k"] = ("top_k", (0, LARGEST_INTEGER))
    found: dict[str, GGUFValue] = {}
    left_out: list[str] = []
    for name, value in block.get("sampling", {}).items():
        key, (low, high) = keys.get(name, ("", (0, 0)))
        if key and is_number(value) and low <= value <= high:
            found[f"general.sampling.{key}"] = value
        else:
            left_out.append(name)
    return found, left_out
