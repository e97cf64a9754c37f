"""What an answer took and used, as clients of llama.cpp and OpenAI read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lolama_serve.job import Answer, PromptProgress
from lolama_serve.request_timings import Timings


def timings_facts(timings: Timings, cached: int = 0) -> dict[str, Any]:
    """The ``timings`` of llama.cpp: milliseconds and rates. The first token belongs to the prompt."""
    prompt = timings.prompt - cached if timings.first else 0
    prompt_ms, decode_ms = timings.prompt_seconds * 1e3, timings.decode_seconds * 1e3
    steps = max(timings.tokens - 1, 0)
    return {
        "cache_n": cached,
        "prompt_n": prompt,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / prompt if prompt else 0.0,
        "prompt_per_second": 1e3 * prompt / prompt_ms if prompt_ms else 0.0,
        "predicted_n": timings.tokens,
        "predicted_ms": decode_ms,
        "predicted_per_token_ms": decode_ms / steps if steps else 0.0,
        "predicted_per_second": 1e3 * steps / decode_ms if decode_ms else 0.0,
    }


def progress_facts(step: PromptProgress) -> dict[str, Any]:
    """The ``prompt_progress`` of llama.cpp."""
    return {"total": step.total, "cache": step.found, "processed": step.done}


def usage(answers: Sequence[Answer], n: int = 1) -> dict[str, Any]:
    """The ``usage`` of OpenAI: tokens of prompts and answers, those that end a text included.

    Args:
        answers: All answers to a request, in order.
        n: How many there are to each prompt, which counts once.
    """
    prompt = sum(answer.timings.prompt for answer in answers[::n])
    made = sum(answer.timings.tokens for answer in answers)
    cached = sum(answer.result.cached_tokens for answer in answers[::n])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
