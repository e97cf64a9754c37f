"""The import contracts hold, and each of them breaks when it is violated.

A contract that cannot fail is worse than none, so every one in the root pyproject.toml has a violation
here, planted in a copy of the sources.
"""

import os
import shutil
import subprocess
import sys
import tomllib
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
    Violation("layers", "lolama", "import lolama_cli"),
    Violation("siblings", "lolama_vision", "import lolama_core"),
    Violation("siblings", "lolama_quant", "from lolama_core import Llama"),
    Violation("siblings", "lolama_hub", "from lolama_core.config import LlamaConfig"),
    Violation("siblings", "lolama_hub", "def late():\n    import lolama_core.config"),
    Violation("protocols", "lolama_core.protocols", "import lolama_core"),
    Violation("protocols", "lolama_core.protocols", "from lolama_core.config import LlamaConfig"),
    Violation("wiring", "lolama_cli", "import lolama_core"),
    Violation("wiring", "lolama_cli", "from lolama_hub import HuggingFaceSource"),
    Violation("front-door", "lolama", "from lolama_core.config import LlamaConfig"),
    Violation("front-door", "lolama", "from lolama_quant import quantizer"),
]
HARMLESS = [
    Violation("", "lolama_hub", "from lolama_core.protocols.errors import ModelError"),
    Violation("", "lolama_cli", "import lolama\nfrom lolama_core.protocols import errors"),
    Violation("", "lolama", "import lolama_core, lolama_hub, lolama_quant, lolama_vision"),
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


def plant(tree: Path, violation: Violation) -> None:
    (package,) = tree.glob(f"packages/*/src/{violation.module.replace('.', '/')}")
    (package / "planted.py").write_text(violation.statement + "\n", encoding="utf-8")


def test_the_sources_keep_every_contract(tree: Path) -> None:
    result = lint(tree)
    assert result.returncode == 0, result.stdout


def test_every_contract_has_a_violation_here() -> None:
    assert {contract["id"] for contract in CONFIG["contracts"]} == {v.contract for v in VIOLATIONS}


@pytest.mark.parametrize("violation", VIOLATIONS, ids=lambda v: f"{v.contract}-{v.module}")
def test_a_violation_breaks_its_contract(tree: Path, violation: Violation) -> None:
    plant(tree, violation)
    result = lint(tree)
    name = next(c["name"] for c in CONFIG["contracts"] if c["id"] == violation.contract)
    assert result.returncode == 1
    assert f"{name} BROKEN" in result.stdout, result.stdout


@pytest.mark.parametrize("import_", HARMLESS, ids=lambda v: v.module)
def test_what_the_design_allows_is_allowed(tree: Path, import_: Violation) -> None:
    plant(tree, import_)
    result = lint(tree)
    assert result.returncode == 0, result.stdout
