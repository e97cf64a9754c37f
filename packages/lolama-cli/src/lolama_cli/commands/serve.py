"""``lolama serve``: models for other programs, over HTTP."""

from __future__ import annotations

import logging
import sys
from dataclasses import fields
from typing import Annotated, Any

import typer

from lolama_cli import options
from lolama_cli.console import Output
from lolama_cli.errors import Settings
from lolama_cli.quantize_option import Quantize
from lolama_cli.setting_options import RequestedSettings, with_settings_of_requests
from lolama_cli.sizes import read_size
from lolama_core.protocols.errors import UsageError

EXAMPLES = """\b
Examples:
  lolama serve -m demo
  lolama serve -m tinyllama --quantize --parallel 8
  lolama serve --host 0.0.0.0 --api-key "$KEY"
  curl http://127.0.0.1:8080/v1/models
"""


@with_settings_of_requests
def serve(
    context: typer.Context,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            help="Model to load at the start; may be repeated. Others load when they are asked for.",
            metavar="TEXT",
            autocompletion=options.model_names,
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            "--alias",
            help="What requests call the first model; may be repeated, and answers have the first.",
            metavar="TEXT",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag",
            help="Word that /v1/models tells of the first model; may be repeated.",
            metavar="TEXT",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen on; several with commas between.", metavar="TEXT"
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="Port; 0 takes a free one.", metavar="INT")
    ] = 8080,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key",
            help="Key that each request has to give; may be repeated.",
            metavar="TEXT",
            envvar="LOLAMA_API_KEY",
        ),
    ] = None,
    parallel: Annotated[
        int, typer.Option("--parallel", help="Requests that run at the same time.", metavar="INT")
    ] = 4,
    context_length: Annotated[
        int | None,
        typer.Option(
            "--context",
            help="Positions of a prompt and its answer; the model's own number at most, and if not given.",
            metavar="INT",
        ),
    ] = None,
    cache_memory: Annotated[
        str | None,
        typer.Option(
            "--cache-memory", help="Memory that keys and values may take.", metavar="SIZE"
        ),
    ] = None,
    model_memory: Annotated[
        str | None,
        typer.Option(
            "--model-memory",
            help="Memory that the weights of all loaded models may take.",
            metavar="SIZE",
        ),
    ] = None,
    max_queue: Annotated[
        int,
        typer.Option(
            "--max-queue", help="Requests that may wait; the next one gets 429.", metavar="INT"
        ),
    ] = 64,
    sleep_idle: Annotated[
        float | None,
        typer.Option(
            "--sleep-idle",
            help="Let models leave the memory after so many seconds without a request.",
            metavar="SECONDS",
        ),
    ] = None,
    any_model: Annotated[
        bool,
        typer.Option(
            "--any-model",
            help="Answer requests for models that are not here with the first of -m.",
        ),
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            help="Name by which the server may be called; may be repeated.",
            metavar="TEXT",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin",
            help="Origin whose pages may use the server, or *; may be repeated.",
            metavar="TEXT",
        ),
    ] = None,
    log_texts: Annotated[
        bool, typer.Option("--log-texts", help="Write prompts and answers into the log.")
    ] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="Show no page at /.")] = False,
    no_metrics: Annotated[
        bool, typer.Option("--no-metrics", help="Do not answer /metrics.")
    ] = False,
    no_slots: Annotated[bool, typer.Option("--no-slots", help="Do not answer /slots.")] = False,
    show_prompts: Annotated[
        bool,
        typer.Option(
            "--show-prompts", help="Tell with each answer of a chat what the model was given."
        ),
    ] = False,
    think: Annotated[
        bool | None,
        typer.Option(
            "--think/--no-think",
            help="Whether models think before they reply, where a request does not say.",
            show_default=False,
        ),
    ] = None,
    asked: RequestedSettings,
    template: options.Template = None,
    draft: Annotated[
        str,
        typer.Option(
            "--draft",
            help="What tries tokens ahead: a smaller model with the same tokens, lookup, off, or auto.",
            metavar="MODEL",
        ),
    ] = "auto",
    quantize: Quantize = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    cache_dtype: options.CacheDtype = "auto",
) -> None:
    """Serve models over HTTP, to the clients of OpenAI, Anthropic, ollama and llama.cpp.

    The settings of sampling are those of requests that give none; --max-tokens is the most that any may ask
    for. Nothing is downloaded: see `lolama pull`.
    """
    options.check_device(device)
    _check_numbers(port=port, parallel=parallel, max_queue=max_queue, context=context_length)
    if sleep_idle is not None and not sleep_idle >= 0:
        raise UsageError("--sleep-idle", f"is {sleep_idle}", "give seconds, 0 or more")
    if any(not key for key in api_key or ()):
        raise UsageError("--api-key", "is empty", "give a key, or leave it out")
    if (alias or tag) and not model:
        raise UsageError("--alias" if alias else "--tag", "names no model", "give one with -m")
    if any(not name for name in alias or ()):
        raise UsageError("--alias", "is empty", "give a name, or leave it out")
    from lolama.serving import Loading, LocalModels, ServeOptions, log_to, serve

    settings: Settings = context.obj
    if sys.stderr is not None:
        log_to(sys.stderr, logging.DEBUG if settings.verbose else logging.INFO)
    given = _given_settings(asked)
    loading = Loading(
        bits=int(quantize),
        device=None if device == "auto" else device,
        dtype=None if dtype == "auto" else dtype,
        cache_dtype=None if cache_dtype == "auto" else cache_dtype,
        template=options.read_template(template),
        draft=draft,
        thinking=think,
    )
    models = LocalModels(tuple(model or ()), loading, aliases=alias or (), tags=tag or ())
    chosen = ServeOptions(
        host=host,
        port=port,
        models=models.given,
        api_keys=tuple(api_key or ()),
        parallel=parallel,
        context=context_length,
        cache_bytes=_size(cache_memory, "--cache-memory"),
        model_bytes=_size(model_memory, "--model-memory"),
        max_queue=max_queue,
        max_tokens=given.pop("max_new_tokens", None),
        sleep_idle=sleep_idle,
        settings=given,
        any_model=any_model,
        allowed_hosts=tuple(allowed_host or ()),
        cors_origins=tuple(cors_origin or ()),
        log_texts=log_texts,
        page=not no_page,
        metrics=not no_metrics,
        slots=not no_slots,
        show_prompts=show_prompts,
    )
    for name in chosen.models:
        models.find(name)  # before anything listens
    output = Output()
    serve(models, chosen, listening=lambda address: _tell(output, address))


def _tell(output: Output, address: str) -> None:
    output.stream(f"listening on {address}\n")


def _check_numbers(**numbers: int | None) -> None:
    least = {"port": 0, "max_queue": 0}
    for name, number in numbers.items():
        option = f"--{name.replace('_', '-')}"
        lowest = least.get(name, 1)
        if number is not None and number < lowest:
            raise UsageError(option, f"is {number}", f"give a whole number, {lowest} or more")
    if (numbers["port"] or 0) > 65_535:
        raise UsageError("--port", f"is {numbers['port']}", "give a port, up to 65535")


def _size(text: str | None, option: str) -> int | None:
    return None if text is None else read_size(text, option)


def _given_settings(asked: RequestedSettings) -> dict[str, Any]:
    values = {row.name: getattr(asked.config, row.name) for row in fields(asked.config)}
    return {name: values[name] for name in asked.given}
