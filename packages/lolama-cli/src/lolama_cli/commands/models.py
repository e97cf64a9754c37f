"""``lolama models``: the names that ``-m`` takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lolama_cli import options
from lolama_cli.console import Output, note, visible
from lolama_cli.schemas import MODELS
from lolama_cli.tables import cell, print_table

if TYPE_CHECKING:
    from rich.text import Text

    from lolama.kept import Kept
    from lolama_core.protocols.source import ModelInfo, StoredModel

EXAMPLES = """\b
Examples:
  lolama models
  lolama models --json | jq -r ".models[].name"
"""


_COLUMNS = (
    *("alias", "parameters", "kind", "description", "id"),
    *("size", "license", "gated", "downloaded", "last used", "quantized", "context"),
)

_GATED = "A gated model is fetched once you have accepted its license on huggingface.co and set HF_TOKEN."

_KINDS = {
    "text": "text",
    "vision": "text and pictures",
    "": "without an alias",
}
"""Groups of the table, in order."""


@dataclass(frozen=True)
class _Row:
    """A name and what is here of it.

    Attributes:
        info: The name.
        here: None for what is not downloaded.
        quantized: Bytes of the quantized models that were made from it and are kept.
    """

    info: ModelInfo
    here: StoredModel | None
    quantized: int

    @property
    def state(self) -> tuple[str, str]:
        """Whether it is downloaded, in words, and the style of these words."""
        if self.here is None:
            return "", ""
        if self.here.shared:
            return "in HF's cache", "green"
        return ("downloaded", "green") if self.here.complete else ("in part", "yellow")

    @property
    def size(self) -> str:
        """The space that it takes on the disk, or would about take, in words."""
        from lolama.downloads import size_text

        if self.here is not None:
            return size_text(self.here.size)
        return f"~{self.info.size / 1e9:.1f} GB" if self.info.size else ""

    def facts(self) -> dict[str, object]:
        """The values that ``--json`` writes."""
        info, here = self.info, self.here
        stored = None
        if here is not None:
            used = datetime.fromtimestamp(here.last_used, UTC).isoformat("T", "seconds")
            stored = {
                "bytes": here.size,
                "complete": here.complete,
                "shared": here.shared,
                "revision": here.revision,
                "last_used": used,
            }
        return {
            "name": info.alias,
            "repo": info.repo or None,
            "parameters": info.parameters or None,
            "kind": info.kind or None,
            "description": info.description,
            "license": info.license or None,
            "gated": info.gated,
            "download_bytes": info.size or None,
            "context": info.context or None,
            "stored": stored,
            "int8_bytes": self.quantized or None,
        }

    def fields(self) -> tuple[str, ...]:
        """The fields of a line for other programs: sizes in bytes, dates in ISO 8601."""
        info, here = self.info, self.here
        used = (
            ""
            if here is None
            else datetime.fromtimestamp(here.last_used, UTC).isoformat("T", "seconds")
        )
        downloaded = ""
        if here is not None:
            how = "shared " if here.shared else "" if here.complete else "partly "
            downloaded = f"{how}{here.size}"
        return (
            *(info.alias, info.parameters, info.kind, info.description, info.repo),
            *(f"{info.size or ''}", info.license, "yes" if info.gated else "no", downloaded, used),
            *(f"{self.quantized or ''}", f"{info.context or ''}"),
        )


def models(as_json: options.Json = False) -> None:
    """List the models that have a name, and what is downloaded.

    On a terminal a table, text models first; into a pipe or file one line a model, its fields separated by
    tabs.
    """
    from lolama import downloads, kept, names

    output = Output()
    rows = _rows(names.known_models(), downloads.stored_models(), kept.kept_models())
    if as_json:
        MODELS.write(output, {"models": [row.facts() for row in rows]})
        return
    if not output.is_terminal:
        for fields in (_COLUMNS, *(row.fields() for row in rows)):
            output.write(visible("\t".join(fields), keep="\t") + "\n")
        return
    _show_table(rows)
    if any(row.info.gated and row.here is None for row in rows):
        note(_GATED)
    note("Or give -m owner/name of the Hugging Face Hub, or the path of a model's folder.")


def _rows(
    known: Sequence[ModelInfo], stored: Sequence[StoredModel], kept: Sequence[Kept]
) -> list[_Row]:
    """The names that are known, then what was downloaded without one, then what quantized models are of."""
    # If there are several commits, this is the one that `-m` would use.
    newest: dict[str, StoredModel] = {}
    for model in sorted(stored, key=_precedence):
        newest[model.repo] = model
    sizes: Counter[str] = Counter()
    for one in kept:
        sizes[one.source] += one.bytes
    rows = []
    for info in known:
        repo = info.repo.partition("@")[0]
        rows.append(_Row(info, newest.pop(repo, None), sizes.pop(repo or info.alias, 0)))
    rows += [
        _Row(_unnamed(repo, repo), model, sizes.pop(repo, 0)) for repo, model in newest.items()
    ]
    return [*rows, *(_Row(_unnamed(name), None, size) for name, size in sizes.items())]


def _unnamed(name: str, repo: str = "") -> ModelInfo:
    from lolama_core.protocols.source import ModelInfo

    return ModelInfo(alias=name, repo=repo, parameters="", description="", kind="", license="")


def _precedence(model: StoredModel) -> tuple[bool, bool, bool, float]:
    return (model.complete, bool(model.refs), not model.shared, model.last_used)


def _show_table(rows: Sequence[_Row]) -> None:
    """The table in 80 columns, two lines a model: the id under the description, bytes under parameters.

    What it ``reads`` is the context, in units of 1024 tokens.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), show_edge=False, expand=True)
    table.add_column("alias", style="bold", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("reads", justify="right", no_wrap=True)
    table.add_column("description, Hugging Face id", overflow="fold", ratio=1)
    for kind, title in _KINDS.items():
        group = [row for row in rows if row.info.kind == kind]
        if group:
            table.add_row(Text(title, style="underline"))
        for row in group:
            table.add_row(*_cells(row))
        table.add_section()
    print_table(table)


def _cells(row: _Row) -> tuple[Text, Text, Text, Text]:
    from rich.text import Text

    from lolama.downloads import size_text

    info = row.info
    about = cell(info.description)
    if info.repo and info.repo != info.alias:
        about.append("\n" + visible(info.repo), style="dim")
    alias, size = cell(info.alias), Text(info.parameters)
    state, style = row.state
    if state:
        alias.append("\n" + state, style=style)
    if row.quantized:
        alias.append(f"\nquantized {size_text(row.quantized)}", style="green")
    if row.size:
        size.append("\n" + row.size, style="dim")
    reads = "" if not info.context else str(info.context)
    if info.context >= 1024:
        reads = f"{info.context // 1024}k"
    return alias, size, Text(reads), about
