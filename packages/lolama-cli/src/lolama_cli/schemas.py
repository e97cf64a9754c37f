"""What ``--json`` writes: a name and version for each kind of object, and what its fields mean.

Within a version fields may be added; none goes, or changes its type or meaning. docs/json.md is made of this.
"""

from __future__ import annotations

from collections.abc import Mapping

from lolama_cli.schema_writer import Schema
from lolama_cli.settings import SETTINGS, option_of

_COUNT, _SECONDS, _TEXT = "integer", "number", "string"

_ANSWER = {
    "text": (_TEXT, "the new text"),
    "thinking": (
        "string or null",
        "what the model thought before it, apart from it; null: nothing",
    ),
    "ids": ("list of integers", "its tokens, after those of the thought, without the end token"),
    "finish_reason": (
        _TEXT,
        "eos: the model ended it; stop: a stop text came; length: there was no room",
    ),
    "context_full": ("boolean", "with length: the model's context was full before max_tokens"),
    "prompt_tokens": (_COUNT, "positions of the prompt, pictures included"),
    "cached_tokens": (_COUNT, "those that were run before: for a prompt cache, or another prompt"),
    "drafted_tokens": (
        _COUNT,
        "tokens that were tried ahead of their turn; it may depend on how fast the machine is",
    ),
    "accepted_tokens": (_COUNT, "those of them that were right"),
    "seed": (_COUNT, "what sampling began with; --seed with it repeats the choices"),
    "logprobs": ("list or null", "with --logprobs, an object for each of ids"),
    "logprobs[].id": (_COUNT, "the token"),
    "logprobs[].text": (_TEXT, "its text by itself"),
    "logprobs[].logprob": (
        "number or null",
        "natural logarithm of its probability as the model gives it, before any setting; null: −∞",
    ),
    "logprobs[].best": ("list", "the N most probable tokens at this place"),
    "logprobs[].best[].id": (_COUNT, "as above"),
    "logprobs[].best[].text": (_TEXT, "as above"),
    "logprobs[].best[].logprob": ("number or null", "as above"),
}

GENERATE = Schema(
    "generate",
    "`lolama generate --json`",
    {
        "model": (_TEXT, "as it was named"),
        **_ANSWER,
        "settings": ("object", "what was in force; [settings.md](settings.md) lists its keys"),
        **{
            f"settings.{key}": (row.kind, option_of(key))
            for key, row in SETTINGS.items()
            if key != "seed"
        },
        "settings.logit_bias.*": ("number", "for each token id"),
        "device": (_TEXT, "where it ran"),
        "dtype": (_TEXT, "how the weights were stored"),
        "timings": ("object", "seconds, of the clock on the wall"),
        "timings.load": (_SECONDS, "loading the weights"),
        "timings.first_text": ("number or null", "from the prompt to the first text; null: none"),
        "timings.total": (_SECONDS, "from the prompt to the end"),
        "timings.tokens_per_second": ("number or null", "after the first text; null: too few"),
    },
)

BATCH = Schema(
    "batch",
    "each line of `lolama generate --batch`; [batch.md](batch.md) says what is read",
    {
        "line": (_COUNT, "where its prompt stands in the input; the first is 1"),
        "id": ("anything", "the `id` of the input's line, if it has one"),
        "key": (
            _TEXT,
            "hash of prompt, pictures, settings and model; a run that goes on compares it",
        ),
        **_ANSWER,
        "error": ("object", "in the place of the answer, if there is none"),
        "error.message": (_TEXT, "what, why, and what to do"),
        "error.exit_code": (_COUNT, "what the command would have ended with for this prompt alone"),
    },
)

MODELS = Schema(
    "models",
    "`lolama models --json`",
    {
        "models": ("list", "every name, other downloads, folders of kept quantized models"),
        "models[].name": (_TEXT, "what -m takes"),
        "models[].repo": (
            "string or null",
            "Hugging Face id, maybe with @revision; null: built in",
        ),
        "models[].parameters": ("string or null", "about how many"),
        "models[].kind": ("string or null", "text or vision"),
        "models[].description": (_TEXT, "in a few words"),
        "models[].license": ("string or null", "as far as it is known here"),
        "models[].gated": ("boolean", "whether a license must be agreed to first"),
        "models[].download_bytes": ("integer or null", "about what a download takes"),
        "models[].context": ("integer or null", "tokens that it attends over"),
        "models[].stored": ("object or null", "what is here of it"),
        "models[].stored.bytes": (_COUNT, "on the disk"),
        "models[].stored.shared": ("boolean", "true: in Hugging Face's own cache, read only"),
        "models[].stored.complete": ("boolean", "false: a download was interrupted"),
        "models[].stored.revision": (_TEXT, "the commit"),
        "models[].stored.last_used": (_TEXT, "date and time, ISO 8601, UTC"),
        "models[].int8_bytes": ("integer or null", "of kept models that --quantize made of it"),
    },
)

_DIRECTORY = {
    "model": (_TEXT, "as it was named"),
    "directory": (_TEXT, "the folder, or the .gguf file, that holds it"),
}
PULL = Schema("pull", "`lolama pull --json`", _DIRECTORY)
CONVERT = Schema("convert", "`lolama convert --json`", _DIRECTORY)

_FREED = {"freed_bytes": (_COUNT, "of the disk")}
RM = Schema("rm", "`lolama rm --json`", {"model": (_TEXT, "as it was named"), **_FREED})
GC = Schema("gc", "`lolama gc --json`", _FREED)

CONFIG = Schema(
    "config",
    "`lolama config ... --json`",
    {
        "path": (_TEXT, "the file"),
        "settings": ("object", "key → the default in force"),
        "settings.*.value": ("anything", "null: none"),
        "settings.*.from": (_TEXT, "program, file, or the name of an environment variable"),
    },
)

_KERNELS = {
    "name": (_TEXT, "how reports call it"),
    "package": (_TEXT, "the distribution it comes from"),
    "description": ("string or null", "what it runs on here, or why it does not"),
    "problem": ("string or null", "why it could not be asked"),
}


def _each(path: str, fields: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    return {f"{path}[].{name}": about for name, about in fields.items()}


DOCTOR = Schema(
    "doctor",
    "`lolama doctor --json`",
    {
        "versions.*": ("string or null", "of lolama's distributions, torch, Python, the platform"),
        "devices": ("list", "usable or not"),
        "devices[].name": (_TEXT, "as --device takes it"),
        "devices[].problem": ("string or null", "why it cannot be used here"),
        "devices[].processor": ("string or null", "its model"),
        "devices[].instruction_set": ("string or null", "the best one that torch uses"),
        "devices[].cores": ("integer or null", "logical ones"),
        "devices[].threads": ("integer or null", "how many of them torch uses"),
        "devices[].memory_bytes": ("integer or null", "all of it"),
        "devices[].free_memory_bytes": ("integer or null", "what can be allocated"),
        "devices[].native_bfloat16": ("boolean or null", "of a GPU"),
        "device": ("string or null", "what --device auto means here"),
        "dtypes.*": (_TEXT, "dtype that weights are stored in → the one they get"),
        "linear_kernels": ("list", "products of few rows"),
        **_each("linear_kernels", _KERNELS),
        "decoder_kernels": ("list", "whole decoding steps"),
        **_each("decoder_kernels", _KERNELS),
        "quantizers": ("list", "products of quantized weights"),
        **_each("quantizers", _KERNELS),
        "models": ("list", "built in"),
        "models[].name": (_TEXT, "what -m takes"),
        "models[].package": (_TEXT, "the distribution it comes from"),
        "broken": ("list", "installed, but cannot be loaded"),
        "broken[].kind": (_TEXT, "group of its entry point, or library"),
        "broken[].name": (_TEXT, "what"),
        "broken[].package": (_TEXT, "the distribution it comes from"),
        "broken[].problem": (_TEXT, "why"),
    },
)

_DISTANCE = {
    "mean_kl": ("number", "KL divergence of the predictions, nats"),
    "median_kl": ("number", "its median"),
    "p90_kl": ("number", "its 90th percentile"),
    "p99_kl": ("number", "its 99th percentile"),
    "top1_agreement": ("number", "share of places with the same best token, 0 to 1"),
}
_QUALITY = {
    "schema": (_TEXT, "lolama.quality/1"),
    "tokens": (_COUNT, "places compared"),
    "reference_perplexity": ("number", "before quantizing"),
    "perplexity": ("number", "after"),
    **{f"quantized.{name}": about for name, about in _DISTANCE.items()},
    **{
        f"noise_floor.{name}": (kind, f"{about}, of the reference summed in another order")
        for name, (kind, about) in _DISTANCE.items()
    },
}

QUANTIZE = Schema(
    "quantize",
    "`lolama quantize --json`",
    {
        "directory": (_TEXT, "where the quantized model is"),
        "bits": (_COUNT, "of a weight: 8 or 4"),
        "replaced": ("list of strings", "layers that are quantized"),
        "source_bytes": (_COUNT, "of all tensors before"),
        "bytes": (_COUNT, "and after"),
        "quality": ("object or null", "with --report"),
        **{f"quality.{name}": about for name, about in _QUALITY.items()},
    },
)

_SPREAD = {
    "median": ("number", "of the runs"),
    "low": ("number", "the lowest"),
    "high": ("number", "the highest"),
}

BENCH = Schema(
    "bench",
    "`lolama bench --json`",
    {
        "model": (_TEXT, "as it was named"),
        "device": (_TEXT, "where it ran"),
        "dtype": (_TEXT, "what weights that are not quantized were"),
        "quantized": ("boolean", "whether linears were quantized"),
        "quantization": ("string or null", "how: int8, int4 or gguf"),
        "load_seconds": (_SECONDS, "loading the weights"),
        "prompt_tokens": (_COUNT, "length of the prompt"),
        "new_tokens": (_COUNT, "generated in each run"),
        "first_token_seconds": ("object", "from the prompt to the first new token"),
        **{f"first_token_seconds.{name}": about for name, about in _SPREAD.items()},
        "prefill_tokens_per_second": ("object", "tokens of the prompt by that time"),
        **{f"prefill_tokens_per_second.{name}": about for name, about in _SPREAD.items()},
        "decode_tokens_per_second": ("object or null", "new tokens after the first; null: none"),
        **{f"decode_tokens_per_second.{name}": about for name, about in _SPREAD.items()},
        "runs": ("list", "in order, without the one that warmed up"),
        "runs[].first_token": (_SECONDS, "to the first new token"),
        "runs[].rest": (_SECONDS, "from there to the last"),
    },
)

EVAL = Schema(
    "eval",
    "`lolama eval --json`",
    {
        "model": (_TEXT, "as it was named"),
        "text": ("string or null", "the file; null: the stories that ship with lolama"),
        "device": (_TEXT, "where it ran"),
        "dtype": (_TEXT, "what weights that are not quantized were"),
        "quantization": ("string or null", "of the model as it is: int8, int4 or gguf"),
        "tokens": (_COUNT, "of the text"),
        "window": (_COUNT, "tokens of the pieces in which it was read"),
        "perplexity": ("number", "of the model as it is"),
        "seconds": (_SECONDS, "of reading, without loading"),
        "bits": ("integer or null", "with --quantize: 8 or 4"),
        "quality": ("object or null", "with --quantize: in fewer bits, beside the model as it is"),
        **{f"quality.{name}": about for name, about in _QUALITY.items()},
    },
)

INFO = Schema(
    "info",
    "`lolama info --json`",
    {
        "name": (_TEXT, "as it was named"),
        "downloaded": ("boolean", "whether it can be used without a download"),
        "repo": ("string or null", "Hugging Face id"),
        "revision": ("string or null", "the commit"),
        "family": ("string or null", "what builds it; null like much below: not downloaded"),
        "parameters": ("integer or null", "how many"),
        "about": ("string or null", "in a few words"),
        "size": ("string or null", "about how many parameters, of a model that has a name"),
        "download_bytes": ("integer or null", "about what a download takes, if it is not here"),
        "shape.*": ("anything", "sizes of the language model, by the names of LlamaConfig"),
        "context_length": ("integer or null", "tokens it attends over"),
        "chat_template": ("boolean or null", "whether it has one"),
        "dtype": ("string or null", "how the weights are stored"),
        "quantization": ("string or null", "scheme, if they are quantized"),
        "license": ("string or null", "as far as it is known here"),
        "files": ("list", "of weights and tokenizer; not downloaded: what would be"),
        "files[].name": (_TEXT, "path, or name on the hub"),
        "files[].bytes": (_COUNT, "its size"),
        "device": ("string or null", "where it would run"),
        "available_bytes": ("integer or null", "memory there; null: the system does not tell"),
        "memory": ("list", "what one generation needs at its peak"),
        "memory[].weights": (_TEXT, "dtype they are loaded as, int8 or int4"),
        "memory[].context": (_COUNT, "tokens, the answer's included"),
        "memory[].bytes": (_COUNT, "on a CPU beside what Python and torch take"),
        "memory[].fits": ("boolean or null", "whether that is available"),
    },
)

ALL: tuple[Schema, ...] = (
    *(GENERATE, BATCH, MODELS, INFO, PULL, RM, GC, CONVERT, QUANTIZE, BENCH, EVAL, DOCTOR, CONFIG),
)
