"""What stands between llama.cpp's tests of its server and ``lolama serve``, without those tests.

``nox -s llama-cpp-server-tests`` fetches and runs them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.llama_cpp_server import known_cases, llama_server

ADAPTER = Path(llama_server.__file__)
STORIES = ["--hf-repo", "ggml-org/test-model-stories260K"]


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(llama_server.MODEL, "stories.gguf")
    return "stories.gguf"


def value(made: list[str], option: str) -> str:
    """What follows the option."""
    return made[made.index(option) + 1]


def test_the_model_is_the_file_that_is_here(model: str) -> None:
    assert value(llama_server.translated(STORIES), "--model") == model


def test_a_model_that_is_not_here_is_refused_by_name() -> None:
    with pytest.raises(llama_server.Refused, match=r"the model ggml-org/models/bert\.gguf is not"):
        llama_server.translated(["--hf-repo", "ggml-org/models", "--hf-file", "bert.gguf"])


@pytest.mark.parametrize("option", ["--context-shift", "--lora", "--reranking", "--tools"])
def test_an_option_that_lolama_has_not_is_refused_by_name(option: str) -> None:
    with pytest.raises(llama_server.Refused, match=f"has no {option}"):
        llama_server.translated([*STORIES, option])


def test_slots_share_a_context_only_if_it_is_unified() -> None:
    slots = [*STORIES, "--ctx-size", "512", "--parallel", "2"]
    assert value(llama_server.translated(slots), "--context") == "256"
    assert value(llama_server.translated([*slots, "--kv-unified"]), "--context") == "512"


def test_names_come_in_their_order() -> None:
    made = llama_server.translated([*STORIES, "--alias", "tiny,fim,code", "--tags", "small"])
    named = [made[i + 1] for i, word in enumerate(made) if word == "--alias"]
    assert named == ["code", "fim", "tiny"]
    assert value(made, "--tag") == "small"


def test_metrics_are_off_unless_they_are_asked_for() -> None:
    assert "--no-metrics" in llama_server.translated(STORIES)
    assert "--no-metrics" not in llama_server.translated([*STORIES, "--metrics"])


def test_a_template_is_a_name_a_file_or_its_source() -> None:
    def source(*words: str) -> str:
        made = llama_server.translated([*STORIES, *words])
        return Path(value(made, "--template")).read_text(encoding="utf-8")

    assert "<|im_start|>" in source()
    assert "<|start_header_id|>" in source("--chat-template", "llama3")
    assert source("--chat-template", "no template") == "no template"
    assert source("--chat-template-file", str(ADAPTER)) == ADAPTER.read_text(encoding="utf-8")


def test_each_option_is_one_of_lolama_serve() -> None:
    every = [word for name in llama_server._SAME for word in (name, "1")]
    made = llama_server.translated([*STORIES, *every, "--alias", "a", "--tags", "b", "--no-slots"])
    made += llama_server.translated([*STORIES, "--no-ui", "--verbose", "--reasoning", "off"])
    done = subprocess.run(
        [sys.executable, "-m", "lolama_cli", "serve", "--help"], capture_output=True, text=True
    )
    assert {word for word in made if word.startswith("--")} <= {
        *done.stdout.replace(",", " ").split()
    }


def test_the_program_ends_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, str(ADAPTER), "--lora", "x"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, "llama_server: lolama serve has no --lora\n")


def test_every_case_that_does_not_pass_has_one_reason() -> None:
    known = known_cases.expected()
    assert known
    assert all(case.startswith("test_") and "::" in case and why for case, why in known.items())


def test_a_case_with_two_reasons_is_refused(tmp_path: Path) -> None:
    twice = 'reason = [{why = "a", cases = ["x"]}, {why = "b", cases = ["x"]}]'
    (tmp_path / "expected.toml").write_text(twice, encoding="utf-8")
    with pytest.raises(ValueError, match="x is listed twice"):
        known_cases.expected(tmp_path / "expected.toml")


def test_the_page_counts_cases_by_file_and_by_reason() -> None:
    def report(case: str, **more: Any) -> SimpleNamespace:
        return SimpleNamespace(nodeid=f"unit/{case}", **more)

    found = known_cases.outcomes(
        {
            "passed": [report("test_a.py::one"), report("test_b.py::one")],
            "xfailed": [report("test_a.py::two", wasxfail="no model")],
            "skipped": [report("test_b.py::two")],
        }
    )
    page = known_cases.written(found)
    assert "| test_a.py | 1 | 1 |" in page
    assert "| no model | 1 |" in page
    assert "- `test_a.py::two`" in page
    assert f"| {known_cases.SKIPPED} | 1 |" in page
