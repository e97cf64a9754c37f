"""``lolama info``: what a model is, and whether it fits here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lolama_cli import options
from lolama_cli.console import Output
from lolama_cli.schemas import INFO
from lolama_cli.tables import write_sections
from lolama_core.protocols.errors import UsageError

if TYPE_CHECKING:
    from lolama.info import Information, MemoryNeed
    from lolama_core.protocols.types import JSON

EXAMPLES = """\b
Examples:
  lolama info demo
  lolama info ./my-model --context 4096
  lolama info tinyllama --json
"""

_CHAT = {True: "yes", False: "no: it continues text", None: None}


def info(
    model: options.ModelArgument,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            help="Tell the memory for this many tokens, the answer's included.",
            metavar="INT",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show what a model is, and the memory it needs.

    Architecture, parameters, license, files, and whether it fits here. No weight is read. Of a model that is
    not downloaded it tells what is known without. Memory is the peak of one generation without pictures, on a
    CPU beside what Python and torch take.
    """
    if context is not None and context < 1:
        raise UsageError("--context", f"{context} is not a number of tokens", "use 1 or more")
    output = Output()
    from lolama.info import about

    found = about(model, context=context)
    if context is not None and context > (found.context_length or context):
        reason = f"{context:,} tokens are more than the {found.context_length:,} of {model}"
        raise UsageError("--context", reason, "give fewer")
    if as_json:
        INFO.write(output, dataclasses.asdict(found))
    else:
        write_sections(output, _rows(found))


def _rows(found: Information) -> Iterator[tuple[str, str, str]]:
    from lolama.downloads import size_text

    facts: tuple[tuple[str, str | None], ...] = (
        ("name", found.name),
        ("about", found.about),
        ("downloaded", "yes" if found.downloaded else f"no: lolama pull {found.name}"),
        ("Hugging Face id", found.repo),
        ("revision", found.revision),
        ("license", found.license or "not known here"),
        ("parameters", _parameters(found)),
        ("download", _download(found)),
        ("stored as", _stored(found)),
        ("chat template", _CHAT[found.chat_template]),
    )
    for name, value in facts:
        if value is not None:
            yield "model", name, value
    if found.shape is not None:
        yield from (("shape", name, value) for name, value in _shape(found))
    yield from (("files", name, value) for name, value in _files(found))
    for weights, needs in groupby(found.memory, key=lambda need: need.weights):
        yield "memory", weights, _memory(list(needs))
    if not found.downloaded:
        yield "memory", "", "not known before it is downloaded"
    if found.memory and found.available_bytes is not None:
        yield "memory", "available", f"{size_text(found.available_bytes)} on {found.device}"


def _parameters(found: Information) -> str | None:
    if found.parameters is not None:
        return f"{found.parameters:,}"
    return f"about {found.size}" if found.size else None


def _download(found: Information) -> str | None:
    from lolama.downloads import size_text

    return f"about {size_text(found.download_bytes)}" if found.download_bytes else None


def _stored(found: Information) -> str | None:
    if found.dtype is None or found.quantization is None:
        return found.dtype
    return f"{found.quantization}, the rest {found.dtype}"


def _shape(found: Information) -> Iterator[tuple[str, str]]:
    shape = found.shape or {}
    yield "family", str(found.family)
    yield "layers", f"{shape.get('num_layers')} of width {shape.get('d_model')}"
    heads, shared = shape.get("num_heads"), shape.get("num_kv_heads")
    yield "heads", f"{heads}, of keys and values {shared or heads}"
    yield "feed-forward", _feed_forward(shape)
    yield "vocabulary", f"{shape.get('vocab_size'):,}"
    window = shape.get("sliding_window")
    seen = f", {window:,} of them seen from each" if isinstance(window, int) else ""
    sliding = shape.get("sliding_layers")
    if seen and isinstance(sliding, list):
        seen += f" in {len(sliding)} of {shape.get('num_layers')} layers"
    yield "context", f"{found.context_length:,} tokens{seen}"


def _feed_forward(shape: Mapping[str, JSON]) -> str:
    experts, dense = shape.get("num_experts"), shape.get("dense_layers")
    if experts is None:
        return f"width {shape.get('hidden_dim')}"
    chosen = shape.get("experts_per_token")
    text = f"{chosen} of {experts} experts of width {shape.get('expert_dim')} for each token"
    if shape.get("shared_expert_dim"):
        text += f", and a shared one of {shape['shared_expert_dim']}"
    if isinstance(dense, list):
        layers = f"{len(dense)} of {shape.get('num_layers')} layers"
        text += f"; in {layers} none, but width {shape.get('hidden_dim')}"
    return text


def _files(found: Information) -> Iterator[tuple[str, str]]:
    """Size and name; the folder stands once before them, if it is the same of all."""
    from lolama.downloads import size_text

    names = [Path(file.name) for file in found.files]
    folders = {path.parent for path in names}
    together = len(folders) == 1 and len(names) > 1 and names[0].is_absolute()
    if together:
        yield "folder", str(*folders)
    for file, path in zip(found.files, names, strict=True):
        yield size_text(file.bytes), path.name if together else file.name


def _memory(needs: list[MemoryNeed]) -> str:
    from lolama.downloads import size_text

    words = {True: "", False: " (does not fit)", None: ""}
    sizes = [f"{size_text(n.bytes)} for {n.context:,} tokens{words[n.fits]}" for n in needs]
    return ", ".join(sizes) + ("; fits here" if all(need.fits for need in needs) else "")
