"""A loaded model as a server uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import lolama_core
from lolama.answers import Constraints
from lolama.command_serving import CommandAnswers
from lolama.explaining import Explaining
from lolama.grammar import Grammar
from lolama.prompts import (
    check_messages,
    going_on,
    hears_system,
    refused_messages,
    render,
    sees_none,
    text_of,
    with_pictures,
)
from lolama.reply_parts import ReplyParts
from lolama.served_loading import Loading, facts_of
from lolama.thinking import ThoughtFormat, thought_format, with_thinking
from lolama.tool_use import ToolUse, speaks_of_tools
from lolama.tools import tool_definitions
from lolama.vision import count_positions, processor_of
from lolama_core import Engine, GenerationConfig
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.serving import GrammarKind, ServedPrompt, ToolChoice
from lolama_core.protocols.types import JSON, Message, ModelFiles

if TYPE_CHECKING:
    from lolama_core import CausalLMModule, Drafting, Tokenizer
    from lolama_core.protocols import Constraint, ImageProcessor
    from lolama_core.protocols import Tokenizer as AnyTokenizer


class LocalModel(CommandAnswers, Explaining):
    """A loaded model; see `lolama_core.protocols.serving.ServedModel`.

    Args:
        name: What it was asked for as.
        files: What it was loaded from.
        model: The model.
        tokenizer: Its tokenizer.
        loading: How it was loaded.
        draft: What tries tokens ahead.
    """

    def __init__(
        self,
        name: str,
        files: ModelFiles,
        model: CausalLMModule,
        tokenizer: Tokenizer,
        loading: Loading,
        draft: Drafting,
    ) -> None:
        self.name, self.tokenizer = name, tokenizer
        self.files, self._model, self._loading, self._draft = files, model, loading, draft
        self._processor: ImageProcessor | None = processor_of(files)
        self._constraints = Constraints(model, tokenizer)

    @cached_property
    def token_bytes(self) -> Sequence[bytes] | None:
        """What each token adds to others; see `ServedModel`."""
        try:
            return lolama_core.token_bytes(self.tokenizer).texts
        except UsageError:
            return None

    @property
    def context_length(self) -> int:
        """Positions that it can attend over."""
        return self._model.max_seq_len

    @property
    def sees_pictures(self) -> bool:
        """Whether it is shown pictures."""
        return self._processor is not None

    @cached_property
    def facts(self) -> Mapping[str, JSON]:
        """What is told of it."""
        paths = sorted({str(location.path) for location in self.files.tensors.values()})
        return {
            **facts_of(self.files),
            "path": paths[0] if paths else "",
            "device": str(self._model.device),
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "chat_template": getattr(self.tokenizer, "chat_template", None),
        }

    def engine(self, *, rows: int, cache_bytes: int | None) -> Engine[str]:
        """A new engine that runs it."""
        return Engine(
            self._model,
            self.tokenizer,
            rows=rows,
            cache_bytes=cache_bytes,
            cache_dtype=self._loading.cache_dtype,
            draft=self._draft,
        )

    def settings(self, given: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """All settings of a generation; see `ServedModel`."""
        recommended = self._model.generation_defaults.sampling
        config = GenerationConfig.sampling().with_recommended(recommended)
        return asdict(config.with_settings(**cast("dict[str, Any]", dict(given))))

    def text_prompt(self, text: str) -> ServedPrompt:
        """A text to continue."""
        ids = self.tokenizer.encode_ids(text)
        return ServedPrompt(ids=ids, positions=len(ids))

    def chat_prompt(
        self,
        messages: Sequence[Message],
        *,
        pictures: Sequence[bytes] = (),
        tools: Sequence[Mapping[str, JSON]] = (),
        tool_choice: ToolChoice = "auto",
        parallel_calls: bool = True,
        thinking: bool | None = None,
        continues: bool = False,
    ) -> ServedPrompt:
        """A conversation up to the reply; see `ServedModel`."""
        known = tool_definitions(tools)
        use = ToolUse.of(self.tokenizer, known) if known else None
        ids, inputs = self._encode(messages, pictures, use, thinking, continues=continues)
        thoughts = None if continues else thought_format(self.tokenizer, ids)
        positions = len(ids)
        if inputs:
            positions = count_positions(self.files, ids, cast("Any", inputs))
        constraint = None
        if use is not None:
            constraint = self._calls(use, tool_choice, parallel_calls, thoughts)
        return ServedPrompt(
            ids=ids,
            positions=positions,
            inputs=inputs,
            parser=(lambda: ReplyParts(thoughts, use)) if thoughts or use else None,
            constraint=constraint,
            visible_ids=frozenset() if use is None else use.visible_ids,
            thinks=thoughts is not None,
        )

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, JSON]] = (),
        reply: bool = True,
    ) -> str:
        """What the chat template writes; see `ServedModel`."""
        known, turns = tool_definitions(tools), self._turns(messages)
        told = None
        if known or any(map(speaks_of_tools, turns)):
            turns, told = ToolUse.of(self.tokenizer, known).told_to(self.tokenizer, turns)
        tokenizer = cast("Tokenizer", self._thinking(None))
        with refused_messages():
            text = tokenizer.apply_chat_template(
                turns, told, add_generation_prompt=reply, tokenize=False
            )
        return str(text)

    def constraint(
        self, kind: GrammarKind, source: JSON, prompt: ServedPrompt | None = None
    ) -> Callable[[], Constraint]:
        """What keeps replies within a grammar; see `ServedModel`."""
        thoughts = None
        if prompt is not None and prompt.thinks:
            thoughts = thought_format(self.tokenizer, prompt.ids)
        return self.constraint_of(_grammar(kind, source), thoughts)

    def constraint_of(
        self, grammar: Grammar, thoughts: ThoughtFormat | None = None
    ) -> Callable[[], Constraint]:
        """Makes a constraint for each text of a grammar, which is compiled at once."""
        first = [self._constraints.make(grammar, thoughts)]

        def make() -> Constraint:
            made = first.pop() if first else self._constraints.make(grammar, thoughts)
            assert made is not None
            return made

        return make

    def _calls(
        self,
        use: ToolUse,
        choice: ToolChoice,
        parallel: bool,
        thoughts: ThoughtFormat | None,
    ) -> Callable[[], Constraint]:
        """Keeps replies to text and calls that the schemas of tools describe."""
        chosen: str | Mapping[str, Any] = (
            choice
            if isinstance(choice, str)
            else {"type": "function", "function": {"name": choice[0]}}
        )
        lark = lolama_core.tool_lark(
            use.format,
            use.tools,
            chosen,
            parallel,
            control_ids=use.control_ids,
            thought=None if thoughts is None else (thoughts.begin, thoughts.end),
            opened=thoughts is not None and thoughts.opened,
        )
        return self.constraint_of(Grammar.lark(lark))

    def embedding(self, ids: Sequence[int]) -> list[float]:
        """The mean of the last hidden states of a text, of length 1."""
        mean = lolama_core.hidden_states(self._model, ids).mean(0)
        return cast("list[float]", (mean / mean.norm().clamp_min(1e-12)).tolist())

    def close(self) -> None:
        """Let go of its weights."""
        self.close_view()
        lolama_core.forget(self._model)
        del self._model, self._draft, self._constraints

    def _encode(
        self,
        messages: Sequence[Message],
        pictures: Sequence[bytes],
        use: ToolUse | None,
        thinking: bool | None,
        *,
        continues: bool,
    ) -> tuple[list[int], Mapping[str, Any]]:
        turns = self._turns(messages)
        last = text_of(turns.pop()) if continues else ""
        if not turns:
            raise UsageError("messages", "have nothing to answer", "give a message of the user")
        inputs = self._shown(pictures)
        if self._processor is not None:
            turns = with_pictures(turns, len(pictures))
        tokenizer = self._thinking(thinking)
        if turns[0]["role"] == "system" and not hears_system(tokenizer, turns):
            reason = f"the chat template of {self.name} leaves system messages out"
            raise UsageError("messages", reason, "say it in a message of the user")
        use = use or (ToolUse.of(tokenizer, ()) if any(map(speaks_of_tools, turns)) else None)
        with refused_messages():
            ids = render(tokenizer, turns) if use is None else use.render(tokenizer, turns)
        if last:
            ids += going_on(tokenizer, ids, last)
        return ids, inputs

    def _turns(self, messages: Sequence[Message]) -> list[Message]:
        if not self.tokenizer.has_chat_template:
            reason = f"{self.name} has no chat template"
            raise UsageError(
                "messages", reason, "use /v1/completions, or start the server with a chat template"
            )
        return check_messages(messages)

    def _thinking(self, asked: bool | None) -> AnyTokenizer:
        """The tokenizer whose template has the model think or not, as a request asks."""
        if asked is not None:
            return with_thinking(self.tokenizer, asked)
        try:
            return with_thinking(self.tokenizer, self._loading.thinking)
        except UsageError:  # a server may have several models, and not all have a switch
            return self.tokenizer

    def _shown(self, pictures: Sequence[bytes]) -> Mapping[str, Any]:
        if not pictures:
            return {}
        if self._processor is None:
            raise sees_none("images", len(pictures), self.name, "use a vision model")
        import lolama_vision

        read = []
        for number, picture in enumerate(pictures, start=1):
            try:
                read.append(lolama_vision.read_picture(picture, f"picture {number}").image)
            except ModelError as error:  # which is what the request gave, and no model
                raise UsageError(error.subject, error.reason, error.remedy) from None
        return cast("Mapping[str, Any]", self._processor.preprocess(read))


def _grammar(kind: GrammarKind, source: JSON) -> Grammar:
    """The grammar of a request; an error for a source of another type."""
    if kind == "json_object":
        return Grammar.json_object()
    if kind == "json_schema":
        return Grammar.json_schema(cast("Mapping[str, object]", source))
    make = {"regex": Grammar.regex, "lark": Grammar.lark, "gbnf": Grammar.gbnf}[kind]
    return make(cast("str", source))
