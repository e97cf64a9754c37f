from __future__ import annotations

import sys
from pathlib import Path

import pytest

# pytest imports tests by path (importlib mode), so a module beside them has to be put in reach.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@pytest.fixture(scope="session")
def stories() -> Path:
    """A small real model (260 thousand parameters), where there is one beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260K"
    if not folder.is_dir():
        pytest.skip("stories260K is not here")
    return folder
