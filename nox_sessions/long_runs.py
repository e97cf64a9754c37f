"""Tests that run for long: random inputs, faults and kills, and the pages that are made of their reports."""

from __future__ import annotations

from pathlib import Path

import nox

from nox_sessions.environments import install
from nox_sessions.packages import PACKAGES, ROOT, directory, editable, group
from nox_sessions.running import RESULTS, TEST_ENV, run_long

# The parts of the session `fuzz`: which tests, and with what. Each ends in half an hour on two busy cores;
# the engines' may take longer.
# How much of it an ordinary run does is each test's default.
FUZZ = {
    "files": {
        "packages/lolama-core/tests/files/test_fuzz_files.py": {"LOLAMA_FUZZ_CASES": "100000"},
        "packages/lolama-core/tests/files/test_fuzz_gguf.py": {"LOLAMA_FUZZ_CASES": "20000"},
        "packages/lolama-hub/tests/folder/test_fuzz_folders.py": {"LOLAMA_FUZZ_CASES": "10000"},
        "packages/lolama-vision/tests/test_image_file.py": {"LOLAMA_FUZZ_CASES": "20000"},
    },
    "texts": {
        "packages/lolama-core/tests/generation/test_text_stream.py": {"LOLAMA_FUZZ_CASES": "50000"},
        "packages/lolama-core/tests/text/test_tokenizer.py": {"LOLAMA_FUZZ_CASES": "50000"},
        "packages/lolama-core/tests/text/test_tool_calls.py": {"LOLAMA_FUZZ_CASES": "50000"},
        # The number of cases of each of its four kinds.
        "tests/test_mutations.py": {"LOLAMA_FUZZ_CASES": "500"},
    },
    "native": {
        "packages/lolama-quant/tests/native/test_instruction_sets.py": {
            "LOLAMA_FUZZ_CASES": "10000"
        },
    },
    # The number of prompts, which run in 120 ways each.
    "engine": {
        "packages/lolama-core/tests/generation/test_engine.py": {"LOLAMA_FUZZ_CASES": "200"},
    },
    "engine-int8": {
        "packages/lolama-quant/tests/cpu/test_engine_texts.py": {"LOLAMA_FUZZ_CASES": "200"},
    },
    "operations": {
        "packages/lolama-core/tests/generation/test_engine_bookkeeping.py": {
            "LOLAMA_FUZZ_CASES": "100000",
        },
    },
    # The number of random schemas; with LOLAMA_STORIES=FOLDER a small real model is asked as well.
    "schemas": {
        "packages/lolama-cli/tests/test_fuzz_schemas.py": {"LOLAMA_FUZZ_CASES": "500"},
    },
}

FAULTS = {
    "packages/lolama-core/tests/generation/test_engine_bookkeeping.py": {
        "LOLAMA_INTERRUPTS": "100",
    },
    "packages/lolama-hub/tests/download/test_fault_scripts.py": {"LOLAMA_FAULT_SCRIPTS": "200"},
    "packages/lolama-cli/tests/test_interruptions.py": {
        "LOLAMA_KILLS": "50",
        "LOLAMA_ROUNDS": "25",
        "LOLAMA_INTERRUPTS": "100",
    },
    "packages/lolama-cli/tests/chat/test_chat_terminal.py": {
        "LOLAMA_INTERRUPTS": "100",
        "LOLAMA_LEAVES": "50",
    },
    "packages/lolama-cli/tests/chat/test_session.py": {
        "LOLAMA_INTERRUPTS": "100",
        "LOLAMA_CHAT_TURNS": "1000",
    },
    "packages/lolama-cli/tests/test_batch.py": {"LOLAMA_BATCH_PROMPTS": "500"},
}

SOAK = {
    "packages/lolama-core/tests/generation/test_engine_soak.py": {
        "LOLAMA_SOAK_REQUESTS": "10000",
        "LOLAMA_SOAK_STREAMS": "2000",
    },
}


@nox.session
def families(session: nox.Session) -> None:
    """Change each field of each text architecture's configuration, against transformers (some minutes)."""
    run_long(session, {"tests/test_config_fields.py": {"LOLAMA_FIELDS": "all"}})


@nox.session
@nox.parametrize("part", [nox.param(name, id=name) for name in FUZZ])
def fuzz(session: nox.Session, part: str) -> None:
    """Read damaged files and odd texts, ask an oracle (half an hour a part at most); run engines."""
    run_long(session, FUZZ[part])


@nox.session
def faults(session: nox.Session) -> None:
    """Kill, share, interrupt and disturb downloads and batches hundreds of times (a quarter of an hour)."""
    # One at a time: many of them run several processes themselves.
    run_long(session, FAULTS, ["-n", "0"])


@nox.session
def soak(session: nox.Session) -> None:
    """Run 10,000 short requests, and drop 2,000 streams: memory must not grow (a quarter of an hour)."""
    run_long(session, SOAK, ["-n", "0"])


@nox.session
def kills(session: nox.Session) -> None:
    """Kill a quantize-and-save at 50 random moments; the ordinary tests do it 12 times."""
    requirements = group("test", directory("lolama-cli"))
    install(session, *editable(PACKAGES), *requirements)
    path = directory("lolama-cli") / "tests" / "test_quantize.py"
    arguments = ["-c", str(ROOT / "pyproject.toml"), str(path), "-k", "kill_9"]
    session.run("pytest", *arguments, env={**TEST_ENV, "LOLAMA_KILLS": "50"})


@nox.session
def fault_table(session: nox.Session) -> None:
    """Run every test that bears the number of a fault or requirement, and make the pages of both.

    Reports that long runs left in ``results`` are added; other reports may be given after ``--``.
    """
    requirements = sorted({r for package in PACKAGES for r in group("test", directory(package))})
    install(session, *editable(PACKAGES), *requirements, *group("test"))
    reports = []
    for package in (*PACKAGES, "together"):
        tests = (ROOT if package == "together" else directory(package)) / "tests"
        report = Path(session.create_tmp()) / f"{package}.xml"
        reports.append(str(report))
        command = [
            "pytest",
            "-c",
            str(ROOT / "pyproject.toml"),
            "-k",
            "row or requirement",
            f"--junitxml={report}",
        ]
        session.run(*command, "-n", "2", str(tests), env=TEST_ENV, success_codes=[0, 1, 5])
    long_runs = map(str, sorted(RESULTS.glob("*.xml")))
    session.run("python", "tests/fault_table.py", *reports, *long_runs, *session.posargs)
