"""Wrong names of settings: what other libraries call them, and what was meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from lolama_core.protocols.errors import UsageError

# Names of transformers, vLLM, llama.cpp, ollama and OpenAI, which users type from habit.
NAMES_ELSEWHERE = {
    "bad_words": "bad_words_ids, of token ids",
    "begin_suppress_tokens": "a function of yours in logits_processors",
    "do_sample": "temperature=0 for False, and a temperature above 0 for True",
    "dry_range": "dry_penalty_last_n",
    "dry_sequence_breaker": "dry_sequence_breakers",
    "early_stopping": "max_new_tokens and stop",
    "eos_token_id": "ignore_eos=True for None; end tokens are the model's own",
    "generation_config": "config",
    "images": "pixel_values, from the model's image processor",
    "logits_processor": "logits_processors",
    "logits_processors": "an argument of generate, beside its config",
    "manual_seed": "seed",
    "max_completion_tokens": "max_new_tokens",
    "max_length": "max_new_tokens, which counts new tokens alone",
    "max_tokens": "max_new_tokens",
    "min_length": "min_new_tokens, which counts new tokens alone",
    "min_tokens": "min_new_tokens",
    "n": "generate_batch([prompt], n=n)",
    "n_predict": "max_new_tokens",
    "num_beams": "one beam always",
    "num_predict": "max_new_tokens",
    "num_return_sequences": "generate_batch([prompt], n=n)",
    "pad_token_id": "left out, since rows are never padded",
    "random_seed": "seed",
    "repeat_penalty": "repetition_penalty",
    "sampling_params": "config",
    "stop_sequences": "stop",
    "stop_strings": "stop, which is no part of the text",
    "stopping_criteria": "generate_stream, which may be left at any token",
    "stream": "generate_stream",
    "streamer": "generate_stream",
    "temp": "temperature",
    "top_nsigma": "top_n_sigma",
    "typical": "typical_p",
}


def check_names(names: Iterable[str], known: Collection[str]) -> None:
    """Refuse the first of ``names`` that is not ``known``.

    Raises:
        UsageError: with lolama's name if it is another library's, else with the one that was meant.
    """
    for name in names:
        if name not in known:
            if name in NAMES_ELSEWHERE:
                remedy = f"here it is {NAMES_ELSEWHERE[name]}"
            else:
                close = get_close_matches(name, known, n=1)
                remedy = f"did you mean {close[0]}? " if close else ""
                remedy += "known are " + ", ".join(sorted(known))
            raise UsageError(name, "is not a generation setting", remedy)
