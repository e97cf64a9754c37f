"""Models as a server uses them: what `lolama_serve` is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import lolama_core
from lolama import memory, names, wiring
from lolama.drafts import check_draft, check_tried
from lolama.prompts import check_messages, hears_system, render, sees_none, with_pictures
from lolama.thinking import (
    ThoughtFormat,
    ThoughtSplitter,
    is_thought,
    thought_format,
    with_thinking,
)
from lolama.vision import count_positions, processor_of
from lolama_core import Engine, GenerationConfig
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.serving import (
    GrammarKind,
    ReplyPart,
    ServedName,
    ServedPrompt,
    ToolChoice,
)
from lolama_core.protocols.types import JSON, Message, ModelFiles
from lolama_serve import ServeOptions as ServeOptions
from lolama_serve import log_to as log_to
from lolama_serve import serve as serve

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


class LocalModels:
    """The models of this machine, for a server; see `lolama_core.protocols.serving.ModelHost`.

    Those that are built in or were downloaded, and those that whoever started the server named. A request
    names models alone: no path of it is looked at, and nothing is downloaded.

    Args:
        given: Names and paths of models that were named at the start.
        loading: How they are loaded.
    """

    def __init__(self, given: Sequence[str] = (), loading: Loading | None = None) -> None:
        self._given, self._loading = tuple(given), loading or Loading()

    def names(self) -> list[ServedName]:
        """The models that are here."""
        return [self._served(name) for name in self._known()]

    def find(self, name: str) -> ServedName:
        """The model of that name; see `ModelHost`."""
        known = self._known()
        if name not in known:
            raise UsageError("model", "is not here", f"use one of {', '.join(known)[:500]}")
        return self._served(name)

    def load(self, name: str) -> LocalModel:
        """Load it; see `ModelHost`."""
        if name not in self._known():
            raise UsageError("model", f"{name!r:.200} is not here", "see GET /v1/models")
        files = names.resolve(name, fetch=False)
        wiring.check(files)
        loading = self._loading
        asked = files
        if loading.template is not None:
            asked = names.with_chat_template(files, loading.template)
        tokenizer = wiring.tokenizer_of(asked)
        draft = self._draft(files, tokenizer)
        used = wiring.quantized(files, loading.bits)
        model = wiring.load_files(used, device=loading.device, dtype=loading.dtype)
        wiring.suit_threads(model)
        return LocalModel(name, used, model, tokenizer, loading, draft)

    def _known(self) -> dict[str, None]:
        """Names in the order in which they are told; a dictionary, to look them up."""
        source = lolama_core.installed_source()
        stored = source.stored(lolama_core.FileCheckpointIO())
        complete = {one.repo for one in stored if one.complete}
        aliases = [one for one in source.list() if one.repo in complete]
        aliased = {one.repo for one in aliases}
        found = [*self._given, *names.builtin_models(), *(one.alias for one in aliases)]
        return dict.fromkeys([*found, *sorted(complete - aliased)])

    def _served(self, name: str) -> ServedName:
        files = names.resolve(name, fetch=False)
        loading = self._loading
        dtype = loading.dtype or files.config["dtype"]
        need = memory.needed(files, context=1, dtype=dtype, bits=loading.bits)
        paths = {location.path for location in files.tensors.values()}
        created = int(max((path.stat().st_mtime for path in paths), default=0))
        return ServedName(name=name, bytes=need.weights, created=created, facts=_facts(files))

    def _draft(self, files: ModelFiles, tokenizer: Tokenizer) -> Drafting:
        name = self._loading.draft
        if name in ("auto", "lookup", "off"):
            return cast("Drafting", name)
        check_tried(files)
        guessing = names.resolve(name, fetch=False)
        check_draft(guessing, wiring.tokenizer_of(guessing), files, tokenizer)
        used = wiring.quantized(guessing, self._loading.bits)
        return wiring.load_files(used, device=self._loading.device, dtype=self._loading.dtype)


def _facts(files: ModelFiles) -> dict[str, JSON]:
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
            **_facts(self._files),
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
        ids, inputs = self._encode(messages, pictures, tools, thinking, continues=continues)
        thoughts = None if continues else thought_format(self.tokenizer, ids)
        positions = len(ids)
        if inputs:
            positions = count_positions(self._files, ids, cast("Any", inputs))
        return ServedPrompt(
            ids=ids,
            positions=positions,
            inputs=inputs,
            parser=None if thoughts is None else lambda: _Thoughts(thoughts),
        )

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, JSON]] = ()
    ) -> str:
        """The text of `chat_prompt`, control tokens included."""
        ids, _ = self._encode(messages, (), tools, None, continues=False)
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def constraint(self, kind: GrammarKind, source: JSON) -> Callable[[], Constraint]:
        """What keeps replies within a grammar; see `ServedModel`."""
        raise UsageError("response_format", "grammars come with the next commit", "leave it out")

    def embedding(self, ids: Sequence[int]) -> list[float]:
        """The mean of the last hidden states of a text, of length 1."""
        mean = lolama_core.hidden_states(self._model, ids).mean(0)
        return cast("list[float]", (mean / mean.norm().clamp_min(1e-12)).tolist())

    def close(self) -> None:
        """Let go of its weights."""
        lolama_core.forget(self._model)
        del self._model, self._draft

    def _encode(
        self,
        messages: Sequence[Message],
        pictures: Sequence[bytes],
        tools: Sequence[Mapping[str, JSON]],
        thinking: bool | None,
        *,
        continues: bool,
    ) -> tuple[list[int], Mapping[str, Any]]:
        if not self.tokenizer.has_chat_template:
            reason = f"{self.name} has no chat template"
            raise UsageError(
                "messages", reason, "use /v1/completions, or start the server with a chat template"
            )
        if tools:
            raise UsageError("tools", "come with the next commit", "leave them out")
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
        ids = render(tokenizer, turns)
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


class _Thoughts:
    """A thought apart from the reply; see `ReplyParser`."""

    def __init__(self, format: ThoughtFormat) -> None:
        self._splitter = ThoughtSplitter(format)

    def push(self, text: str) -> list[ReplyPart]:
        """Take more text; the parts that are certain."""
        return _as_parts(self._splitter.push(text))

    def finish(self) -> list[ReplyPart]:
        """End the text; the parts that were held back."""
        return _as_parts(self._splitter.finish())


def _as_parts(pieces: Sequence[str]) -> list[ReplyPart]:
    return [ReplyPart("thought" if is_thought(piece) else "text", str(piece)) for piece in pieces]
