"""``lolama generate --batch``: every prompt is answered once, in order, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from warm_program import run

PROMPTS = int(os.environ.get("LOLAMA_BATCH_PROMPTS", "100"))
OPTIONS = ("--temperature", "0", "--repetition-penalty", "1", "--max-tokens", "5")


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def answers(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def test_answers_come_in_the_order_of_the_prompts(base: Path, tmp_path: Path) -> None:
    prompts = write(
        tmp_path / "in",
        "a",
        {"prompt": "k", "max_tokens": 40, "id": "long"},
        {"prompt": "x", "stop": "b", "id": 3},
        {"prompt": "c", "max_tokens": 0},
    )
    outcome = run("generate", "-m", base, *OPTIONS, "--batch", prompts, "--batch-size", "2")
    assert (outcome.code, outcome.err) == (0, "")
    first, second, third, fourth = answers(outcome.out)
    assert (first["line"], first["text"], first["finish_reason"]) == (1, "bcdef", "length")
    assert "id" not in first
    assert (second["id"], second["text"]) == (
        "long",
        "lmnopqrstuvwxyzabcdefghijklmnopqrstuvwxy"[:40],
    )
    assert (third["id"], third["text"], third["finish_reason"]) == (3, "yza", "stop")
    assert fourth["text"] == ""


def test_prompts_from_standard_input(base: Path) -> None:
    outcome = run("generate", "-m", base, *OPTIONS, "--batch", "-", stdin=b'\n"a"\n\n"b"\n')
    assert [(a["line"], a["text"]) for a in answers(outcome.out)] == [(2, "bcdef"), (4, "cdefg")]


def test_row_363_answers_by_another_cache_dtype_are_others(base: Path, tmp_path: Path) -> None:
    prompts, out = write(tmp_path / "in", "a", "b"), tmp_path / "out"
    command = ("generate", "-m", base, *OPTIONS, "--batch", prompts, "-o", out)
    assert run(*command, "--cache-dtype", "int8").code == 0
    before = out.read_bytes()
    run(*command).refused(2, str(out), "answers another prompt, setting or model")
    assert out.read_bytes() == before
    again = run(*command, "--cache-dtype", "int8")
    assert (again.code, again.err) == (0, "2 answers are there\n")


def test_a_line_that_cannot_be_answered_does_not_stop_the_rest(base: Path, tmp_path: Path) -> None:
    prompts = write(
        tmp_path / "in",
        *({"promt": "a"}, [1], {"prompt": 5}, {"prompt": "a", "top_p": 2}, {"prompt": ""}),
        *({"prompt": "a", "id": [1]}, {"prompt": "a", "system": "m", "id": "kept"}, "z" * 5000),
        "a",
    )
    with prompts.open("a") as file:
        file.write('{"prompt": "a", "seed": NaN}\n{"a\n')
    outcome = run("generate", "-m", base, *OPTIONS, "--batch", prompts)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {prompts}: 10 of 11 lines have no answer but an error")
    found = answers(outcome.out)
    words = "did you mean prompt?|neither|no prompt|top_p|empty|id|--raw|5,001 tokens||NaN|JSON"
    words = words.replace("--raw", "no chat template")
    assert len(found) == 11
    for answer, word in zip(found, words.split("|"), strict=True):
        assert ("error" in answer) == bool(word)
        if word:
            assert word in answer["error"]["message"]
            assert answer["error"]["exit_code"] == 2
    assert found[6]["id"] == "kept"


def test_a_seed_gives_every_line_its_own(base: Path, tmp_path: Path) -> None:
    prompts = write(tmp_path / "in", *["what?"] * 8)
    command = ("generate", "-m", base, "--max-tokens", "1", "--batch", prompts)
    texts = [
        [answer["text"] for answer in answers(run(*command, "--seed", seed).out)]
        for seed in ("1", "1", "2")
    ]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) > 1
    # Each can also be repeated alone.
    last = answers(run(*command, "--seed", "1").out)[-1]
    alone = run("generate", "-m", base, "--max-tokens", "1", "--seed", str(last["seed"]), "what?")
    assert alone.out.decode() == last["text"]


def test_logprobs(base: Path, tmp_path: Path) -> None:
    prompts = write(tmp_path / "in", "a", "b")
    outcome = run("generate", "-m", base, *OPTIONS, "--batch", prompts, "--logprobs", "2")
    for answer in answers(outcome.out):
        assert [entry["id"] for entry in answer["logprobs"]] == answer["ids"]
        assert all(entry["logprob"] == pytest.approx(0, abs=1e-3) for entry in answer["logprobs"])


def test_a_prompt_that_does_not_fit_into_the_memory_has_an_error(
    base: Path, tmp_path: Path
) -> None:
    """The memory of one page in float32, of two in bfloat16: the first prompt takes one, the second four."""
    prompts = write(tmp_path / "in", "a", "a" * 100)
    outcome = run("generate", "-m", base, *OPTIONS, "--batch", prompts, "--cache-memory", "10 kB")
    first, second = answers(outcome.out)
    assert (outcome.code, first["text"]) == (6, "bcdef")
    assert second["error"]["exit_code"] == 6
    assert "--cache-memory" in second["error"]["message"]


# Kills the program as soon as half of the answers are written.
KILLED = f"""
import os, signal
from lolama_cli.batch.answers import AnswerFile

left, write = {PROMPTS // 2}, AnswerFile.write

def write_and_count(answers, line):
    global left
    write(answers, line)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

AnswerFile.write = write_and_count
"""


def test_killed_half_way_and_run_again_each_answer_is_there_once(
    base: Path, tmp_path: Path
) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    prompts = write(tmp_path / "in", *(f"{n} {letters[n % 26]}" for n in range(PROMPTS)))
    out = tmp_path / "out"
    files = ("--batch", str(prompts), "--output", str(out), "--batch-size", "4")
    command = ("generate", "-m", str(base), *OPTIONS, "--max-tokens", "20", *files)
    assert run(*command, before=KILLED).code == -signal.SIGKILL
    half = out.read_bytes().count(b"\n")
    assert half == PROMPTS // 2
    with out.open("ab") as file:
        file.write(b'{"schema": "lolama.batch/1", "line"')  # what a kill inside a write leaves
    outcome = run(*command)
    assert outcome.code == 0
    assert f"{half} answers are there" in outcome.err
    found = answers(out.read_bytes())
    assert [answer["line"] for answer in found] == list(range(1, PROMPTS + 1))
    doubled = letters * 3
    for n, answer in enumerate(found):
        assert answer["text"] == doubled[n % 26 + 1 : n % 26 + 21]
    # A third run has nothing to do, and changes nothing.
    before = out.read_bytes()
    assert run(*command).code == 0
    assert out.read_bytes() == before


def test_row_102_what_stands_behind_the_last_line_break_is_left_alone(
    base: Path, tmp_path: Path
) -> None:
    prompts, out = write(tmp_path / "in", "a", "b"), tmp_path / "out"
    command = ("generate", "-m", base, *OPTIONS, "--seed", "1", "--batch", prompts)
    whole = run(*command).out
    essay = b"the only copy of an essay, without a line break at its end"
    others = (b"{a", b'{"schema": "lolama.chat/1", "turns": [', bytes(range(256)) * 1000, b"\r")
    for answered, foreign in (*((0, other) for other in others), *((n, essay) for n in range(3))):
        content = b"".join(whole.splitlines(True)[:answered]) + foreign
        out.write_bytes(content)
        words = (str(out), f"line {answered + 1} is no answer of a batch", "--output")
        run(*command, "-o", out).refused(2, *words)
        assert out.read_bytes() == content
    # The beginning of an answer is what a run that was killed has left: it is made again.
    first, second = whole.splitlines(True)
    for before, length in ((b"", 1), (b"", 0), (first, 20), (first, 60), (first, -1)):
        out.write_bytes(before + second[:length])
        assert run(*command, "-o", out).code == 0
        assert out.read_bytes() == whole


def test_a_file_that_holds_anything_else_is_left_alone(base: Path, tmp_path: Path) -> None:
    prompts, out = write(tmp_path / "in", "a", "b"), tmp_path / "out"
    command = ("generate", "-m", base, "--batch", prompts, "-o", out)
    for content in (b"precious\n", b'{"schema": "lolama.batch/1", "line": 1, "key": "x"}\n'):
        out.write_bytes(content)
        run(*command).refused(2, str(out), "--output")
        assert out.read_bytes() == content
    out.unlink()
    assert run(*command, *OPTIONS).code == 0
    before = out.read_bytes()
    run(*command, *OPTIONS, "--top-k", "3").refused(2, "another prompt, setting or model")
    write(prompts, "a")
    run(*command, *OPTIONS).refused(2, "line 2 answers a prompt that is not there")
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch", "in", "z"), ("--batch", "without a prompt")),
        (("--batch", "in", "--image", "x.png"), ("--image", "--batch")),
        (("--batch", "in", "--batch-size", "0"), ("--batch-size", "0")),
        (("--output", "out", "z"), ("--output", "--batch")),
        (("--batch-size", "3", "z"), ("--batch-size", "--batch")),
        (("--cache-memory", "2GB", "z"), ("--cache-memory", "--batch")),
        (("--batch", "in", "--cache-memory", "much"), ("--cache-memory", "much", "2GB")),
        (("--batch", "in", "--cache-memory", "0"), ("--cache-memory", "0", "2GB")),
        (("--logprobs", "3", "z"), ("--logprobs", "--json")),
        (("--logprobs", "-1", "--json", "z"), ("--logprobs", "-1")),
    ],
)
def test_options_that_do_not_go_together(
    base: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    run("generate", "-m", base, *arguments).refused(2, *words)


def test_files_that_cannot_be_used(base: Path, tmp_path: Path) -> None:
    command = ("generate", "-m", base, "--batch")
    run(*command, tmp_path / "none").refused(2, "no such file")
    run(*command, tmp_path).refused(2, "not a regular file")
    latin = tmp_path / "latin"
    latin.write_bytes(b'"\xe9"\n')
    run(*command, latin).refused(2, "line 1 is not UTF-8", "0xe9")
    prompts = write(tmp_path / "in", "a")
    run(*command, prompts, "-o", tmp_path).refused(2, "not a regular file")
    run(*command, prompts, "-o", tmp_path / "none" / "out").refused(2, "cannot be written")
    run(*command, prompts, "-o", prompts).refused(2, "--output", "prompts")


def test_row_266_prompts_that_cannot_be_read_leave_no_file_of_answers(
    base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    latin = tmp_path / "latin"
    latin.write_bytes(b'"\xe9"\n')
    for prompts in (tmp_path / "missing", tmp_path, latin):
        run("generate", "-m", base, "--batch", prompts, "-o", out).refused(2, str(prompts))
        assert not out.exists()
