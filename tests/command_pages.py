"""Makes docs/commands/, docs/json.md and docs/settings.md of the command line itself.

python tests/command_pages.py
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"

INDEX = """# Commands

Made by `tests/command_pages.py` of the code; `lolama COMMAND --help` says the same.

| command | what it does |
|---|---|
{commands}

Options before the command; the first two may also stand behind it:

{options}

Names of commands and options complete after Tab, and so do the names of models, once
`lolama --install-completion` has told the shell (bash, zsh, fish, PowerShell). It writes into the files that
your shell reads at its start; `lolama --show-completion` prints what would be written.

[What `--json` writes](../json.md) and [what `--batch` reads](../batch.md) have pages of their own.

Standard output is the payload and nothing else; what there is to say about it goes to standard error. A
failure is one line, `error: what: why; what to do`, and an exit code: 2 usage, 3 model or picture, 4 network,
5 authorization, 6 disk or memory, 130 Ctrl-C, 141 closed pipe, 143 SIGTERM; 1 is a bug. Colors are left out
where `NO_COLOR` is set, and where nobody reads on a terminal.
"""

JSON = """# What `--json` writes

Made by `tests/command_pages.py` of `lolama_cli.schemas`. One object on one line; on a terminal spread out.
Its `schema` names what it is, and a version: within a version fields may be added; none goes, or changes its
type or meaning. In a path `a.b` is a field of an object, `a[].b` one of the objects in a list, `a.*` any key.
"""

SETTINGS = """# Settings of a generation

Made by `tests/command_pages.py` of `GenerationConfig`. Each setting is

- an option of [lolama generate](commands/generate.md) and [lolama chat](commands/chat.md);
- in a chat, a name for `/set`, as in `/set typical-p 0.9`;
- a key of a line of [a batch](batch.md), and of `settings` in [what `--json` writes](json.md), where the seed
  has a place of its own;
- if it is a number, or true or false, a default that you may set: `lolama config set typical-p 0.9`, or
  `LOLAMA_TYPICAL_P=0.9`;
- a keyword [in Python](python.md). Two have longer names there: `max_new_tokens` and `min_new_tokens`.
  `help(lolama.GenerationConfig)` says more about each.

An option that takes a list may be repeated. Token ids are written as `5,7,9`, numbers for token ids as
`15=-2.5`, and a line break, in most shells, as `$'\\n'`. `none` is an empty list and stands alone, but for
`--stop` it is a text.

In a chat `/set suppress-tokens 5,7,9` and `/set logit-bias 15=-2.5 16=1` set several. A value that begins
with `[` is a list in JSON: `/set dry-sequence-breakers ["\\n", ":"]`, `/set stop ["[INST]"]`. `none` is an
empty list for every setting there. Any other value of a list of texts is one text, as it stands. `/set`
shows each value as it can be typed.

A model's authors may recommend settings. The model's own value counts for every setting that nobody asked for
by option, variable, line or `/set`. Five are excepted: for the temperature, top-p, top-k, min-p and the
repetition penalty the defaults below count.

| key | option | in JSON | default | |
|---|---|---|---|---|
{rows}
"""


def pages() -> dict[Path, str]:
    """Path → what stands there."""
    from lolama_cli.app import root_command

    program: Any = root_command()
    commands = "\n".join(
        f"| [`lolama {name}`]({name}.md) | {_first_line(command)} |"
        for name, command in program.commands.items()
    )
    index = INDEX.format(commands=commands, options="\n".join(_options(program)))
    made = {
        DOCS / "commands" / "README.md": index,
        DOCS / "json.md": _json_page(),
        DOCS / "settings.md": _settings_page(),
    }
    for name, command in program.commands.items():
        made[DOCS / "commands" / f"{name}.md"] = _page(name, command)
    return made


def main() -> None:
    """Write every page, and remove those of commands that are gone."""
    made = pages()
    (DOCS / "commands").mkdir(exist_ok=True)
    for path in (DOCS / "commands").iterdir():
        if path not in made:
            path.unlink()
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
        print(path, file=sys.stderr)


def _page(name: str, command: Any) -> str:
    parts = [f"# lolama {name}", _about(command)]
    subcommands = getattr(command, "commands", {})
    if subcommands:
        for sub, below in subcommands.items():
            parts += [f"## lolama {name} {sub}", _about(below), _usage(f"{name} {sub}", below)]
    else:
        parts += [_usage(name, command)]
    examples = textwrap.dedent(command.epilog.partition("Examples:\n")[2]).strip()
    parts += ["## Examples", f"```bash\n{examples}\n```"]
    return "\n\n".join(parts) + "\n"


def _about(command: Any) -> str:
    return str(command.help).strip()


def _first_line(command: Any) -> str:
    return _about(command).partition(".")[0]


def _usage(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = [_argument_name(p) if p.required else f"[{_argument_name(p)}]" for p in arguments]
    lines = ["```", " ".join(["lolama", name, "[OPTIONS]", *words]), "```", ""]
    shown = [p for p in arguments if not p.hidden]
    if shown:
        lines += ["| argument | |", "|---|---|"]
        lines += [f"| `{_argument_name(p)}` | {_cell(p.help or '')} |" for p in shown]
        lines.append("")
    return "\n".join([*lines, *_options(command)]).rstrip("\n")


def _argument_name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _options(command: Any) -> Iterator[str]:
    yield "| option | | default |"
    yield "|---|---|---|"
    in_table = [each for each in command.params if not getattr(each, "rich_help_panel", None)]
    for parameter in in_table:
        if parameter.param_type_name == "option":
            names = ", ".join(parameter.opts)
            if not parameter.is_flag:
                names += f" {parameter.metavar}"
            default = parameter.default
            shown = "" if default is None or parameter.is_flag else f"`{default}`"
            yield f"| `{names}` | {_cell(parameter.help or '')} | {shown} |"
    if len(in_table) < len(command.params):
        yield "\n[More settings of sampling](../settings.md) are options, too."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _json_page() -> str:
    from lolama_cli.schemas import ALL

    parts = [JSON]
    for schema in ALL:
        parts.append(f"## {schema.id}\n\n{schema.about[:1].upper()}{schema.about[1:]}.\n")
        # Settings have a page of their own.
        elsewhere = [path for path in schema.fields if re.match(r"settings\.\w", path)]
        fields = {path: schema.fields[path] for path in schema.fields if path not in elsewhere}
        rows = [f"| `{path}` | {kind} | {_cell(about)} |" for path, (kind, about) in fields.items()]
        parts.append("\n".join(["| field | type | |", "|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _settings_page() -> str:
    from lolama_cli.settings import SETTINGS as TABLE
    from lolama_cli.settings import option_of, to_json

    rows = "\n".join(
        f"| `{key}` | `{option_of(key)}` | {row.kind} | `{json.dumps(to_json(row.default))}` "
        f"| {_cell(row.help)} |"
        for key, row in TABLE.items()
    )
    return SETTINGS.format(rows=rows)


if __name__ == "__main__":
    main()
