"""One generation: its text to standard output, what there is to say about it to standard error."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from lolama.thinking import is_cut_off, is_thought
from lolama_cli.answer_options import BROKEN_OFF
from lolama_cli.command_words import STILL_THINKING
from lolama_cli.console import Output, note, progress
from lolama_cli.draft import tried_ahead
from lolama_cli.schemas import GENERATE
from lolama_cli.settings import SETTINGS, to_json
from lolama_core.protocols.logprobs import logprob_facts

if TYPE_CHECKING:
    from lolama import Drafting, Generation, GenerationConfig, PrefixCache
    from lolama.command_prompts import PreparedImages
    from lolama.grammar import Grammar
    from lolama.thinking import ThoughtFormat
    from lolama_core.protocols import CausalLM, Constraint, Tokenizer

_WHY = {"eos": "the model ended it", "stop": "a stop text came", "length": "at the limit"}


def with_seed(config: GenerationConfig) -> GenerationConfig:
    """The same settings with a seed that can be told, drawn if there is none.

    Of 32 bits, since some readers of JSON keep 53 of an integer's.
    """
    if config.seed is not None:
        return config
    import secrets

    return replace(config, seed=secrets.randbits(32))


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


class TextRun(ABC):
    """One prompt on its way to its text, which is shown as it comes, and told of once it has ended.

    Args:
        config: The settings.
        output: Where the text goes.
        grammar: What the text may be.

    Attributes:
        result: What came of it; the thought, if there is one, apart from the text.
        prompt_length: Positions of the prompt, pictures included.
        context_length: Those that the model attends over.
        load_seconds: How long its weights took to load.
        tells_cached: Whether to tell how much of the prompt was known.
    """

    result: Generation
    prompt_length: int
    context_length: int
    load_seconds = 0.0
    tells_cached = False

    def __init__(
        self, config: GenerationConfig, output: Output, grammar: Grammar | None = None
    ) -> None:
        self.config, self.output, self.grammar = config, output, grammar

    @abstractmethod
    def _pieces(self) -> AbstractContextManager[Iterator[str]]:
        """What answers: pieces of the text as they come, those of a thought as `Thought`.

        ``result`` is there once the iteration has ended. The clock runs while it goes on.
        """

    @abstractmethod
    def _facts(self) -> Mapping[str, object]:
        """What ``--json`` tells of the answer itself; see `answer_facts`."""

    @abstractmethod
    def _place(self) -> tuple[str, str]:
        """The device and the dtype that it ran on."""

    def generate(self, *, write: bool, stream: bool) -> None:
        """Generate to the end.

        Args:
            write: The text, to the output.
            stream: Piece by piece, not all of it at the end.
        """
        self.started = time.perf_counter()
        self.first: float | None = None
        held = []
        try:
            with self._pieces() as pieces:
                for piece in pieces:
                    if self.first is None:
                        self.first = time.perf_counter()
                    if write and stream:
                        self._show(piece)
                    else:
                        held.append(piece)
            if write and not stream:
                self.output.thought("".join(filter(is_thought, held)))
                self.output.end_thought()
                self.output.write("".join(piece for piece in held if not is_thought(piece)))
        finally:
            # Before an error says anything, and where Ctrl-C leaves the cursor.
            self.output.end_line()
        self.ended = time.perf_counter()

    def _show(self, piece: str) -> None:
        if is_thought(piece):
            self.output.thought(piece)
        else:
            self.output.end_thought()
            self.output.stream(piece)

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
                f"note: the text ends here because the model's context of {self.context_length:,} "
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
        if self.tells_cached:
            line += f"{self.result.cached_tokens:,} of them from the prompt cache, "
        line += f"{new:,} new ({_WHY[self.result.finish_reason]})"
        if self.first is not None:
            line += f"; first text after {self.first - self.started:.2f} s"
        if self.tokens_per_second is not None:
            line += f", then {self.tokens_per_second:.1f} tokens/s"
        note(f"{line}; {tried_ahead(self.result.drafted_tokens, self.result.accepted_tokens)}")

    def write_json(self, name: str) -> None:
        """Everything about it, as one object.

        Args:
            name: The model's name, as the user gave it.
        """
        first = None if self.first is None else self.first - self.started
        device, dtype = self._place()
        facts = {
            "model": name,
            **self._facts(),
            "settings": {
                key: to_json(getattr(self.config, row.name))
                for key, row in SETTINGS.items()
                if key != "seed"  # which answers of a batch tell, too
            },
            "device": device,
            "dtype": dtype,
            "timings": {
                "load": round(self.load_seconds, 6),
                "first_text": None if first is None else round(first, 6),
                "total": round(self.ended - self.started, 6),
                "tokens_per_second": self.tokens_per_second,
            },
        }
        GENERATE.write(self.output, facts)


class GenerationRun(TextRun):
    """One prompt on its way through a model of this process.

    Args:
        model, tokenizer: What answers.
        ids: The prompt.
        config, output: As for `TextRun`.
        images: The pictures that go with it.
        prefixes: What the model has read before, if that is kept.
        draft: What tries tokens ahead.
        cache_dtype: What keys and values are stored in; None for the dtype of the model.
        thoughts: How a reply begins with a thought; None if it does not, or is to stay as it is.
        load_seconds: How long loading took.
        grammar: What the text may be.
    """

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        ids: Sequence[int],
        config: GenerationConfig,
        output: Output,
        images: PreparedImages | None,
        prefixes: PrefixCache | None = None,
        draft: Drafting = "auto",
        cache_dtype: Literal["int8"] | None = None,
        thoughts: ThoughtFormat | None = None,
        load_seconds: float = 0.0,
        grammar: Grammar | None = None,
    ) -> None:
        super().__init__(config, output, grammar)
        self._model, self._tokenizer, self._ids, self._images = model, tokenizer, ids, images
        self._prefixes, self._draft, self._cache_dtype = prefixes, draft, cache_dtype
        self._thoughts, self.load_seconds = thoughts, load_seconds
        self.prompt_length = len(ids) if images is None else images.count_positions(ids)
        self.context_length, self.tells_cached = model.max_seq_len, prefixes is not None

    @contextmanager
    def _pieces(self) -> Iterator[Iterator[str]]:
        from lolama import TextGenerator
        from lolama.thinking import ThoughtSplitter

        splitter = ThoughtSplitter(self._thoughts)
        generator = TextGenerator(
            self._model,
            self._tokenizer,
            prefix_cache=self._prefixes,
            cache_dtype=self._cache_dtype,
            draft=self._draft,
        )
        constraint = constraint_of(self.grammar, self._model, self._tokenizer, self._thoughts)
        images = self._images
        with progress(images.progress if images is not None else ""):
            stream_of = generator.generate_stream(
                self._ids,
                self.config,
                constraint=constraint,
                **(images.model_inputs if images is not None else {}),
            )
        with stream_of as tokens:
            yield splitter.parts(tokens.text())
        assert tokens.result is not None
        self.result = splitter.apart(tokens.result)

    def _facts(self) -> Mapping[str, object]:
        return answer_facts(self.result, self.prompt_length, self.config, self._tokenizer)

    def _place(self) -> tuple[str, str]:
        return str(self._model.device), str(self._model.dtype).removeprefix("torch.")


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
