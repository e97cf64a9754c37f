"""What ``--json`` writes: a name and version for each kind of object, and what its fields mean.

Within a version fields may be added; none goes, or changes its type or meaning. docs/json.md is made of this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from lolama_cli.console import Output


@dataclass(frozen=True)
class Schema:
    """One kind of object.

    Attributes:
        name: What it is; ``lolama.name/version`` stands in its ``schema`` field.
        about: When it is written.
        fields: Path → type and meaning. ``a.b`` is a field of an object, ``a[].b`` of the objects in a list,
            ``a.*`` any other key.
    """

    name: str
    about: str
    fields: Mapping[str, tuple[str, str]]
    version: int = 1

    @property
    def id(self) -> str:
        """What the ``schema`` field says."""
        return f"lolama.{self.name}/{self.version}"

    def named(self, facts: Mapping[str, object]) -> dict[str, object]:
        """``facts`` with the ``schema`` field in front."""
        return {"schema": self.id, **facts}

    def write(self, output: Output, facts: Mapping[str, object]) -> None:
        """Write one object: on a terminal spread out for people to read, else on one line."""
        indent = 2 if output.is_terminal else None
        text = json.dumps(self.named(facts), indent=indent, ensure_ascii=False, allow_nan=False)
        output.write(text + "\n")

    def line(self, facts: Mapping[str, object]) -> str:
        """One object on one line."""
        return json.dumps(self.named(facts), ensure_ascii=False, allow_nan=False) + "\n"


_COUNT, _SECONDS, _TEXT = "integer", "number", "string"

_ANSWER = {
    "text": (_TEXT, "the new text"),
    "ids": ("list of integers", "its tokens, without the end token"),
    "finish_reason": (
        _TEXT,
        "eos: the model ended it; stop: a stop text came; length: there was no room",
    ),
    "context_full": ("boolean", "with length: the model's context was full before max_tokens"),
    "prompt_tokens": (_COUNT, "positions of the prompt, pictures included"),
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
        "settings": ("object", "what was in force"),
        "settings.max_tokens": (_COUNT, "--max-tokens"),
        "settings.temperature": ("number", "--temperature"),
        "settings.top_p": ("number", "--top-p"),
        "settings.top_k": (_COUNT, "--top-k"),
        "settings.min_p": ("number", "--min-p"),
        "settings.repetition_penalty": ("number", "--repetition-penalty"),
        "settings.stop": ("list of strings", "--stop"),
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
    "each line of `lolama generate --batch`",
    {
        "line": (_COUNT, "where its prompt stands in the input; the first is 1"),
        "id": ("anything", "the `id` of the input's line, if it has one"),
        "key": (_TEXT, "hash of prompt, settings and model; a run that goes on compares it"),
        **_ANSWER,
        "error": ("object", "in the place of the answer, if there is none"),
        "error.message": (_TEXT, "what, why, and what to do"),
        "error.exit_code": (_COUNT, "what the command would have ended with for this prompt alone"),
    },
)

ALL: tuple[Schema, ...] = (GENERATE, BATCH)
