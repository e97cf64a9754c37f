"""``lolama doctor``: what is installed and in use, and why not the rest."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from lolama_cli.console import Output, visible

if TYPE_CHECKING:
    from lolama.report import Broken, Device, Kernel, Report

SCHEMA = "lolama.doctor/1"


def doctor(
    as_json: Annotated[
        bool,
        typer.Option("--json", help=f'One JSON object, with "schema": "{SCHEMA}".'),
    ] = False,
) -> None:
    """Show what is installed and in use, and why not the rest.

    On a terminal a table; into a pipe or file one line a fact: section, name and value, separated by tabs.
    Something that is missing is a fact like others, not an error.
    """
    from lolama.report import gather

    output = Output()
    report = gather()
    if as_json:
        facts = {"schema": SCHEMA, **dataclasses.asdict(report)}
        output.write(json.dumps(facts, indent=2) + "\n")
    elif output.is_terminal:
        _show_table(_rows(report))
    else:
        for row in [("section", "name", "value"), *_rows(report)]:
            output.write("\t".join(row) + "\n")


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
        ("products", report.linear_kernels),
        ("decoding", report.decoder_kernels),
    ):
        for kernel in kernels:
            about = _about_broken(kernel) if kernel.description is None else kernel.description
            yield section, kernel.name, about
        if not kernels:
            yield section, "torch", "no kernel is installed (pip install lolama-quant)"
    for quantizer in report.quantizers:
        about = _about_broken(quantizer) if quantizer.description is None else quantizer.description
        yield "quantising", quantizer.name, about
    for model in report.models:
        yield "models", model.name, f"ships with {model.package}"
    for broken in report.broken:
        yield "broken", broken.name, _about_broken(broken)


def _about_broken(found: Kernel | Broken) -> str:
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
            memory = f"{device.free_memory_bytes / 1e9:.1f} of {memory} free"
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


def _show_table(rows: Iterator[tuple[str, str, str]]) -> None:
    """A section's name stands before its first fact alone."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def cell(text: str) -> Text:
        encoding = sys.stdout.encoding
        return Text(visible(text).encode(encoding, errors="replace").decode(encoding))

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    last = None
    for section, name, value in rows:
        if section != last and last is not None:
            table.add_row()
        table.add_row(section if section != last else "", cell(name), cell(value))
        last = section
    Console(file=sys.stdout, markup=False, emoji=False, highlight=False).print(table)
