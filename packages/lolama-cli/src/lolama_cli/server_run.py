"""``lolama generate --server``: the same run as in this process, with a server that has the model."""

from __future__ import annotations

import base64
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lolama.prompts import sees_none
from lolama.same_store import place_of
from lolama.thinking import Thought
from lolama_cli.console import Output, note
from lolama_cli.generation import TextRun, with_seed
from lolama_cli.pictures import OPTION as IMAGE
from lolama_cli.pictures import read_pictures
from lolama_cli.server_client import ServerClient
from lolama_cli.setting_options import RequestedSettings, with_recommended
from lolama_core.protocols.generation import Generation
from lolama_core.protocols.types import JSON

if TYPE_CHECKING:
    from lolama import GenerationConfig
    from lolama.grammar import Grammar


@dataclass(frozen=True)
class ServedPrompt:
    """What the options say of a prompt, beside its text and its pictures."""

    system: str | None
    raw: bool
    image_mode: str | None
    logprobs: int | None
    grammar: Grammar | None = None


@dataclass(frozen=True, kw_only=True)
class ServedChoice:
    """A model of a server, as the options describe it.

    Attributes:
        client: Asks the server.
        name: What the user called it.
        no_think: Have its chat template turn thinking off.
        facts: What the server tells of it before it is loaded.
        rows: Requests that the server takes at the same time, those that wait included.
        most_tokens: The most tokens that the server gives; None for any number.
    """

    client: ServerClient
    name: str
    no_think: bool
    facts: Mapping[str, Any]
    rows: int
    most_tokens: int | None

    @classmethod
    def at(cls, address: str, name: str, *, no_think: bool) -> ServedChoice:
        """The model of that name at a server.

        Raises:
            LolamaError: as `ServerClient.about`.
        """
        client = ServerClient(address)
        told = client.about(name)
        return cls(
            client=client,
            name=name,
            no_think=no_think,
            facts=told["model"],
            rows=told["rows"],
            most_tokens=told["max_tokens"],
        )

    def tell(self) -> None:
        """What its user should know, on standard error."""
        if self.facts["notice"]:
            note(f"note: {self.facts['notice']}")
        if self.most_tokens is not None:
            note(f"note: the server gives {self.most_tokens:,} tokens at most")

    def settings(self, config: GenerationConfig, given: Collection[str]) -> GenerationConfig:
        """The same settings, with the model's own ones, and no more tokens than the server gives."""
        config = with_recommended(config, self.facts["recommended"], given)
        if self.most_tokens is None:
            return config
        return config.with_settings(max_new_tokens=min(config.max_new_tokens, self.most_tokens))

    def request(self, turns: Sequence[Mapping[str, JSON]], **more: JSON) -> dict[str, JSON]:
        """The body of a request; see ``OwnRequest`` of lolama_serve.

        Args:
            turns: What was said: ``role``, ``text``, ``pictures``.
            more: Its other fields.
        """
        body: dict[str, JSON] = {"model": self.name, "place": place_of(self.name)}
        thinking = False if self.no_think else None
        return {**body, "turns": [dict(turn) for turn in turns], "thinking": thinking, **more}


def settings_to_send(config: GenerationConfig) -> dict[str, JSON]:
    """All settings by lolama's names, as JSON has them."""
    return asdict(config)


def grammar_to_send(grammar: Grammar | None) -> JSON:
    """A grammar as JSON; null for none."""
    return None if grammar is None else {"kind": grammar.kind, "source": grammar.source}


def pictures_to_send(names: Sequence[str], facts: Mapping[str, Any], name: str) -> list[JSON]:
    """Pictures, once each is known to be one.

    Args:
        names: Their paths; - is standard input.
        facts: What the server tells of the model.
        name: What the user called it.

    Raises:
        UsageError: for a text model, which is shown none.
        ModelError: naming the picture that cannot be used.
    """
    if names and not facts["sees_pictures"]:
        raise sees_none(IMAGE, len(names), name, "use a vision model, such as -m demo-vision")
    return [
        {"name": subject, "data": base64.b64encode(data).decode()}
        for subject, data, _ in read_pictures(names)
    ]


def answer(
    chosen: ServedChoice,
    question: ServedPrompt,
    text: str,
    pictures: Sequence[str],
    asked: RequestedSettings,
    output: Output,
    *,
    seeded: bool,
) -> ServedRun:
    """A run that answers one prompt, ready to generate.

    Args:
        chosen: The model.
        question, text, pictures: The prompt.
        asked: Its settings.
        output: Where the text goes.
        seeded: Draw a seed that can be told.

    Raises:
        UsageError, ModelError: if the pictures cannot be used.
    """
    config = chosen.settings(asked.config, asked.given)
    shown = pictures_to_send(pictures, chosen.facts, chosen.name)
    turns: list[dict[str, JSON]] = [{"role": "user", "text": text, "pictures": len(shown)}]
    if question.system is not None:
        turns.insert(0, {"role": "system", "text": question.system})
    chosen.tell()
    request = chosen.request(
        turns, pictures=shown, raw=question.raw, alone=True, image_mode=question.image_mode
    )
    config = replace(with_seed(config), logprobs=question.logprobs) if seeded else config
    request["grammar"] = grammar_to_send(question.grammar)
    return ServedRun(chosen, request, config, output, question.grammar)


class ServedRun(TextRun):
    """One prompt on its way through a server.

    Args:
        chosen: The model.
        request: The prompt; see `ServedChoice.request`.
        config, output, grammar: As for `TextRun`.
    """

    def __init__(
        self,
        chosen: ServedChoice,
        request: Mapping[str, JSON],
        config: GenerationConfig,
        output: Output,
        grammar: Grammar | None = None,
    ) -> None:
        super().__init__(config, output, grammar)
        self._chosen, self._request = chosen, request
        self._end: Mapping[str, Any] = {}

    @contextmanager
    def _pieces(self) -> Iterator[Iterator[str]]:
        body = {**self._request, "settings": settings_to_send(self.config)}
        with self._chosen.client.events(body) as events:
            yield self._texts(events)

    def _texts(self, events: Iterator[Mapping[str, Any]]) -> Iterator[str]:
        asked = time.perf_counter()
        for event in events:
            if event.get("text"):
                yield event["text"]
            elif event.get("thought"):
                yield Thought(event["thought"])
            elif "model" in event:  # from here on it is there, and the clock of the prompt runs
                self._model = event["model"]
                self.context_length = self._model["context"]
                # As the server tells it: what it sent since then may have come together with this.
                self.load_seconds = self._model["waited"]
                self.started = asked + self.load_seconds
            elif "prompt" in event:
                self.prompt_length = event["prompt"]
            elif "end" in event:
                self._end = event["end"]
                self.result = generation_of(self._end)

    def tell(self, *, verbose: bool) -> None:
        """What there is to say once it has ended, on standard error; first who answered."""
        if verbose:
            device, dtype = self._place()
            note(f"{self._chosen.client.address} answered: {dtype} on {device}")
        super().tell(verbose=verbose)

    def _facts(self) -> Mapping[str, object]:
        return self._end

    def _place(self) -> tuple[str, str]:
        return self._model["device"], self._model["dtype"]


def generation_of(end: Mapping[str, Any]) -> Generation:
    """What a server tells of an answer, as a generation; its log-probabilities are told as they came."""
    names = ("text", "thinking", "finish_reason", "context_full")
    counts = ("cached_tokens", "drafted_tokens", "accepted_tokens")
    return Generation(ids=tuple(end["ids"]), **{name: end[name] for name in (*names, *counts)})
