"""One generation: its text to standard output, what there is to say about it to standard error."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from lolama.thinking import is_cut_off, is_thought
from lolama_cli.answer_options import BROKEN_OFF
from lolama_cli.command_words import STILL_THINKING
from lolama_cli.console import Output, note, progress
from lolama_cli.draft import tried_ahead
from lolama_cli.logprobs import logprob_facts
from lolama_cli.schemas import GENERATE
from lolama_cli.settings import SETTINGS, to_json

if TYPE_CHECKING:
    from lolama import Drafting, Generation, GenerationConfig, PrefixCache
    from lolama.grammar import Grammar
    from lolama.thinking import ThoughtFormat
    from lolama_cli.pictures import PreparedImages
    from lolama_core.protocols import CausalLM, Constraint, Tokenizer

_WHY = {"eos": "the model ended it", "stop": "a stop text came", "length": "at the limit"}


def with_seed(config: GenerationConfig) -> GenerationConfig:
    """The same settings with a seed that can be told, drawn if there is none.

    Of 32 bits, since some readers of JSON keep 53 of an integer's.
    """
    return config if config.seed is not None else replace(config, seed=secrets.randbits(32))


def constraint_of(
    grammar: Grammar | None,
    model: CausalLM,
    tokenizer: Tokenizer,
    thoughts: ThoughtFormat | None,
) -> Constraint | None:
    """A constraint for one text of a grammar; none without one."""
    if grammar is None:
        return None
    from lolama.answers import Constraints

    return Constraints(model, tokenizer).make(grammar, thoughts)


@dataclass
class GenerationRun:
    """One prompt on its way through the model.

    Args:
        model, tokenizer: What answers.
        ids: The prompt.
        config: The settings.
        output: Where the text goes.
        images: The pictures that go with it.
        prefixes: What the model has read before, if that is kept.
        draft: What tries tokens ahead.
        cache_dtype: What keys and values are stored in; None for the dtype of the model.
        thoughts: How a reply begins with a thought; None if it does not, or is to stay as it is.
        grammar: What the text may be.
    """

    model: CausalLM
    tokenizer: Tokenizer
    ids: Sequence[int]
    config: GenerationConfig
    output: Output
    images: PreparedImages | None
    prefixes: PrefixCache | None = None
    draft: Drafting = "auto"
    cache_dtype: Literal["int8"] | None = None
    thoughts: ThoughtFormat | None = None
    grammar: Grammar | None = None

    def generate(self, *, write: bool, stream: bool) -> None:
        """Generate to the end.

        Args:
            write: The text, to the output.
            stream: Piece by piece, not all of it at the end.
        """
        from lolama import TextGenerator
        from lolama.thinking import ThoughtSplitter

        self.started = time.perf_counter()
        self.first: float | None = None
        pieces = []
        splitter = ThoughtSplitter(self.thoughts)
        generator = TextGenerator(
            self.model,
            self.tokenizer,
            prefix_cache=self.prefixes,
            cache_dtype=self.cache_dtype,
            draft=self.draft,
        )
        constraint = constraint_of(self.grammar, self.model, self.tokenizer, self.thoughts)
        images = self.images
        with progress(images.progress if images is not None else ""):
            stream_of = generator.generate_stream(
                self.ids,
                self.config,
                constraint=constraint,
                **(images.model_inputs if images is not None else {}),
            )
        try:
            with stream_of as tokens:
                for piece in splitter.parts(tokens.text()):
                    if self.first is None:
                        self.first = time.perf_counter()
                    if write and stream:
                        self._show(piece)
                    else:
                        pieces.append(piece)
            if write and not stream:
                self.output.thought(splitter.thinking or "")
                self.output.end_thought()
                self.output.write("".join(piece for piece in pieces if not is_thought(piece)))
        finally:
            # Before an error says anything, and where Ctrl-C leaves the cursor.
            self.output.end_line()
        assert tokens.result is not None
        self.result = splitter.apart(tokens.result)
        self.ended = time.perf_counter()

    def _show(self, piece: str) -> None:
        if is_thought(piece):
            self.output.thought(piece)
        else:
            self.output.end_thought()
            self.output.stream(piece)

    @property
    def prompt_length(self) -> int:
        """Positions of the prompt, pictures included."""
        return len(self.ids) if self.images is None else self.images.count_positions(self.ids)

    @property
    def tokens_per_second(self) -> float | None:
        """After the first text; None if no more came."""
        more = len(self.result.ids) - 1
        if self.first is None or more < 1:
            return None
        return more / max(self.ended - self.first, 1e-9)

    def tell(self, *, verbose: bool) -> None:
        """What there is to say once it has ended, on standard error."""
        if self.result.context_full:
            note(
                f"note: the text ends here because the model's context of {self.model.max_seq_len:,} "
                f"tokens is full ({self.prompt_length:,} of the prompt, {len(self.result.ids):,} new)"
            )
        if is_cut_off(self.result):
            note(f"note: {STILL_THINKING}")
        elif self.grammar is not None and self.result.finish_reason == "length":
            note(f"note: {BROKEN_OFF}")
        if not verbose:
            return
        new = len(self.result.ids)
        line = f"{self.prompt_length:,} prompt tokens, "
        if self.prefixes is not None:
            line += f"{self.result.cached_tokens:,} of them from the prompt cache, "
        line += f"{new:,} new ({_WHY[self.result.finish_reason]})"
        if self.first is not None:
            line += f"; first text after {self.first - self.started:.2f} s"
        if self.tokens_per_second is not None:
            line += f", then {self.tokens_per_second:.1f} tokens/s"
        note(f"{line}; {tried_ahead(self.result.drafted_tokens, self.result.accepted_tokens)}")

    def write_json(self, name: str, load_seconds: float) -> None:
        """Everything about it, as one object.

        Args:
            name: The model's name, as the user gave it.
            load_seconds: How long loading took.
        """
        config = self.config
        first = None if self.first is None else self.first - self.started
        facts = {
            "model": name,
            **answer_facts(self.result, self.prompt_length, config, self.tokenizer),
            "settings": {
                key: to_json(getattr(config, row.name))
                for key, row in SETTINGS.items()
                if key != "seed"  # which answers of a batch tell, too
            },
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "timings": {
                "load": round(load_seconds, 6),
                "first_text": None if first is None else round(first, 6),
                "total": round(self.ended - self.started, 6),
                "tokens_per_second": self.tokens_per_second,
            },
        }
        GENERATE.write(self.output, facts)


def answer_facts(
    result: Generation, prompt_length: int, config: GenerationConfig, tokenizer: Tokenizer
) -> dict[str, object]:
    """What ``--json`` and ``--batch`` both tell about an answer."""
    return {
        "text": result.text,
        "thinking": result.thinking,
        "ids": list(result.ids),
        "finish_reason": result.finish_reason,
        "context_full": result.context_full,
        "prompt_tokens": prompt_length,
        "cached_tokens": result.cached_tokens,
        "drafted_tokens": result.drafted_tokens,
        "accepted_tokens": result.accepted_tokens,
        "seed": config.seed,
        "logprobs": logprob_facts(result.logprobs, tokenizer),
    }
