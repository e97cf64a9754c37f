"""Fixtures: models whose every word is known (`known_model`), and the installed program (`program`)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# pytest imports tests by path (importlib mode), so modules that they share have to be put in reach.
sys.path.insert(0, str(Path(__file__).parent))


if TYPE_CHECKING:
    from warm_program import WarmProgram

# A shell that runs the tests in the background has them ignore Ctrl-C, and every program they start
# would inherit that and rightly ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model: no chat template."""
    import known_model

    return known_model.write(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def warm() -> WarmProgram:
    """The program without the time that its start takes."""
    from warm_program import shared

    return shared()


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as Hugging Face lays models out."""
    import known_model

    return known_model.write_hugging_face(tmp_path_factory.mktemp("models") / "published")


@pytest.fixture(scope="session")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a chat template."""
    import known_model

    directory = tmp_path_factory.mktemp("models") / "chatty"
    return known_model.write(directory, chat_template=known_model.CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a context of 16 tokens."""
    import known_model

    return known_model.write(tmp_path_factory.mktemp("models") / "short", max_seq_len=16)


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a context that holds more than a pipe: a run that nobody reads does not end by itself."""
    import known_model

    return known_model.write(tmp_path_factory.mktemp("models") / "endless", max_seq_len=200_000)


@pytest.fixture(scope="session")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with finite weights and infinite logits."""
    import known_model

    return known_model.write(tmp_path_factory.mktemp("models") / "overflowing", scale=1e38)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server of the built-in models."""
    from served import serving

    with serving("-m", "demo", "-m", "demo-vision") as address:
        yield address
