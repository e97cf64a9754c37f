"""``lolama doctor``: what is installed and in use, and why not the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from lolama_cli import options
from lolama_cli.console import Output
from lolama_cli.schemas import DOCTOR
from lolama_cli.tables import write_sections

if TYPE_CHECKING:
    from lolama.device import Device
    from lolama.doctor import BrokenProvider, Kernel, Report

EXAMPLES = """\b
Examples:
  lolama doctor
  lolama doctor --json
  lolama doctor --deep
"""


def doctor(
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Import torch, too, and ask it: slower, finds a broken one."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show what is installed and in use, and why not the rest.

    On a terminal a table; into a pipe or file one line a fact: section, name and value, separated by tabs.
    Something that is missing is a fact like others, not an error. Devices are told from torch's files, the
    system and the driver; with --deep torch itself is asked.
    """
    from lolama.doctor import gather

    output = Output()
    report = gather(ask_torch=deep)
    if as_json:
        DOCTOR.write(output, dataclasses.asdict(report))
    else:
        write_sections(output, _rows(report))


def _rows(report: Report) -> Iterator[tuple[str, str, str]]:
    """Section, name and value of every fact."""
    for name, version in report.versions.items():
        yield "versions", name, version or f"not installed: pip install {name}"
    for device in report.devices:
        yield "devices", device.name, _about(device)
    if report.device is not None:
        yield "devices", "--device auto", report.device
        yield "devices", "--dtype auto", _about_dtypes(report.dtypes)
    for section, kernels in (
        ("multiplications", report.linear_kernels),
        ("decoding", report.decoder_kernels),
    ):
        for kernel in kernels:
            about = _about_broken(kernel) if kernel.description is None else kernel.description
            yield section, kernel.name, about
        if not kernels:
            yield section, "torch", "no kernel is installed (pip install lolama-quant)"
    for quantizer in report.quantizers:
        about = _about_broken(quantizer) if quantizer.description is None else quantizer.description
        yield "quantizing", quantizer.name, about
    for model in report.models:
        yield "models", model.name, f"ships with {model.package}"
    for broken in report.broken:
        yield "broken", broken.name, _about_broken(broken)


def _about_broken(found: Kernel | BrokenProvider) -> str:
    return f"cannot be loaded: {found.problem} (reinstall {found.package})"


def _about(device: Device) -> str:
    if device.problem is not None:
        return f"not available here: {device.problem}"
    facts = [device.processor, device.instruction_set]
    if device.cores is not None:
        facts.append(f"{device.cores} core{'s' if device.cores > 1 else ''}")
    if device.threads is not None:
        facts.append(f"{device.threads} thread{'s' if device.threads > 1 else ''}")
    if device.memory_bytes is not None:
        memory = f"{device.memory_bytes / 1e9:.1f} GB"
        if device.free_memory_bytes is not None:
            memory = f"{device.free_memory_bytes / 1e9:.1f} of {memory} available"
        facts.append(memory)
    if device.native_bfloat16 is not None:
        facts.append("native bfloat16" if device.native_bfloat16 else "no native bfloat16")
    return ", ".join(fact for fact in facts if fact)


def _about_dtypes(dtypes: dict[str, str]) -> str:
    kept = [stored for stored, used in dtypes.items() if stored == used]
    about = [f"{stored} weights as {used}" for stored, used in dtypes.items() if stored != used]
    if kept:
        about.append(f"{', '.join(kept)} as stored")
    return "; ".join(about)
