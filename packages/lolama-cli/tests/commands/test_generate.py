"""``lolama generate``: what it writes, and where."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from known_model import REPLY, VOCABULARY, write_hugging_face
from warm_program import run


def test_a_base_model_continues_the_text_and_nothing_else_is_written(base: Path) -> None:
    outcome = run("generate", "-m", base, "--max-tokens", "5", "xyz")
    assert (outcome.code, outcome.out, outcome.err) == (0, b"abcde", "")


def test_a_chat_model_is_asked_in_its_template(chatty: Path) -> None:
    outcome = run("generate", "--model", chatty, "xyz")
    assert (outcome.code, outcome.out, outcome.err) == (0, REPLY.encode(), "")


def test_raw_leaves_the_template_aside(chatty: Path) -> None:
    outcome = run("generate", "-m", chatty, "--raw", "--max-tokens", "5", "xyz")
    assert (outcome.code, outcome.out) == (0, b"abcde")


def test_what_a_user_types_is_never_a_control_token(base: Path) -> None:
    # As a control token it would be answered with the reply; as text it ends in "a" … ">" and is not.
    outcome = run("generate", "-m", base, "--max-tokens", "3", "--seed", "1", "<|assistant|>")
    assert outcome.code == 0
    assert REPLY.encode() not in outcome.out


def test_no_stream_gives_the_same_text(base: Path) -> None:
    outcome = run("generate", "-m", base, "--max-tokens", "30", "--no-stream", "z")
    assert (outcome.code, outcome.out) == (0, b"abcdefghijklmnopqrstuvwxyzabcd")


def test_stop_texts_end_the_output_and_do_not_leak(base: Path) -> None:
    outcome = run("generate", "-m", base, "--stop", "zzz", "--stop", "efg", "z")
    assert (outcome.code, outcome.out) == (0, b"abcd")


def test_a_seed_repeats_the_choices(base: Path) -> None:
    def text(seed: int) -> bytes:
        outcome = run("generate", "-m", base, "--seed", str(seed), "--max-tokens", "1", "what?")
        assert outcome.code == 0
        return outcome.out

    assert text(1) == text(1)
    assert len({text(seed) for seed in (1, 2, 3)}) > 1


def test_verbose_tells_about_loading_and_speed_on_standard_error(base: Path) -> None:
    outcome = run("-v", "generate", "-m", base, "--dtype", "bfloat16", "--max-tokens", "9", "z")
    assert (outcome.code, outcome.out) == (0, b"abcdefghi")
    assert str(base / "model.safetensors") in outcome.err
    assert "bfloat16 (stored as float32) on cpu" in outcome.err
    assert "2 prompt tokens, 9 new" in outcome.err
    assert "tokens/s" in outcome.err


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "published")
    outcome = run("generate", "-m", folder, "--max-tokens", "5", "xyz")
    assert (outcome.code, outcome.out, outcome.err) == (0, b"abcde", "")


def test_the_built_in_model_writes_words() -> None:
    outcome = run("generate", "-m", "demo", "--raw", "--temperature", "0", "Once upon a time")
    assert (outcome.code, outcome.err) == (0, "")
    assert len(outcome.out.decode().split()) > 10


def test_a_known_story() -> None:
    root = Path(__file__).resolve().parents[4]
    folder = root.parent / "shared" / "data" / "stories260K"
    if not folder.is_dir():
        pytest.skip("stories260K is not here")
    options = ("--temperature", "0", "--repetition-penalty", "1", "--max-tokens", "196")
    outcome = run("generate", "-m", folder, *options, "Once upon a time")
    assert outcome.code == 0
    assert b"Once upon a time" + outcome.out == (folder / "expected.txt").read_bytes()


OWN_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"


def test_a_system_message_stands_before_the_prompt(chatty: Path, tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    # What comes last decides how the known model goes on; here that is the system message.
    template.write_text("{{ bos_token }}{{ messages[1].content }}{{ messages[0].content }}")
    options = ("--template", template, "--max-tokens", "3")
    outcome = run("generate", "-m", chatty, *options, "--system", "m", "a")
    assert (outcome.code, outcome.out, outcome.err) == (0, b"nop", "")


def test_another_template_in_the_place_of_the_models(
    base: Path, chatty: Path, tmp_path: Path
) -> None:
    template = tmp_path / "own.jinja"
    template.write_text(OWN_TEMPLATE)
    for model in (base, chatty):
        outcome = run("generate", "-m", model, "--template", template, "--max-tokens", "3", "x")
        assert (outcome.code, outcome.out, outcome.err) == (0, b"yza", "")


def test_a_system_message_that_nobody_would_hear(base: Path, tmp_path: Path) -> None:
    run("generate", "-m", base, "--system", "m", "a").refused(2, "--system", "no chat template")
    deaf = tmp_path / "deaf.jinja"
    deaf.write_text("{{ bos_token }}{{ messages[-1].content }}")
    outcome = run("generate", "-m", base, "--template", deaf, "--system", "m", "a")
    outcome.refused(2, "--system", "leaves system messages out")
    run("generate", "-m", base, "--raw", "--system", "m", "a").refused(2, "--system", "--raw")
    run("generate", "-m", base, "--system", "", "a").refused(2, "--system", "empty")


def test_templates_that_cannot_be_used(base: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jinja"
    for content, code, word in ((b"{% for %}", 3, "not valid"), (b"\xff", 2, "UTF-8")):
        bad.write_bytes(content)
        run("generate", "-m", base, "--template", bad, "a").refused(code, word)
    run("generate", "-m", base, "--template", tmp_path, "a").refused(2, "regular file")
    run("generate", "-m", base, "--template", tmp_path / "no", "a").refused(2, "no such file")
    run("generate", "-m", base, "--template", bad, "--raw", "a").refused(2, "--template", "--raw")


def test_row_205_a_template_that_refuses_is_left_out_with_raw(base: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jinja"
    bad.write_text("{{ raise_exception('never') }}")
    why = "error: chat template: refuses this conversation: never; use --raw to do without it"
    run("generate", "-m", base, "--template", bad, "a").refused(3, why)
    batch = ("generate", "-m", base, "--template", bad, "--batch", "-")
    (line,) = run(*batch, stdin=b'{"prompt": "a"}\n').out.splitlines()
    assert f"error: {json.loads(line)['error']['message']}" == why


def test_json_tells_everything_about_an_answer(base: Path) -> None:
    outcome = run("generate", "-m", base, "--json", "--max-tokens", "3", "--top-k", "5", "x")
    assert (outcome.code, outcome.err) == (0, "")
    facts = json.loads(outcome.out)
    assert facts["schema"] == "lolama.generate/1"
    assert (facts["model"], facts["text"], len(facts["ids"])) == (str(base), "yza", 3)
    assert (facts["finish_reason"], facts["context_full"]) == ("length", False)
    assert (facts["prompt_tokens"], facts["logprobs"], facts["device"]) == (2, None, "cpu")
    assert facts["settings"]["top_k"] == 5
    assert facts["settings"]["temperature"] == 0.7
    assert facts["timings"]["total"] >= facts["timings"]["first_text"] > 0


def test_the_seed_in_json_repeats_the_answer(base: Path) -> None:
    command = ("generate", "-m", base, "--json", "--max-tokens", "1", "what?")
    facts = [json.loads(run(*command).out) for _ in range(4)]
    assert len({fact["seed"] for fact in facts}) == 4
    for fact in facts[:2]:
        again = json.loads(run(*command, "--seed", str(fact["seed"])).out)
        assert again["text"] == fact["text"]


def test_logprobs_are_those_of_the_model_before_any_setting(base: Path) -> None:
    options = ("--temperature", "0.2", "--top-k", "1", "--json", "--logprobs", "3")
    outcome = run("generate", "-m", base, *options, "--max-tokens", "2", "?")
    first, second = json.loads(outcome.out)["logprobs"]
    # By hand: of 26 letters with a score of 0.5, "a" with 0.51, times the root of the width over the norm
    # of "?" alone, and the rest with 0.
    scale = 288**0.5
    letters = [math.exp(0.51 * scale), *[math.exp(0.5 * scale)] * 25]
    others = len(VOCABULARY) - 26
    expected = math.log(letters[0] / (sum(letters) + others))
    assert first["text"] == "a"
    assert first["logprob"] == pytest.approx(expected, abs=2e-3)
    assert [len(first["best"]), first["best"][0]["text"]] == [3, "a"]
    assert first["best"][1]["logprob"] == pytest.approx(expected - 0.01 * scale, abs=2e-3)
    assert second["text"] == "b"


def test_logprobs_with_a_stop_text_and_an_end_token(chatty: Path, base: Path) -> None:
    outcome = run("generate", "-m", chatty, "--json", "--logprobs", "0", "xyz")
    facts = json.loads(outcome.out)
    assert (facts["finish_reason"], len(facts["logprobs"])) == ("eos", len(facts["ids"]))
    outcome = run("generate", "-m", base, "--json", "--logprobs", "0", "--stop", "cd", "a")
    facts = json.loads(outcome.out)
    assert (facts["finish_reason"], facts["text"], len(facts["logprobs"])) == ("stop", "b", 1)
    assert facts["logprobs"][0]["best"] == []
