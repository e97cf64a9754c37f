"""What a folder says about generation: where replies end, and the settings its authors recommend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from lolama_core.protocols.checks import is_integer
from lolama_core.protocols.settings import PENALTY_FACTOR, PROBABILITY, TEMPERATURE
from lolama_core.protocols.types import JSON, GenerationBlock
from lolama_hub.folder.fields import LARGEST_INTEGER, Fields
from lolama_hub.folder.files import Folder

# Numbers that transformers and lolama call the same: name of the field, lowest and highest value.
_SAMPLING = {
    "temperature": TEMPERATURE,
    "top_p": PROBABILITY,
    "min_p": PROBABILITY,
    "typical_p": PROBABILITY,
    "repetition_penalty": PENALTY_FACTOR,
}
# Settings that change what is generated and that lolama does not have; ``do_sample`` does not matter to them.
_UNSUPPORTED = (
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
    "num_beams",
    "penalty_alpha",
    "sequence_bias",
    "stop_strings",
    "token_healing",
    "watermarking_config",
)
# Settings that lolama has and transformers does not know: it does not follow them, so lolama does not either.
_UNKNOWN_TO_TRANSFORMERS = (
    "dry_allowed_length",
    "dry_base",
    "dry_multiplier",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "frequency_penalty",
    "ignore_eos",
    "logit_bias",
    "logprobs",
    "presence_penalty",
    "seed",
    "stop",
    "top_n_sigma",
    "xtc_probability",
    "xtc_threshold",
)
_UNSUPPORTED_SAMPLING = ("epsilon_cutoff", "eta_cutoff", "top_h")
_FORBIDDING = ("bad_words_ids", "min_new_tokens", "no_repeat_ngram_size", "suppress_tokens")
# Names of transformers, old ones too, that are not reported. The caller decides how long a text becomes. The
# others make generation faster, say what is returned, or belong to a setting that is reported itself.
_SILENT = (
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "continuous_batching_config",
    "decoder_start_token_id",
    "disable_compile",
    "diversity_penalty",
    "early_stopping",
    "generation_kwargs",
    "is_assistant",
    "length_penalty",
    "low_memory",
    "max_cache_len",
    "max_length",
    "max_matching_ngram_size",
    "max_new_tokens",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "prefill_chunk_size",
    "prompt_lookup_num_tokens",
    "remove_invalid_values",
    "renormalize_logits",
    "return_dict_in_generate",
    "return_legacy_cache",
    "speculation_type",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
    "use_mtp",
)
_KNOWN = {
    "do_sample",
    "eos_token_id",
    "top_k",
    *_SAMPLING,
    *_UNSUPPORTED,
    *_UNKNOWN_TO_TRANSFORMERS,
    *_UNSUPPORTED_SAMPLING,
    *_FORBIDDING,
    *_SILENT,
}
_EMPTY: Mapping[str, JSON] = MappingProxyType({})
_ONE_IS_OFF = ("encoder_repetition_penalty", "guidance_scale", "num_beams")


def read_generation(
    folder: Folder,
    config: Fields,
    *,
    vocab_size: int,
    tokenizer_size: int,
    tokenizer_eos: int | None,
    outer: Mapping[str, JSON] = _EMPTY,
) -> GenerationBlock:
    """The canonical ``generation`` block.

    The end ids are generation_config.json's, else config.json's, else the tokenizer's own; the first two
    as transformers has them. Values that are for sampling alone count only where ``do_sample`` is true:
    without it they are what the file was saved with, not advice. ``repetition_penalty`` and what forbids
    tokens count in any case. Without a generation_config.json the settings are those of config.json, where
    old versions of transformers kept them. Settings that are not followed are named, and so is every name in
    generation_config.json that is no setting at all: it may be misspelled.

    Args:
        folder: The model's folder.
        config: config.json, or the part of it that is of the language model.
        vocab_size: Rows of the model's embedding.
        tokenizer_size: Ids that the tokenizer knows.
        tokenizer_eos: The id of its ``eos_token``.
        outer: All of config.json, if ``config`` is a part of it. What it sets goes before that.

    Raises:
        ModelError: naming the field.
    """
    own = "generation_config.json"
    unknown: list[str] = []
    if folder.find(own) is not None:
        path, values = folder.root / own, folder.json(own)
        unknown = _unknown(values)
    else:
        path, values = config.path, {**config.values, **_without_nulls(outer)}
    generation = Fields(path, values, {"do_sample": False})
    eos_ids = _eos_ids(generation, vocab_size) or _eos_ids(config, vocab_size)
    if not eos_ids and tokenizer_eos is not None:
        eos_ids = [tokenizer_eos]
    block: GenerationBlock = {"eos_ids": eos_ids, "vocab_size": tokenizer_size, "sampling": {}}
    samples = generation.get("do_sample") is not None and generation.boolean("do_sample")
    block["sampling"] = {
        **_sampling(generation, _SAMPLING if samples else ("repetition_penalty",)),
        **_forbidden(generation, vocab_size),
    }
    if samples and generation.get("top_k") is not None:
        block["sampling"]["top_k"] = generation.integer("top_k", low=0)
    missing = unknown + [
        name
        for name in (
            *_UNSUPPORTED,
            *_UNKNOWN_TO_TRANSFORMERS,
            *(_UNSUPPORTED_SAMPLING if samples else ()),
        )
        if generation.get(name) and not (name in _ONE_IS_OFF and generation.get(name) == 1)
    ]
    if missing:
        block["unsupported"] = missing
    return block


def _unknown(values: Mapping[str, JSON]) -> list[str]:
    """The names that are no setting. Transformers keeps names that begin with ``_`` for itself."""
    named = _without_nulls(values).keys() - _KNOWN
    return sorted(name for name in named if not name.startswith("_"))


def _without_nulls(values: Mapping[str, JSON]) -> dict[str, JSON]:
    return {name: value for name, value in values.items() if value is not None}


def _eos_ids(fields: Fields, vocab_size: int) -> list[int]:
    value: JSON = fields.get("eos_token_id")
    if value is None:
        return []
    ids = []
    for number in value if isinstance(value, list) else [value]:
        if not is_integer(number, 0, vocab_size - 1):
            raise fields.refuse("eos_token_id", f"an id below {vocab_size}, or a list of them")
        ids.append(number)
    return sorted(set(ids))


def _sampling(generation: Fields, names: Iterable[str]) -> dict[str, JSON]:
    values: dict[str, JSON] = {}
    for name in names:
        if generation.get(name) is not None:
            low, high = _SAMPLING[name]
            values[name] = generation.number(name, low=low, high=high)
    return values


def _forbidden(generation: Fields, vocab_size: int) -> dict[str, JSON]:
    """Settings that forbid tokens; those that are off are left out, as ``null`` is."""
    values: dict[str, JSON] = {}
    for name in ("no_repeat_ngram_size", "min_new_tokens"):
        if generation.get(name) is not None and (count := generation.integer(name, low=0)):
            values[name] = count
    ids, words = generation.get("suppress_tokens"), generation.get("bad_words_ids")
    # An id past the vocabulary is never chosen anyway; a word with one is a mistake.
    if ids is not None and not _are_ids(ids, LARGEST_INTEGER + 1):
        raise generation.refuse("suppress_tokens", "a list of token ids")
    known = isinstance(words, list) and all(word and _are_ids(word, vocab_size) for word in words)
    if words is not None and not known:
        expected = f"a list of lists of at least one id below {vocab_size}"
        raise generation.refuse("bad_words_ids", expected)
    lists = {"suppress_tokens": ids, "bad_words_ids": words}
    return values | {name: value for name, value in lists.items() if value}


def _are_ids(value: JSON, limit: int) -> bool:
    return isinstance(value, list) and all(is_integer(number, 0, limit - 1) for number in value)
