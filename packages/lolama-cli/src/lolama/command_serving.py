"""What a server's models answer lolama's own commands with; see `lolama_core.protocols.serving_commands`."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from lolama import names
from lolama.__about__ import __version__
from lolama.command_prompts import PreparedImages, check_length, encode_messages
from lolama.grammar import Grammar
from lolama.prompts import message_content, sees_none
from lolama.reply_parts import ReplyParts
from lolama.same_store import place_of, store_identity
from lolama.thinking import ThoughtFormat, thinks, thought_format, with_thinking
from lolama.vision import processor_of
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.notices import unsupported
from lolama_core.protocols.serving import ServedPrompt
from lolama_core.protocols.serving_commands import (
    CalledModel,
    CommandGrammar,
    NamedPicture,
    Turn,
)
from lolama_core.protocols.types import JSON, Message

if TYPE_CHECKING:
    from lolama_core import Tokenizer
    from lolama_core.protocols import Constraint
    from lolama_core.protocols.types import ModelFiles

_IMAGES = "images"


class CommandNames(ABC):
    """Models of this machine by the names that its commands use; a part of a `CommandHost`."""

    @property
    def version(self) -> str:
        """The version of lolama."""
        return __version__

    @property
    def store(self) -> str:
        """Identifies the machine and its store; see `CommandHost`."""
        return store_identity()

    def called(self, name: str, place: str | None) -> CalledModel:
        """The model that a command calls by this name; see `CommandHost`."""
        served = self._served_as(name, place)
        files = self.files_of(served)
        return CalledModel(
            name=served,
            identity={"model": [name if place else files.name, files.revision], **self.loaded_as()},
            sees_pictures=processor_of(files) is not None,
            recommended=files.config["generation"].get("sampling", {}),
            notice=unsupported(files),
        )

    @property
    @abstractmethod
    def named(self) -> Mapping[str, str]:
        """Names and paths that the server was started with → what requests call these models."""

    @abstractmethod
    def files_of(self, name: str) -> ModelFiles:
        """The files of a model, by what requests call it."""

    @abstractmethod
    def known(self) -> Mapping[str, None]:
        """Names of all models that are here."""

    @abstractmethod
    def loaded_as(self) -> Mapping[str, JSON]:
        """What models are loaded as: ``bits``, ``dtype``, ``template``, ``cache_dtype``."""

    def _served_as(self, name: str, place: str | None) -> str:
        named = self.named
        if name in names.builtin_models():
            return named.get(name, name)
        if place is not None:  # a folder is one of the server's only if both mean the same folder
            for given, called in named.items():
                if place_of(given) == place:
                    return called
        elif name in named:
            if place_of(name) is None:
                return named[name]
        elif name in self.known() and name not in named.values():
            return name
        remedy = f'start the server with {name:.200}, or give `server="none"`'
        raise UsageError(f"model {name!r:.200}", "is not one that the server has", remedy)


class CommandAnswers(ABC):
    """Prompts as commands make them; a part of a `CommandModel`.

    Attributes:
        files: What it was loaded from.
        tokenizer: Its tokenizer.
    """

    files: ModelFiles
    tokenizer: Tokenizer

    @property
    @abstractmethod
    def context_length(self) -> int:
        """Positions that it can attend over."""

    @abstractmethod
    def constraint_of(
        self, grammar: Grammar, thoughts: ThoughtFormat | None = None
    ) -> Callable[[], Constraint]:
        """Makes a constraint for each text of a grammar, which is compiled at once."""

    @property
    def command_facts(self) -> Mapping[str, JSON]:
        """What commands ask of it; see `CommandModel`."""
        return {
            "has_template": self.tokenizer.has_chat_template,
            "sees_pictures": processor_of(self.files) is not None,
            "thinks": thinks(self.tokenizer),
        }

    def command_prompt(
        self,
        turns: Sequence[Turn],
        pictures: Sequence[NamedPicture] = (),
        *,
        raw: bool = False,
        alone: bool = False,
        thinking: bool | None = None,
        image_mode: str | None = None,
        most: int | None = None,
        grammar: CommandGrammar | None = None,
    ) -> ServedPrompt:
        """What the command makes of a prompt without a server; see `CommandModel`."""
        tokenizer, files = with_thinking(self.tokenizer, thinking), self.files
        images = _prepared(pictures, files, image_mode)
        if most is None and not raw:  # of a chat, which may forget what was said before
            check_length(turns[-1].text, tokenizer, self.context_length)
        parts = images is not None and tokenizer.has_chat_template and not raw
        messages: list[Message] = [
            {"role": turn.role, "content": message_content(turn.text, turn.pictures, parts=parts)}
            for turn in turns
        ]
        ids = encode_messages(
            messages, files, tokenizer, raw=raw, alone=alone, images=images, most=most
        )
        thoughts = None if raw else thought_format(tokenizer, ids)
        return ServedPrompt(
            ids=ids,
            positions=len(ids) if images is None else images.count_positions(ids),
            inputs={} if images is None else images.model_inputs,
            parser=None if thoughts is None else lambda: ReplyParts(thoughts, None),
            constraint=None if grammar is None else self.constraint_of(_made(grammar), thoughts),
            thinks=thoughts is not None,
        )


def _made(grammar: CommandGrammar) -> Grammar:
    """A grammar that a command has read, checked once more: here it comes from a request."""
    if grammar.kind != "schema":
        make = {"regex": Grammar.regex, "lark": Grammar.lark, "gbnf": Grammar.gbnf}[grammar.kind]
        return make(grammar.source)
    try:
        return Grammar.json_schema(json.loads(grammar.source))
    except (ValueError, RecursionError):
        raise UsageError("JSON schema", "is not JSON", "correct it") from None


def _prepared(
    pictures: Sequence[NamedPicture], files: ModelFiles, mode: str | None
) -> PreparedImages | None:
    """The pictures as the model takes them; None for a text model."""
    processor = processor_of(files, mode if pictures else None)
    if processor is None:
        if pictures:
            remedy = "use a vision model, such as demo-vision"
            raise sees_none(_IMAGES, len(pictures), files.name, remedy)
        return None
    import lolama_vision

    opened = [lolama_vision.read_picture(one.data, one.name).image for one in pictures]
    try:
        return PreparedImages(files, cast("Any", processor).preprocess(opened))
    except ModelError as error:
        subjects = ", ".join(one.name for one in pictures)
        raise ModelError(subjects, error.reason, error.remedy) from None
