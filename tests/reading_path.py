"""Counts what one reads of lolama-core to follow a prompt to its text, and keeps README's table of it.

    python tests/reading_path.py

A code line is one that holds code: no blank line, comment or docstring.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

CORE = Path(__file__).resolve().parents[1] / "packages" / "lolama-core" / "src" / "lolama_core"

FILES = (
    "model/config",
    "model/rope",
    "model/norm",
    "model/attention",
    "model/feed_forward",
    "model/block",
    "model/llama",
    "model/kv_cache",
    "model/cache_slots",
    "model/masks",
    "runtime/runner",
    "generation/request",
    "generation/sampling",
    "generation/text_stream",
    "generation/engine",
    "generation/generator",
    "text/tokenizer",
)
MOST_LINES = 1700

ROW = re.compile(
    r"^(?P<file>\| \[`(?P<name>\S+)`\]\((?P<link>\S+)\) )\| (?P<code>\d+) \| (?P<all>\d+) \|",
    re.MULTILINE,
)
"""A row of README's table: a file of lolama-core, its code lines, and all its lines."""

SUM = re.compile(r"^\| together \| (?P<code>[\d,]+) \| (?P<all>[\d,]+) \|", re.MULTILINE)

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def code_lines(source: str) -> int:
    """How many lines of ``source`` hold code.

    Example:
        >>> code_lines('# a comment' + chr(10) + 'x = (1,' + chr(10) + '     2)' + chr(10))
        2
    """
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        for statement in node.body if isinstance(node, _DOCUMENTED) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                documentation |= set(range(statement.lineno, (statement.end_lineno or 0) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - documentation)


def counts() -> dict[str, tuple[int, int]]:
    """File → code lines, all lines; the reference, which is no part of the path, comes first."""
    sources = {name: (CORE / f"{name}.py").read_text() for name in ("reference", *FILES)}
    return {name: (code_lines(text), text.count("\n")) for name, text in sources.items()}


def with_counts(page: str) -> str:
    """README's text with the true counts in the table of its reading order."""
    total = [0, 0]

    def counted(row: re.Match[str]) -> str:
        source = (CORE / f"{row['name']}.py").read_text()
        found = code_lines(source), source.count("\n")
        total[:] = (before + more for before, more in zip(total, found, strict=True))
        return f"{row['file']}| {found[0]} | {found[1]} |"

    page = ROW.sub(counted, page)
    return SUM.sub(f"| together | {total[0]:,} | {total[1]:,} |", page)


if __name__ == "__main__":
    readme = CORE.parents[3] / "README.md"
    readme.write_text(with_counts(readme.read_text("utf-8")), "utf-8")
    print(f"{'file':24} code   all")
    for name, (code, lines) in counts().items():
        print(f"{name:24} {code:4}  {lines:4}")
    code, lines = map(sum, zip(*counts().values(), strict=True))
    print(f"{'together':24} {code:4}  {lines:4}")
    print(f"{'without the reference':24} {code - counts()['reference'][0]:4}")
