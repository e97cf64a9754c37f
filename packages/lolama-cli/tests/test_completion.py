"""What a shell is told when someone presses Tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from program import environment, shell
from warm_program import run

from lolama import downloads
from lolama_cli.commands.rm import _removable as removable
from lolama_core.protocols.source import StoredModel

BASH = """
source <(lolama --show-completion)
complete -p lolama
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_lolama_completion lolama
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words: str, env: Mapping[str, str] | None = None) -> list[str]:
    """What real bash offers for the last of ``words``."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    process = subprocess.run(
        ["bash", "-c", BASH, "bash", *words],
        capture_output=True,
        text=True,
        env=environment({"PATH": path, **(env or {})}),
        check=True,
    )
    assert process.stderr == ""
    bound, *offered = process.stdout.splitlines()
    assert bound == "complete -o default -F _lolama_completion lolama"
    return [word for word in offered if word]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_models() -> None:
    assert completed("lolama", "ge") == ["generate"]
    shown = completed("lolama", "generate", "--te")
    assert sorted(shown) == ["--temp", "--temperature", "--template"]
    assert completed("lolama", "chat", "-m", "demo") == ["demo", "demo-vision"]
    assert completed("lolama", "generate", "--dtype", "b") == ["bfloat16"]
    assert completed("lolama", "info", "./") == []  # so that bash offers its paths


@pytest.mark.parametrize(
    ("name", "words", "answer"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "lolama pul"}, '"pull":"Download a model'),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "lolama pul", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            "pull\tDownload a model",
        ),
        (
            "powershell",
            {"_TYPER_COMPLETE_ARGS": "lolama pul", "_TYPER_COMPLETE_WORD_TO_COMPLETE": "pul"},
            "pull:::Download a model",
        ),
    ],
)
def test_other_shells_are_answered(name: str, words: dict[str, str], answer: str) -> None:
    outcome = run(env={"_LOLAMA_COMPLETE": f"complete_{name}", **words})
    assert (outcome.code, outcome.err) == (0, "")
    assert answer in outcome.out.decode()


def test_install_writes_into_the_home_it_has(tmp_path: Path) -> None:
    outcome = shell(f'HOME="{tmp_path}" lolama --install-completion; exit $?')
    assert outcome.code == 0, outcome.err
    assert (tmp_path / ".bash_completions" / "lolama.sh").exists()
    assert str(tmp_path) in (tmp_path / ".bashrc").read_text()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_what_can_be_removed_and_set_completes(tmp_path: Path) -> None:
    nothing = {"LOLAMA_HOME": str(tmp_path)}
    assert completed("lolama", "rm", "", env=nothing) == []
    assert completed("lolama", "config", "set", "te") == ["temperature"]
    assert completed("lolama", "config", "unset", "top-") == ["top-p", "top-k", "top-n-sigma"]


def test_what_is_downloaded_completes_by_its_alias(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path))

    def stored(repo: str, *, shared: bool = False) -> StoredModel:
        return StoredModel(
            repo=repo,
            revision="0" * 40,
            refs=("main",),
            size=1,
            last_used=0.0,
            complete=False,
            shared=shared,
        )

    tiny = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
    models = [stored(tiny), stored("some/one"), stored("in/hf", shared=True)]
    monkeypatch.setattr(downloads, "stored_models", lambda: models)
    assert removable("") == ["some/one", "tinyllama"]
    assert removable("t") == ["tinyllama"]
