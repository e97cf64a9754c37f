"""What a server needs of models for lolama's own commands: the prompts, words and names of a command line.

It is more than `lolama_core.protocols.serving` asks for, and not every host of models has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from lolama_core.protocols.serving import ModelHost, ServedModel, ServedPrompt
from lolama_core.protocols.types import JSON

COMMAND_PROTOCOL = 1
"""Which requests and answers a command and a server expect of each other."""


class Turn(NamedTuple):
    """One message of a command's prompt.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        text: What it says.
        pictures: How many of the prompt's pictures are shown with it; they stand before the text.
    """

    role: str
    text: str
    pictures: int = 0


class NamedPicture(NamedTuple):
    """A picture of a command's prompt.

    Attributes:
        name: What errors call it.
        data: Its file.
    """

    name: str
    data: bytes


class CommandGrammar(NamedTuple):
    """What a text may be, as `lolama.grammar.Grammar` has it.

    Attributes:
        kind: What it is written in.
        source: Its text; a schema's as JSON.
    """

    kind: Literal["schema", "regex", "lark", "gbnf"]
    source: str


@dataclass(frozen=True, kw_only=True)
class CalledModel:
    """A model as a command calls it, and what is known of it before it is loaded.

    Attributes:
        name: What requests call it.
        identity: What answers of it depend on: ``model`` (its name and revision), ``bits``, ``dtype``,
            ``template`` and ``cache_dtype``, as a command's options name them.
        sees_pictures: Whether it is shown pictures.
        recommended: Settings that its authors recommend.
        notice: What its user is told; empty for nothing.
    """

    name: str
    identity: Mapping[str, JSON]
    sees_pictures: bool = False
    recommended: Mapping[str, JSON] = field(default_factory=dict)
    notice: str = ""


@runtime_checkable
class CommandModel(ServedModel, Protocol):
    """A loaded model that answers lolama's own commands."""

    @property
    def command_facts(self) -> Mapping[str, JSON]:
        """What commands ask of it: ``has_template``, ``sees_pictures``, ``thinks``."""
        ...

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
        """What the command makes of a prompt without a server.

        Args:
            turns: What was said; the user has the last word.
            pictures: What the turns show, in order.
            raw: Leave the chat template aside; there is one turn then.
            alone: They are a single prompt, with a system message or not: without a template it is a text.
            thinking: Have the model think first, or not; None for the template's default.
            image_mode: ``crop`` or ``pad``, instead of what the model was trained with.
            most: Positions that it may take; None for any number.
            grammar: What the reply may be.

        Raises:
            UsageError, ModelError: as the command tells them.
        """
        ...


@runtime_checkable
class CommandHost(ModelHost, Protocol):
    """A host whose models are those that commands of one machine name."""

    @property
    def version(self) -> str:
        """The version of lolama."""
        ...

    @property
    def store(self) -> str:
        """Identifies the machine and the folder of fetched models; see `lolama.same_store`."""
        ...

    def called(self, name: str, place: str | None) -> CalledModel:
        """The model that a command on this machine calls ``name``.

        Args:
            name: As it was given.
            place: The absolute path that it is there, without links; None if it is none. Nothing is opened
                there: it is compared with the paths that the server was started with.

        Raises:
            UsageError: if it is not served.
        """
        ...
