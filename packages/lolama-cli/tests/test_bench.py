"""``lolama bench`` and ``lolama eval``: that they measure what they say."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import known_model
import pytest
from warm_program import run

import lolama_core
from lolama import bench, evaluate, load_model, load_tokenizer, names, quantize, wiring


def facts(*arguments: str | Path) -> dict[str, Any]:
    outcome = run(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def test_speed_is_that_of_the_clock(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.accumulate(itertools.count(1))  # 1, 3, 6, 10: the third interval takes three
    monkeypatch.setattr("lolama.bench.time.perf_counter", lambda: next(ticks))
    tokenizer = load_tokenizer(base)
    ids = bench.prompt_of(tokenizer, 30)
    assert len(ids) == 30 and ids[0] == known_model.BOS
    found = bench.measure(load_model(base), ids, new_tokens=5, repeats=3)
    # The first run, which warms up, takes 2 and 3 ticks; then each interval one more than the last, and
    # one lies between two runs.
    assert [(run.first_token, run.rest) for run in found.runs] == [(5, 6), (8, 9), (11, 12)]
    assert found.first_token == bench.Spread(median=8, low=5, high=11)
    assert found.prefill == bench.Spread(median=30 / 8, low=30 / 11, high=30 / 5)
    assert found.decode == bench.Spread(median=4 / 9, low=4 / 12, high=4 / 6)


def test_bench_runs_every_token(base: Path) -> None:
    command = ("bench", "-m", base, "--prompt-tokens", "40", "--max-tokens", "7", "--repeats", "3")
    found = facts(*command)
    assert (found["prompt_tokens"], found["new_tokens"], len(found["runs"])) == (40, 7, 3)
    middle = sorted(one["rest"] for one in found["runs"])[1]
    assert found["decode_tokens_per_second"]["median"] == pytest.approx(6 / middle)
    assert (found["dtype"], found["quantized"]) == ("float32", False)
    assert facts(*command, "--quantize")["quantized"]
    lines = run(*command).out.decode().splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        *("what", "model", "loaded in", "size", "first token", "prefill", "decode")
    ]


def test_bench_takes_what_a_short_context_has(short: Path) -> None:
    found = facts("bench", "-m", short, "--repeats", "1")
    assert (found["prompt_tokens"], found["new_tokens"]) == (8, 8)
    found = facts("bench", "-m", short, "--repeats", "1", "--max-tokens", "1")
    assert found["decode_tokens_per_second"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--prompt-tokens", "0"), ("--prompt-tokens", "1 or more")),
        (("--max-tokens", "0"), ("--max-tokens", "1 or more")),
        (("--repeats", "0"), ("--repeats", "out of range")),
        (("--prompt-tokens", "16"), ("--prompt-tokens", "16 and 1 new are more than the 16")),
        (("--max-tokens", "9"), ("--max-tokens", "8 and 9 new are more than the 16")),
        (("--device", "tpu"), ("--device", "tpu")),
    ],
)
def test_bench_refuses(short: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    run("bench", "-m", short, *arguments).refused(2, *words)


def test_perplexity_of_a_text_by_hand(base: Path, tmp_path: Path) -> None:
    # After a letter comes the next one, for certain; after ? each of 26 letters, and a somewhat likelier.
    text = tmp_path / "text"
    text.write_text("abc")
    found = facts("eval", text, "-m", base)
    assert (found["tokens"], found["text"], found["quality"]) == (4, str(text), None)
    generator = lolama_core.TextGenerator(load_model(base))
    scores = generator.score([known_model.BOS, *(known_model.VOCABULARY[c] for c in "abc")])
    assert scores[1:].tolist() == pytest.approx([0, 0], abs=1e-3)
    assert found["perplexity"] == pytest.approx(math.exp(-float(scores.mean())), rel=1e-4)


def test_perplexity_is_the_one_of_the_report() -> None:
    files = names.resolve("demo")
    model, tokenizer = wiring.load_files(files, dtype="float32"), load_tokenizer("demo")
    texts = [text[:200] for text in evaluate.default_texts()[:4]]
    texts.append(" ".join(evaluate.default_texts()[:8]))  # longer than a window
    found = evaluate.perplexity(model, tokenizer, texts)
    report = quantize.measure(model, model, tokenizer, texts)
    assert found.tokens == report.tokens > evaluate.WINDOW
    assert found.perplexity == pytest.approx(report.reference_perplexity, rel=1e-5)
    assert report.quantized.top1_agreement == 1


def test_eval_compares_with_int8(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("\n".join(evaluate.default_texts()[:3]))
    found = facts("eval", text, "-m", "demo", "--quantize")
    quality = found["quality"]
    assert quality["tokens"] == found["tokens"]
    assert quality["reference_perplexity"] == pytest.approx(found["perplexity"], rel=1e-3)
    assert 0 < quality["quantized"]["mean_kl"] < 1e-3
    out = run("eval", text, "-m", "demo", "--quantize").out.decode()
    assert f"in int8\t{quality['perplexity']:.4f}\tnoise floor\n" in out


def test_what_spells_a_control_token_is_text(base: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("a</s>b")
    assert facts("eval", text, "-m", base)["tokens"] == 1 + len("a</s>b")


def test_eval_refuses(base: Path, tmp_path: Path) -> None:
    run("eval", tmp_path / "none", "-m", base).refused(2, "no such file")
    run("eval", tmp_path, "-m", base).refused(2, "not a regular file")
    blank, latin = tmp_path / "blank", tmp_path / "latin"
    blank.write_text(" \n")
    latin.write_bytes(b"\xe9")
    run("eval", blank, "-m", base).refused(2, "is empty")
    run("eval", latin, "-m", base).refused(2, "not UTF-8")
    small = tmp_path / "small"
    assert run("quantize", "-m", base, "-o", small).code == 0
    run("eval", "-m", small, "--quantize").refused(2, "quantized already")
