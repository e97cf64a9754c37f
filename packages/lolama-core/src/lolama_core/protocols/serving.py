"""What a server needs of models, and of the engine that runs them.

``lolama`` implements it, and ``lolama_serve`` uses it: neither knows the other's code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from lolama_core.protocols.types import JSON, Message

if TYPE_CHECKING:
    from lolama_core.protocols.constraint import Constraint
    from lolama_core.protocols.errors import LolamaError
    from lolama_core.protocols.generation import Emission, Generation
    from lolama_core.protocols.text import Tokenizer

GrammarKind: TypeAlias = Literal["json_object", "json_schema", "regex", "lark", "gbnf"]

ToolChoice: TypeAlias = Literal["auto", "none", "required"] | tuple[str]
"""Whether a model calls tools; (name,) for the tool that it has to call."""


class RequestEngine(Protocol):
    """Runs a model for many requests at once; see `lolama_core.Engine`.

    It belongs to one thread. `prepare` may be called from others.
    """

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        ...

    @property
    def used_cache_bytes(self) -> int:
        """Bytes that keys and values of all requests take now."""
        ...

    @property
    def kept_cache_bytes(self) -> int:
        """Bytes kept of requests that have ended."""
        ...

    @property
    def prepare(self) -> Callable[..., list[Any]]:
        """(prompts, configs, processors, keywords, n=, constraint=) → what `add` takes, checked.

        What takes long, such as encoding pictures, is done there.
        """
        ...

    def add(self, prepared: Any) -> int:
        """Add a request that was prepared; its ticket."""
        ...

    def cancel(self, ticket: int) -> None:
        """Forget a request, wherever it stands."""
        ...

    def step(self) -> list[tuple[int, Emission]]:
        """One token for each running row, and a part of the prompts that wait."""
        ...

    def collect(self) -> dict[int, Generation[str] | LolamaError]:
        """Ticket → result of each request that ended since the last call; the error, if it failed."""
        ...

    def prompt_progress(self, ticket: int) -> tuple[int, int, int] | None:
        """Positions of a request's prompt that were found, that were found or have run, and all of them.

        None while the request waits, and once it is not here any more.
        """
        ...


class ReplyPart(NamedTuple):
    """A certain piece of a reply.

    Attributes:
        kind: ``text`` the reply itself, ``thought`` what the model thinks before it, ``call`` a whole call
            of a tool.
        text: The piece; of a call, its arguments as JSON.
        name: The tool that is called.
        id: What the call is known by.
    """

    kind: Literal["text", "thought", "call"]
    text: str
    name: str = ""
    id: str = ""


class ReplyParser(Protocol):
    """Tells the parts of a growing reply apart. Nothing of the text is lost, however it is cut."""

    def push(self, text: str) -> list[ReplyPart]:
        """Take more text; the parts that are certain."""
        ...

    def finish(self) -> list[ReplyPart]:
        """End the text; the parts that were held back."""
        ...


@dataclass(frozen=True, kw_only=True)
class ServedPrompt:
    """A prompt, ready for `RequestEngine.prepare`.

    Attributes:
        ids: Its token ids.
        positions: How many positions it takes, those of pictures included.
        inputs: What the model is given beside them, such as pictures.
        parser: Makes what tells the parts of its reply apart; None for a reply that is text alone.
        constraint: Makes what its reply is kept within; None for nothing.
        visible_ids: Control tokens that are part of the reply, such as those that begin a call.
        thinks: Whether the reply may begin with a thought.
    """

    ids: Sequence[int]
    positions: int
    inputs: Mapping[str, Any] = field(default_factory=dict)
    parser: Callable[[], ReplyParser] | None = None
    constraint: Callable[[], Constraint] | None = None
    visible_ids: frozenset[int] = frozenset()
    thinks: bool = False


@runtime_checkable
class ServedModel(Protocol):
    """A loaded model, as a server uses it. Its methods may be called from several threads."""

    @property
    def name(self) -> str:
        """What it was loaded as."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back."""
        ...

    @property
    def token_bytes(self) -> Sequence[bytes] | None:
        """What each token adds to others; b"" for a control token, None where that depends on these."""
        ...

    @property
    def context_length(self) -> int:
        """Positions that it can attend over."""
        ...

    @property
    def sees_pictures(self) -> bool:
        """Whether it is shown pictures."""
        ...

    @property
    def facts(self) -> Mapping[str, JSON]:
        """What is told of it: ``path``, ``parameters``, ``bytes``, ``scheme``, ``dtype``, ``device``,
        ``family``, ``chat_template``."""
        ...

    def engine(self, *, rows: int, cache_bytes: int | None) -> RequestEngine:
        """A new engine that runs it.

        Args:
            rows: Requests that run at the same time.
            cache_bytes: What keys and values may take; None for a share of the free memory.
        """
        ...

    def settings(self, given: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """All settings of a generation: what its authors recommend over neutral ones, and ``given`` over all.

        Neutral is the model's own distribution: temperature 1, nothing cut, nothing penalized.

        Raises:
            UsageError: for a value out of its range.
        """
        ...

    def text_prompt(self, text: str) -> ServedPrompt:
        """A text to continue. It may spell control tokens."""
        ...

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
        """A conversation up to the reply, in the model's chat template.

        Args:
            messages: What was said.
            pictures: The files of the pictures that the messages show, in order.
            tools: Functions that the model may call, as OpenAI's API describes them.
            tool_choice: Whether it calls one.
            parallel_calls: Whether it may call several in one reply.
            thinking: Have it think first, or not; None for the template's default.
            continues: The reply goes on with the last message, which is the model's own.

        Raises:
            UsageError: for messages, pictures or tools that the model cannot be given.
            ModelError: if the chat template cannot be used, or a picture cannot.
        """
        ...

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, JSON]] = (),
        reply: bool = True,
    ) -> str:
        """What the chat template writes of a conversation, control tokens included.

        Args:
            messages: What was said.
            tools: Functions that the model may call.
            reply: End where the model's reply begins.
        """
        ...

    def constraint(
        self, kind: GrammarKind, source: JSON, prompt: ServedPrompt | None = None
    ) -> Callable[[], Constraint]:
        """What keeps replies within a grammar; it is compiled here, within limits.

        Args:
            kind: What the grammar is written in.
            source: The grammar; None for ``json_object``.
            prompt: That of the replies, which may begin with a thought: that may be anything.

        Raises:
            UsageError: for a grammar that cannot be used, or takes too long.
        """
        ...

    def embedding(self, ids: Sequence[int]) -> list[float]:
        """The mean of the last hidden states of a text, of length 1."""
        ...

    def close(self) -> None:
        """Let go of its weights."""
        ...


@dataclass(frozen=True, kw_only=True)
class ServedName:
    """A model that can be served.

    Attributes:
        name: What requests call it, and what answers do.
        aliases: What requests may call it, too.
        tags: Words that whoever serves it chose to tell of it.
        bytes: What its weights take once it is loaded.
        created: When its files were written, in seconds since 1970.
        facts: What is told of it without loading it, as `ServedModel.facts`.
    """

    name: str
    aliases: Sequence[str] = ()
    tags: Sequence[str] = ()
    bytes: int = 0
    created: int = 0
    facts: Mapping[str, JSON] = field(default_factory=dict)


@runtime_checkable
class ModelHost(Protocol):
    """Where the models of a server come from. Nothing of it connects to a network."""

    def names(self) -> Sequence[ServedName]:
        """The models that are here."""
        ...

    def find(self, name: str) -> ServedName:
        """The model of that name.

        Raises:
            UsageError: if it is not here, with what to do.
        """
        ...

    def load(self, name: str) -> ServedModel:
        """Load it.

        Raises:
            LolamaError: if that fails.
        """
        ...
