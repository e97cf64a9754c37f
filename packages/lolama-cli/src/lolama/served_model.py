"""A loaded model as a server uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import lolama_core
from lolama import memory, names
from lolama.answers import Constraints
from lolama.grammar import Grammar
from lolama.prompts import check_messages, hears_system, render, sees_none, with_pictures
from lolama.reply_parts import ReplyParts
from lolama.thinking import (
    ThoughtFormat,
    thought_format,
    with_thinking,
)
from lolama.tool_use import ToolUse
from lolama.tools import tool_definitions
from lolama.vision import count_positions, processor_of
from lolama_core import (
    Engine,
    GenerationConfig,
)
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.serving import GrammarKind, ServedPrompt, ToolChoice
from lolama_core.protocols.types import JSON, Message, ModelFiles

if TYPE_CHECKING:
    from lolama_core import CausalLMModule, Drafting, Tokenizer
    from lolama_core.protocols import Constraint, ImageProcessor


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How models of a server are loaded; see `lolama.load`.

    Attributes:
        bits: 8 or 4 for quantized weights; 0 as they are.
        device, dtype: Where, and as what.
        cache_dtype: What keys and values are stored in.
        template: Source of a chat template in the place of the model's own.
        draft: What tries tokens ahead: ``auto``, ``lookup``, ``off``, or the name of a model.
    """

    bits: int = 0
    device: str | None = None
    dtype: str | None = None
    cache_dtype: Literal["int8"] | None = None
    template: str | None = None
    draft: str = "auto"


def facts_of(files: ModelFiles) -> dict[str, JSON]:
    """What is told of a model without loading it."""
    paths = sorted({str(location.path.name) for location in files.tensors.values()})
    scheme = files.config.get("quantization", {}).get("name")
    return {
        "family": files.family,
        "parameters": memory.parameters(files),
        "bytes": sum(path.stat().st_size for path in {one.path for one in files.tensors.values()}),
        "dtype": files.config["dtype"],
        "scheme": scheme,
        "context_length": names.context_length(files),
        "files": cast("list[JSON]", paths),
        "vision": names.text_shape(files) is not files.config["model"],
    }


class LocalModel:
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
        self._files, self._model, self._loading, self._draft = files, model, loading, draft
        self._processor: ImageProcessor | None = processor_of(files)
        self._constraints = Constraints(model, tokenizer)

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
        paths = sorted({str(location.path) for location in self._files.tensors.values()})
        return {
            **facts_of(self._files),
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
            positions = count_positions(self._files, ids, cast("Any", inputs))
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
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, JSON]] = ()
    ) -> str:
        """The text of `chat_prompt`, control tokens included."""
        known = tool_definitions(tools)
        use = ToolUse.of(self.tokenizer, known) if known else None
        ids, _ = self._encode(messages, (), use, None, continues=False)
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def constraint(
        self, kind: GrammarKind, source: JSON, prompt: ServedPrompt | None = None
    ) -> Callable[[], Constraint]:
        """What keeps replies within a grammar; see `ServedModel`."""
        thoughts = None
        if prompt is not None and prompt.thinks:
            thoughts = thought_format(self.tokenizer, prompt.ids)
        return self._constraint(_grammar(kind, source), thoughts)

    def _constraint(
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
        return self._constraint(Grammar.lark(lark))

    def embedding(self, ids: Sequence[int]) -> list[float]:
        """The mean of the last hidden states of a text, of length 1."""
        mean = lolama_core.hidden_states(self._model, ids).mean(0)
        return cast("list[float]", (mean / mean.norm().clamp_min(1e-12)).tolist())

    def close(self) -> None:
        """Let go of its weights."""
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
        if not self.tokenizer.has_chat_template:
            reason = f"{self.name} has no chat template"
            raise UsageError(
                "messages", reason, "use /v1/completions, or start the server with a chat template"
            )
        turns = check_messages(messages)
        last = turns.pop()["content"] if continues else ""
        if not turns:
            raise UsageError("messages", "have nothing to answer", "give a message of the user")
        inputs = self._shown(pictures)
        if self._processor is not None:
            turns = with_pictures(turns, len(pictures))
        tokenizer = with_thinking(self.tokenizer, thinking)
        if turns[0]["role"] == "system" and not hears_system(tokenizer, turns):
            reason = f"the chat template of {self.name} leaves system messages out"
            raise UsageError("messages", reason, "say it in a message of the user")
        ids = render(tokenizer, turns) if use is None else use.render(tokenizer, turns)
        if isinstance(last, str) and last:
            begun = {"add_special_tokens": False, "split_special_tokens": True}
            ids += tokenizer.encode_ids(last, **begun)
        return ids, inputs

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
    """The grammar of a request.

    Raises:
        UsageError: for a source of another type.
    """
    if kind == "json_object":
        return Grammar.json_object()
    if kind == "json_schema":
        return Grammar.json_schema(cast("Mapping[str, object]", source))
    make = {"regex": Grammar.regex, "lark": Grammar.lark, "gbnf": Grammar.gbnf}[kind]
    return make(cast("str", source))
