"""The import contracts hold, and each of them breaks when it is violated.

A contract that cannot fail is worse than none, so every one in the root pyproject.toml has a violation
here, planted in a copy of the sources.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]


@dataclass(frozen=True)
class Violation:
    contract: str
    module: str
    statement: str


VIOLATIONS = [
    Violation("layers", "lolama_core", "import lolama_hub"),
    Violation("layers", "lolama_core", "import lolama_cli"),
    Violation("layers", "lolama_hub", "import lolama"),
    Violation("layers", "lolama_vision", "import lolama_quant"),
    Violation("layers", "lolama_quant", "from lolama_hub import __about__"),
    Violation("layers", "lolama_hub", "import lolama_serve"),
    Violation("layers", "lolama_serve", "from lolama_quant import __about__"),
    Violation("layers", "lolama_serve", "def late():\n    import lolama"),
    Violation("layers", "lolama", "import lolama_cli"),
    Violation("siblings", "lolama_vision", "import lolama_core"),
    Violation("siblings", "lolama_quant", "from lolama_core import Llama"),
    Violation("siblings", "lolama_hub", "from lolama_core.model.config import LlamaConfig"),
    Violation("siblings", "lolama_hub", "def late():\n    import lolama_core.model.config"),
    Violation("siblings", "lolama_serve", "from lolama_core import load_model"),
    Violation("siblings", "lolama_serve", "import lolama_core.generation.engine"),
    Violation("protocols", "lolama_core.protocols", "import lolama_core"),
    Violation(
        "protocols", "lolama_core.protocols", "from lolama_core.model.config import LlamaConfig"
    ),
    Violation("rooms", "lolama_core.model", "import lolama_core.runtime.runner"),
    Violation("rooms", "lolama_core.runtime", "import lolama_core.generation.generator"),
    Violation("rooms", "lolama_core.text", "def late():\n    import lolama_core.runtime.runner"),
    Violation("rooms", "lolama_core.files", "import lolama_core.model.config"),
    Violation("hub-rooms", "lolama_hub.folder", "import lolama_hub.download.api"),
    Violation("hub-rooms", "lolama_hub.folder", "import lolama_hub.gguf.blocks"),
    Violation("hub-rooms", "lolama_hub.store", "import lolama_hub.folder.fields"),
    Violation("quant-rooms", "lolama_quant.cpu", "import lolama_quant.int8.absmax"),
    Violation(
        "quant-rooms", "lolama_quant.metal", "def late():\n    import lolama_quant.triton.compiler"
    ),
    Violation("quant-rooms", "lolama_quant.int8", "import lolama_quant.linear_kernel"),
    Violation("face-rooms", "lolama.names", "import lolama.wiring"),
    Violation("face-rooms", "lolama.quantize", "def late():\n    import lolama.wiring"),
    Violation("cli-rooms", "lolama_cli.batch", "import lolama_cli.chat.loop"),
    Violation("cli-rooms", "lolama_cli.chat", "import lolama_cli.commands.generate"),
    Violation("cli-rooms", "lolama_cli.commands", "def late():\n    import lolama_cli.app"),
    Violation("wiring", "lolama_cli", "import lolama_core"),
    Violation("wiring", "lolama_cli", "from lolama_hub import HuggingFaceSource"),
    Violation("wiring", "lolama_cli", "import lolama_serve"),
    Violation("front-door", "lolama", "from lolama_core.model.config import LlamaConfig"),
    Violation("front-door", "lolama", "from lolama_quant.int8 import quantizer"),
    Violation("front-door", "lolama", "import lolama_serve.__about__"),
]
HARMLESS = [
    Violation("", "lolama_hub", "from lolama_core.protocols.errors import ModelError"),
    Violation("", "lolama_serve", "from lolama_core.protocols.types import ModelFiles"),
    Violation("", "lolama_cli", "import lolama\nfrom lolama_core.protocols import errors"),
    Violation(
        "", "lolama", "import lolama_core, lolama_hub, lolama_quant, lolama_serve, lolama_vision"
    ),
]


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    sources = [str(path) for path in (tree / "packages").glob("*/src")]
    program = "from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sources), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources and the contracts, free to be spoilt."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for source in (ROOT / "packages").glob("*/src"):
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(source, tmp_path / source.relative_to(ROOT), ignore=ignored)
    return tmp_path


def plant(tree: Path, violations: Iterable[Violation]) -> dict[Violation, str]:
    """Put each at the end of its module, or into a module of its own if that is a folder; their names."""
    planted = {}
    for number, violation in enumerate(violations):
        path = f"packages/*/src/{violation.module.replace('.', '/')}"
        (place,) = [*tree.glob(path), *tree.glob(f"{path}.py")]
        name = violation.module
        if place.is_dir():
            name += f".planted_{number}"
            place /= f"planted_{number}.py"
        with place.open("a", encoding="utf-8") as file:
            file.write(violation.statement + "\n")
        planted[violation] = name
    return planted


def broken(output: str) -> dict[str, str]:
    """Contract → what the linter says breaks it."""
    details = output.partition("Broken contracts")[2]
    names = {contract["id"]: contract["name"] for contract in CONFIG["contracts"]}
    starts = {details.find(f"{name}\n--"): id_ for id_, name in names.items()}
    found = sorted(start for start in starts if start >= 0)
    ends = [*found[1:], len(details)]
    return {starts[at]: details[at:end] for at, end in zip(found, ends, strict=True)}


def test_the_sources_keep_every_contract_and_so_does_what_the_design_allows(tree: Path) -> None:
    plant(tree, HARMLESS)
    result = lint(tree)
    assert result.returncode == 0, result.stdout


def test_every_contract_has_a_violation_here() -> None:
    assert {contract["id"] for contract in CONFIG["contracts"]} == {v.contract for v in VIOLATIONS}


def test_each_violation_breaks_its_contract(tree: Path) -> None:
    planted = plant(tree, VIOLATIONS)
    result = lint(tree)
    assert result.returncode == 1
    found = broken(result.stdout)
    for violation, module in planted.items():
        assert module in found[violation.contract], (violation, result.stdout)
