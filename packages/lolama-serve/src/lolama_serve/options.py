"""What a server may be started with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lolama_core.protocols.types import JSON

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a request's body: some pictures in base64, and no film."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of a server.

    Attributes:
        host: The address that it listens on; several with commas between them.
        port: The port; 0 for a free one.
        models: Names of models that are loaded at the start. The first one answers requests that name none.
        api_keys: One of these has to be given with each request but those of `PUBLIC_PATHS`; () for none.
        parallel: Requests of a model that run at the same time.
        context: Positions that a request may take, its answer included; None for the model's own number.
        cache_bytes: What keys and values of a model may take; None for a share of the free memory.
        model_bytes: What the weights of all loaded models may take; None for no limit. The model that was
            used longest ago leaves first.
        max_queue: Requests that wait for their turn at most; the next one is answered with 429.
        max_tokens: The most tokens that an answer may have; None for as many as the context has room for.
        sleep_idle: After this many seconds without a request the models leave the memory; None for never.
        settings: Settings of a generation where a request does not give them.
        any_model: Answer a request for a model that is not here with the first of ``models``.
        allowed_hosts: Names in the header ``Host`` beside those of this machine.
        cors_origins: Pages of these origins may use the server, beside those on this machine; "*" for all.
        log_texts: Write what is asked and answered into the log.
        page: Show a page at ``/`` that says how to use the server.
        metrics: Answer ``/metrics``.
        slots: Answer ``/slots``.
        show_prompts: Tell with each answer of a chat what the model was given, as ``__verbose``.
        max_body: The most bytes that a request's body may have.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    models: Sequence[str] = ()
    api_keys: Sequence[str] = ()
    parallel: int = 4
    context: int | None = None
    cache_bytes: int | None = None
    model_bytes: int | None = None
    max_queue: int = 64
    max_tokens: int | None = None
    sleep_idle: float | None = None
    settings: Mapping[str, JSON] = field(default_factory=dict)
    any_model: bool = False
    allowed_hosts: Sequence[str] = ()
    cors_origins: Sequence[str] = ()
    log_texts: bool = False
    page: bool = True
    metrics: bool = True
    slots: bool = True
    show_prompts: bool = False
    max_body: int = MAX_BODY
