"""Everything that ``lolama info`` tells about a model, without reading its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import lolama_core
from lolama import memory, names
from lolama.devices import all_devices, default_device
from lolama_core.protocols.errors import NetworkError
from lolama_core.protocols.source import DownloadPlan, ModelInfo
from lolama_core.protocols.types import JSON, ModelFiles

_CONTEXTS = (512, 2048, 8192)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of the model; its name with the folder if it is here."""

    name: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """What one way to load the model needs, at one length of context.

    Attributes:
        weights: Dtype they are loaded as, ``int8`` or ``int4``.
        context: Positions of prompt and answer together.
        bytes: The bytes at the peak; see `memory.PeakMemory`.
        fits: Whether that is available on the device; None if the system does not tell.
    """

    weights: str
    context: int
    bytes: int
    fits: bool | None


@dataclass(frozen=True, kw_only=True)
class Information:
    """What there is to say about a model. A field is None where it is not known.

    Attributes:
        name: As it was named.
        downloaded: Whether it can be used without a download.
        repo, revision: On the Hugging Face Hub.
        family: What builds it.
        parameters: How many.
        about, size: Words from the list of aliases; size is the rough number of parameters, as "1.1B".
        download_bytes: About what a download takes, as far as the list or the hub tells.
        shape: Sizes of the language model, by the names of `LlamaConfig`.
        context_length: Positions it attends over.
        chat_template: Whether it has one.
        dtype: How the weights are stored.
        quantization: Scheme of weights that are quantized; None if they are not, or nobody knows.
        license: As far as it is known here.
        files: The files of weights and tokenizer.
        device: Where it would run.
        available_bytes: Bytes of memory that are free there.
        memory: What it needs.
    """

    name: str
    downloaded: bool
    repo: str | None = None
    revision: str | None = None
    family: str | None = None
    parameters: int | None = None
    about: str | None = None
    size: str | None = None
    download_bytes: int | None = None
    shape: Mapping[str, JSON] | None = None
    context_length: int | None = None
    chat_template: bool | None = None
    dtype: str | None = None
    quantization: str | None = None
    license: str | None = None
    files: tuple[File, ...] = ()
    device: str | None = None
    available_bytes: int | None = None
    memory: tuple[MemoryNeed, ...] = ()


def about(name: str, *, context: int | None = None) -> Information:
    """Look at a model that is here, or at what is known of one that is not.

    Args:
        name: As for `load_model`.
        context: The length to tell the memory for; several if not given.

    Raises:
        UsageError: for a name that means nothing.
        NetworkError, AuthorisationError: if it is not here, has no alias, and the hub tells nothing.
        ModelError: if its files cannot be used.
    """
    try:
        files = names.resolve(name, fetch=False)
    except NetworkError as error:
        return _of_absent(name, error)
    return _of_files(name, files, context)


def _of_files(name: str, files: ModelFiles, context: int | None) -> Information:
    info = _known(name, files.repo)
    length = names.context_length(files)
    device = default_device(all_devices())
    kind, available = device.name.partition(":")[0], device.free_memory_bytes
    quantization = files.config.get("quantization")
    paths = {one.path for one in files.tensors.values()}
    if files.tokenizer.tokenizer_json is not None:
        paths.add(files.tokenizer.tokenizer_json)
    needs = []
    for dtype, bits in _ways(files):
        for positions in _contexts(length, context):
            need = memory.needed(
                files,
                context=positions,
                dtype=dtype,
                bits=bits,
                on_cpu=kind == "cpu",
            )
            fits = None if available is None else need.total <= available
            weights = f"int{bits}" if bits else dtype
            needs.append(
                MemoryNeed(weights=weights, context=positions, bytes=need.total, fits=fits)
            )
    return Information(
        name=name,
        downloaded=True,
        repo=files.repo or None,
        revision=files.revision or None,
        family=files.family,
        parameters=memory.parameters(files),
        about=info.description if info is not None else None,
        size=info.parameters if info is not None else None,
        shape=dict(names.text_shape(files)),
        context_length=length,
        chat_template=files.tokenizer.chat_template is not None,
        dtype=files.config["dtype"],
        quantization=str(quantization.get("name")) if quantization else None,
        license=info.license if info is not None else _license_beside(paths),
        files=tuple(File(name=str(path), bytes=path.stat().st_size) for path in sorted(paths)),
        device=kind,
        available_bytes=available,
        memory=tuple(needs),
    )


def _of_absent(name: str, error: NetworkError) -> Information:
    """What the list of aliases says, and the hub's list of files if it can be reached."""
    info = _known(name, name)
    plan: DownloadPlan | None = None
    try:
        plan = lolama_core.installed_source().plan(name, lolama_core.FileCheckpointIO())
    except NetworkError:
        if info is None:
            raise error from None
    return Information(
        name=name,
        downloaded=False,
        repo=plan.repo if plan is not None else info.repo if info is not None else None,
        revision=plan.revision if plan is not None else None,
        about=info.description if info is not None else None,
        size=info.parameters if info is not None else None,
        download_bytes=plan.bytes_to_fetch if plan is not None else info.size if info else None,
        license=info.license if info is not None else None,
        files=tuple(File(name=file.name, bytes=file.size) for file in plan.files)
        if plan is not None
        else (),
    )


def _known(name: str, repo: str) -> ModelInfo | None:
    for info in names.known_models():
        if info.alias == name or (repo and info.repo.partition("@")[0] == repo.partition("@")[0]):
            return info
    return None


def _ways(files: ModelFiles) -> list[tuple[str, int]]:
    """Dtype, and bits of weights that are quantized: as stored, in float32, in int8, in int4."""
    stored = files.config["dtype"]
    if files.config.get("quantization"):
        return [(stored, 0)]
    dense = dict.fromkeys((stored, "float32", "bfloat16"))
    return [*((dtype, 0) for dtype in dense), (stored, 8), (stored, 4)]


def _contexts(length: int | None, asked: int | None) -> tuple[int, ...]:
    if asked is not None:
        return (asked,)
    if length is None:
        return _CONTEXTS[:1]
    return (*(short for short in _CONTEXTS if short < length), length)[-3:]


def _license_beside(paths: set[Path]) -> str | None:
    for folder in {path.parent for path in paths}:
        for found in sorted(folder.glob("LICENSE*")):
            return f"see {found}"
    return None
