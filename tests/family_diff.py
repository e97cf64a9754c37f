"""Writes into docs/extending.md what the last family took, as git counts it.

python -m tests.family_diff
"""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"
ADDED = "packages/lolama-hub/src/lolama_hub/folder/layouts/granite_moe.py"
SOURCES = ":(glob)packages/*/src/**"
MOST_LINES, MOST_FILES = 60, 4

TITLE = "### For example: Granite 3 MoE\n"
TEXT = """
Granite 3 MoE is Granite with experts, and `model/` has both. What is new is how it is published: {lines}
lines of source in {files} files, as `git show --numstat` counts them. `_tensors` names the parts of a tensor
that holds several, row after row; `experts.expert_fields` and `granite.switches` read the fields that other
families have, too. The tests are two cases in `tests/test_parity.py`, with the experts as they are published
and as transformers has them in memory, and a row in `test_experts.py`. No kernel had to change: those
that know mixtures of experts run this one, too.

```diff
{diff}```
"""


def git(*arguments: str) -> str:
    """What git prints."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, text=True, capture_output=True).stdout


def commit() -> str | None:
    """The one that added the family; None without the history."""
    try:
        if git("rev-parse", "--is-shallow-repository").strip() == "true":
            return None
        return git("log", "--diff-filter=A", "--format=%H", "--", ADDED).split()[-1]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def counts(commit: str) -> tuple[int, int]:
    """Lines of source that a commit added or took away, and the files that have them."""
    rows = git("show", "--format=", "--numstat", commit, "--", SOURCES).splitlines()
    return sum(int(number) for row in rows for number in row.split()[:2]), len(rows)


def diff(commit: str) -> str:
    """Its changes of the sources."""
    shown = git("show", "--format=", "--unified=1", commit, "--", SOURCES)
    dropped = ("diff --git", "index ", "new file", "--- ")
    lines = [line for line in shown.splitlines(keepends=True) if not line.startswith(dropped)]
    return "".join(lines).replace("+++ b/packages/lolama-hub/src/lolama_hub/", "+++ lolama_hub/")


def section(commit: str) -> str:
    """The part of docs/extending.md, with its title."""
    lines, files = counts(commit)
    return TITLE + TEXT.format(lines=lines, files=files, diff=diff(commit))


def with_section(page: str, section: str) -> str:
    """A page whose part below the title is another one."""
    before, _, after = page.partition(TITLE)
    _, heading, rest = after.partition("\n## ")
    return before + section + heading + rest


if __name__ == "__main__":
    found = commit()
    assert found is not None, "git has the history of this checkout"
    PAGE.write_text(with_section(PAGE.read_text("utf-8"), section(found)), "utf-8")
    print(*counts(found))
