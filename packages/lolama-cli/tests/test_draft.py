"""``--draft``: a text stays the same, and a model that cannot guess is refused before weights are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from known_model import REPLY, VOCABULARY, tensors, tokenizer_json, write
from program import Outcome
from warm_program import run

from lolama import names
from lolama_cli.model_choice import ModelChoice
from lolama_core import write_checkpoint
from lolama_core.protocols.types import CanonicalConfig

# So flat that any letter may come next, and the seed says which.
SCALE = 0.2
# Where time says how many tokens are tried, their number is no one's to predict. It is not asked in bfloat16.
COUNTED = ("--dtype", "bfloat16")


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose texts differ from seed to seed."""
    return write(tmp_path_factory.mktemp("models") / "flat", scale=SCALE)


@pytest.fixture(scope="module")
def like_it(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A draft of it that is often right. It has unused rows of weights, and a context of 100 tokens."""
    directory = tmp_path_factory.mktemp("models") / "like-it"
    config = config_of(write(directory, scale=0.7 * SCALE, max_seq_len=100))
    weights, more = tensors(0.7 * SCALE), 3
    for name in ("embed_tokens.weight", "lm_head.weight"):
        weights[name] = torch.nn.functional.pad(weights[name], (0, 0, 0, more))
    config["model"]["vocab_size"] = len(VOCABULARY) + more
    shutil.rmtree(directory)
    write_checkpoint(directory, config, weights.items(), tokenizer_json=tokenizer_json())
    return directory


def config_of(model: Path) -> CanonicalConfig:
    config: CanonicalConfig = json.loads((model / "config.json").read_text())
    return config


def changed(model: Path, directory: Path, **fields: object) -> Path:
    """A copy of a model with other fields in its shape."""
    shutil.copytree(model, directory)
    config: Any = config_of(model)
    config["model"] |= fields
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def dynamic(model: Path, directory: Path, kind: str = "dynamic", **more: object) -> Path:
    scaling = {"type": kind, "factor": 2.0, "original_max_seq_len": 2048, **more}
    return changed(model, directory, rope_scaling=scaling)


def other_tokens(directory: Path) -> Path:
    """A model with the ids of two tokens exchanged."""
    write(directory)
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return directory


def facts(outcome: Outcome) -> dict[str, Any]:
    assert (outcome.code, outcome.err) == (0, "")
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def generate(model: Path, draft: str | Path, *options: str, prompt: str = "z") -> Outcome:
    command = ("generate", "-m", model, "--draft", draft, "--max-tokens", "150")
    return run(*command, *options, prompt)


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_a_text_is_the_same_with_and_without_a_draft(flat: Path, like_it: Path, seed: str) -> None:
    """Behind the 100 tokens that the draft can read, the model goes on alone."""
    options = ("--seed", seed, "--temperature", "1", "--ignore-eos", "--json", "--logprobs", "1")
    alone = facts(generate(flat, "off", *options))
    assert (alone["drafted_tokens"], alone["accepted_tokens"]) == (0, 0)
    assert len(alone["ids"]) == 150
    for draft in (like_it, "lookup", "auto"):
        found = facts(generate(flat, draft, *options))
        for key in ("text", "ids", "finish_reason", "logprobs", "cached_tokens", "seed"):
            assert found[key] == alone[key]
        if draft == like_it:
            assert found["drafted_tokens"] > 0


def test_json_and_verbose_tell_what_was_tried(flat: Path, like_it: Path) -> None:
    options = ("--seed", "1", "--temperature", "1", *COUNTED)
    found = facts(generate(flat, like_it, *options, "--json"))
    drafted, accepted = found["drafted_tokens"], found["accepted_tokens"]
    assert 0 < accepted < drafted
    told = run(
        "-v", "generate", "-m", flat, "--draft", like_it, "--max-tokens", "150", *options, "z"
    )
    assert told.code == 0
    assert f"; {drafted} tokens tried ahead, {accepted} of them right\n" in told.err
    assert f"tokens are tried ahead by {like_it}:\n" in told.err
    assert str(like_it / "model.safetensors") in told.err
    assert "no token tried ahead" in run("-v", "generate", "-m", flat, "--draft", "off", "z").err


def test_lookup_finds_what_repeats_itself(base: Path) -> None:
    options = ("--temperature", "0", "--repetition-penalty", "1", "--json", *COUNTED)
    found = facts(generate(base, "lookup", *options))
    letters = "abcdefghijklmnopqrstuvwxyz"
    assert found["text"] == (letters * 6)[:150]
    assert found["accepted_tokens"] > 50
    # In sixteen bits nothing is tried unless somebody asks for it.
    assert facts(generate(base, "auto", *options))["drafted_tokens"] == 0


def test_quantize_is_for_the_draft_too(flat: Path, like_it: Path) -> None:
    options = ("--seed", "4", "--temperature", "1", "--quantize")
    alone = generate(flat, "off", *options)
    both = run(
        "-v", "generate", "-m", flat, "--draft", like_it, "--max-tokens", "150", *options, "z"
    )
    assert (alone.code, both.code) == (0, 0)
    assert both.out == alone.out
    assert f"quantizing {like_it} to int8" in both.err


def test_a_batch_gets_the_same_texts(flat: Path, like_it: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "in"
    prompts.write_text("".join(f'"{n}"\n' for n in range(6)))
    options = ("--seed", "1", "--temperature", "1", "--max-tokens", "40", "--batch", prompts)

    def answers(draft: str | Path, *more: str) -> list[dict[str, Any]]:
        outcome = run("generate", "-m", flat, "--draft", draft, *options, *more)
        assert (outcome.code, outcome.err) == (0, "")
        return [json.loads(line) for line in outcome.out.splitlines()]

    def without_counts(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in answer.items() if not key.endswith("ed_tokens")}
            for answer in found
        ]

    alone, drafted = answers("off"), answers(like_it)
    assert without_counts(drafted) == without_counts(alone)
    assert sum(answer["drafted_tokens"] for answer in alone) == 0
    counted = answers(like_it, "--batch-size", "2", *COUNTED)
    assert sum(answer["accepted_tokens"] for answer in counted) > 0


def test_row_298_a_batch_goes_on_with_another_draft(
    flat: Path, like_it: Path, tmp_path: Path
) -> None:
    """Its answers are the same, so what tried tokens ahead is not asked, and old answers do not tell."""
    prompts, out = tmp_path / "in", tmp_path / "out"
    prompts.write_text('"a"\n"b"\n"c"\n')
    command = ("-v", "generate", "-m", flat, "--seed", "1", "--batch", prompts, "-o", out)
    assert run(*command, "--draft", like_it, *COUNTED, "--max-tokens", "30").code == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    for key in ("drafted_tokens", "accepted_tokens"):
        del lines[0][key]
    out.write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    kept = out.read_bytes()
    for draft in ("off", "lookup"):
        out.write_bytes(kept)
        outcome = run(*command, "--draft", draft, *COUNTED, "--max-tokens", "30")
        assert outcome.code == 0
        assert "2 answers are there" in outcome.err
        assert out.read_bytes().startswith(kept)
        assert out.read_bytes().count(b"\n") == 3
        # What an earlier run has tried is not told again.
        if draft == "off":
            assert "; no token tried ahead\n" in outcome.err


def test_a_chat_says_the_same_with_a_draft(flat: Path, like_it: Path, tmp_path: Path) -> None:
    lines = b"abc\nxyz\n/retry\n/stats\nm\n"
    options = ("--seed", "1", "--temperature", "1", "--max-tokens", "20")
    alone = run("chat", "-m", flat, "--draft", "off", *options, stdin=lines)
    assert alone.code == 0 and alone.out.count(b"\n") >= 4
    file = tmp_path / "kept"
    for more in ((), ("--prompt-cache", file), ("--prompt-cache", file)):
        outcome = run("chat", "-m", flat, "--draft", like_it, *options, *more, stdin=lines)
        assert (outcome.code, outcome.out) == (0, alone.out)
    counted = run("-v", "chat", "-m", flat, "--draft", like_it, *options, *COUNTED, stdin=lines)
    assert counted.code == 0
    assert counted.err.count(" tokens tried ahead, ") == 5  # four replies, and what /stats says


def test_a_chat_keeps_its_draft_when_another_model_takes_over(
    chatty: Path, like_it: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "other", scale=2.0)
    strange = other_tokens(tmp_path / "strange")
    lines = f"x\n/model {other}\nx\n/model {strange}\nx\n".encode()
    options = ("--draft", like_it, "--max-tokens", "3", "--temperature", "0")
    outcome = run("-v", "chat", "-m", chatty, *options, stdin=lines)
    # A chat from a pipe ends with its first failure.
    assert outcome.code == 2
    assert outcome.out.decode().splitlines()[0] == REPLY
    assert f"error: {like_it}: cannot guess for {strange}, which has other tokens: " in outcome.err
    assert outcome.err.count(f"tokens are tried ahead by {like_it}:") == 1


NO_WEIGHTS = """
from lolama import wiring

def load(*arguments, **options):
    raise SystemExit(77)

wiring.load_files = load
"""


def test_row_297_what_cannot_guess_is_refused_before_weights_are_read(
    base: Path, tmp_path: Path
) -> None:
    strange, bent = other_tokens(tmp_path / "strange"), dynamic(base, tmp_path / "bent")
    prompts = tmp_path / "in"
    prompts.write_text('"a"\n')
    for model, draft, words in (
        (base, strange, (str(strange), f"cannot guess for {base}", "'a'", "'b'")),
        (base, bent, (str(bent), "dynamic RoPE, so it cannot guess")),
        (bent, base, (str(bent), "dynamic RoPE, so it tries no token ahead", "--draft off")),
        (bent, "lookup", (str(bent), "dynamic RoPE, so it tries no token ahead", "--draft off")),
        (base, "demo-vision", ("demo-vision", "a vision model", "--draft off")),
        (base, "demo", ("demo", f"cannot guess for {base}", "other tokens")),
        (base, tmp_path / "none", ("there is no such folder",)),
        (base, "lokup", ("lokup", "did you mean lookup?")),
        (base, "", ("--draft", "empty")),
    ):
        options = ("-m", model, "--draft", draft)
        for command in (("generate", *options, "z"), ("generate", *options, "--batch", prompts)):
            run(*command, before=NO_WEIGHTS).refused(2, *words)
        run("chat", *options, stdin=b"z\n", before=NO_WEIGHTS).refused(2, *words)
    assert run("generate", "-m", base, "z", before=NO_WEIGHTS).code == 77


def test_dynamic_rope_is_no_hindrance_to_who_asks_for_nothing(base: Path, tmp_path: Path) -> None:
    config = json.loads((base / "config.json").read_text())["model"]
    factors = [1.0] * (config["d_model"] // config["num_heads"] // 2)
    longer = {"short_factor": factors, "long_factor": factors}
    for kind, more in (("dynamic", {}), ("longrope", longer)):
        bent = dynamic(base, tmp_path / kind, kind, **more)
        for draft in ("auto", "off"):
            outcome = generate(bent, draft, "--max-tokens", "5")
            assert (outcome.code, outcome.out) == (0, b"abcde")
        named = {"dynamic": "dynamic RoPE", "longrope": "LongRoPE"}[kind]
        generate(bent, "lookup").refused(2, f"has {named}, so it tries no token ahead")


def test_row_299_a_small_draft_leaves_the_threads_to_its_model(base: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        chosen = ModelChoice(name=str(base))
        files = names.resolve(base)
        chosen.load(files, is_draft=True)
        assert torch.get_num_threads() == 2
        chosen.load(files)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
