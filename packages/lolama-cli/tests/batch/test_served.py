"""`lolama generate --batch --server`: the same answers as without a server, in the same order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drawings import circle, encoded
from patience import until
from served import running, serving
from warm_program import run, start

LINES: list[Any] = [
    "Once upon a time",
    {"prompt": "What is two plus three?", "temperature": 0, "id": "sum", "max_tokens": 40},
    {"prompt": ""},
    {
        "messages": [
            {"role": "user", "content": "What is two plus two?"},
            {"role": "assistant", "content": "Two plus two is four."},
            {"role": "user", "content": "And two plus three?"},
        ],
        "temperature": 0,
    },
    {"prompt": "word " * 3000},
    {"prompt": "A story", "temperature": 9, "top_p": 3},
    {"prompt": "A number", "regex": "[0-9]{4}"},
    {"prompt": "A number", "regex": "["},
    *({"prompt": "A story", "stop": ["girl"]} for _ in range(12)),
]
SAME = (
    "schema",
    "line",
    "id",
    "key",
    "text",
    "ids",
    "finish_reason",
    "prompt_tokens",
    "seed",
    "error",
)


def answered(text: bytes) -> list[dict[str, Any]]:
    """What answers say that does not depend on what ran beside them."""
    answers = [json.loads(line) for line in text.splitlines()]
    return [{key: answer[key] for key in SAME if key in answer} for answer in answers]


def written(folder: Path, lines: list[Any]) -> Path:
    """A file of prompts."""
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_answers_are_the_same_and_in_order(server: str, tmp_path: Path) -> None:
    prompts = written(tmp_path, LINES)
    asked = ("generate", "-m", "demo", "--seed", "4", "--batch", prompts)
    here = run(*asked, "--dtype", "auto", env={"LOLAMA_DTYPE": "float32"})
    there = run(*asked, "--server", server)
    assert here.code == there.code == 2
    assert there.err == here.err
    keyless = [
        [{key: value for key, value in answer.items() if key != "key"} for answer in answered(text)]
        for text in (here.out, there.out)
    ]
    assert keyless[0] == keyless[1]
    assert len(keyless[1]) == len(LINES)


def test_a_batch_goes_on_with_a_server_where_it_ended_without_one(
    server: str, tmp_path: Path
) -> None:
    prompts = written(tmp_path, [*LINES[:2], *LINES[8:]])
    asked = ("generate", "-m", "demo", "--seed", "4", "--batch", prompts, "-o", tmp_path / "out")
    assert run(*asked, "--dtype", "float32").code == 0
    whole = (tmp_path / "out").read_bytes()
    (tmp_path / "out").write_bytes(whole[: len(whole) // 2])
    outcome = run(*asked, "--server", server, "--batch-size", "3")
    assert outcome.code == 0
    assert "answers are there" in outcome.err
    assert answered((tmp_path / "out").read_bytes()) == answered(whole)
    # Another setting is another answer, as without a server.
    run(*asked, "--server", server, "--temperature", "0").refused(2, "answers another prompt")


def test_pictures_of_lines(server: str, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(encoded(circle()))
    lines: list[Any] = [
        {"prompt": "What is in the picture?", "images": [str(tmp_path / name)]}
        for name in ("red.png", "none.png")
    ]
    prompts = written(tmp_path, lines)
    asked = ("generate", "-m", "demo-vision", "--seed", "2", "--batch", prompts)
    here, there = run(*asked, "--dtype", "float32"), run(*asked, "--server", server)
    assert answered(there.out) == answered(here.out)
    assert b"red circle" in there.out
    assert (there.code, there.err) == (here.code, here.err)
    asked = ("generate", "-m", "demo", "--seed", "2", "--batch", prompts)
    here, there = run(*asked, "--dtype", "float32"), run(*asked, "--server", server)
    assert answered(there.out) == answered(here.out)
    assert b"takes none" in there.out


def test_more_rows_than_the_server_has_places_wait(tmp_path: Path) -> None:
    prompts = written(tmp_path, [{"prompt": "A story", "max_tokens": 20}] * 12)
    asked = ("generate", "-m", "demo", "--seed", "4", "--batch", prompts)
    with serving("-m", "demo", "--parallel", "1", "--max-queue", "1") as server:
        first = start(*asked, "--server", server)
        second = start(*asked, "--server", server)
        texts = [one.communicate()[0] for one in (first, second)]
    assert first.returncode == second.returncode == 0
    assert answered(texts[0]) == answered(texts[1])
    assert len(answered(texts[0])) == 12


def test_a_server_that_stops_leaves_no_answer_behind(endless: Path, tmp_path: Path) -> None:
    prompts = written(tmp_path, [{"prompt": "z", "max_tokens": 190_000}] * 3)
    out = tmp_path / "out"
    with serving("-m", endless) as server:
        asked = ("generate", "-m", endless, "--server", server, "--batch", prompts, "-o", out)
        going = start(*asked)
        until(lambda: running(server) > 0)
    _, err = going.communicate()
    # It is gone, or it says that it stops: either comes first.
    assert going.returncode in (4, 6), err
    assert out.read_bytes() == b""
