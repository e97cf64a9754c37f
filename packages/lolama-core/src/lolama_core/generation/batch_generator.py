"""Many prompts at once, as ids: what an `Engine` is without texts and log-probabilities."""

from __future__ import annotations

from typing import Unpack, overload

from lolama_core.generation.engine import Engine
from lolama_core.generation.engine_options import EngineOptions
from lolama_core.protocols import CausalLM, Tokenizer
from lolama_core.protocols.generation import Text


class BatchGenerator(Engine[Text]):
    """An `Engine` whose step gives ids alone. It runs 512 positions of prompts in a step, if nobody says.

    They take the time that they take, so no text depends on how fast the machine is.

    Example:
        >>> batch = BatchGenerator(model, tokenizer)
        >>> tickets = [batch.submit(text, max_new_tokens=20) for text in texts]
        >>> while batch.busy:
        ...     batch.step()
        >>> results = batch.collect()
    """

    default_chunk = 512

    # An inherited constructor does not tell type checkers what the text of results is.
    @overload
    def __init__(
        self: BatchGenerator[None], model: CausalLM, **options: Unpack[EngineOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: BatchGenerator[str],
        model: CausalLM,
        tokenizer: Tokenizer,
        **options: Unpack[EngineOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: BatchGenerator[str | None],
        model: CausalLM,
        tokenizer: Tokenizer | None,
        **options: Unpack[EngineOptions],
    ) -> None: ...
    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer | None = None,
        **options: Unpack[EngineOptions],
    ) -> None:
        super().__init__(model, tokenizer, **options)

    def step(self) -> dict[int, list[int]]:  # type: ignore[override]
        """`Engine.step`.

        Returns:
            Ticket → ids that may now be given out, often none; see `Emission`.
        """
        given: dict[int, list[int]] = {}
        for ticket, emission in super().step():
            given.setdefault(ticket, []).extend(emission.ids)
        return given
