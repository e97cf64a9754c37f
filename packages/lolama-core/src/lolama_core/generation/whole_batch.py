"""Several prompts together, all to their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lolama_core.generation.batch_generator import BatchGenerator
from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.generation.request import Generation
from lolama_core.generation.request_factory import TextOrIds
from lolama_core.protocols import CausalLM, LogitsProcessor, Tokenizer
from lolama_core.protocols.arguments import listed
from lolama_core.protocols.errors import UsageError

_MOST_ROWS = 64


def generate_batch(
    model: CausalLM,
    tokenizer: Tokenizer | None,
    prompts: Sequence[TextOrIds],
    config: GenerationConfig | Sequence[GenerationConfig] | None,
    logits_processors: Sequence[LogitsProcessor],
    settings: Mapping[str, Any],
) -> list[Generation[str | None]]:
    """See `TextGenerator.generate_batch`."""
    if isinstance(prompts, str):
        raise UsageError("prompts", "is one text", "give a list of prompts, or use generate")
    prompts = listed("prompts", prompts, "give a list of prompts")
    if not prompts:
        return []
    configs = config if isinstance(config, Sequence) else [config] * len(prompts)
    if len(configs) != len(prompts):
        raise UsageError("config", f"{len(configs)} configs for {len(prompts)} prompts", "")
    batch = BatchGenerator(model, tokenizer, rows=min(len(prompts), _MOST_ROWS))
    tickets = batch.submit_all(prompts, configs, logits_processors, settings)
    results: dict[int, Generation[str | None]] = {}
    while True:
        for ticket, result in batch.collect().items():
            if not isinstance(result, Generation):
                raise result
            results[ticket] = result
        if not batch.busy:
            return [results[ticket] for ticket in tickets]
        batch.step()
