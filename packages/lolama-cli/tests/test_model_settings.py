"""What a model's generation_config.json asks for: followed by every command, or named once."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from known_model import EOS, LETTERS, VOCABULARY, write_hugging_face
from warm_program import run

import lolama
from lolama import names
from lolama.data import load_llava_model

GREEDY = ("--temperature", "0", "--max-tokens", "6")
# Letters alone, and not c: where the next one is forbidden, all others are as good, and the first is taken.
FORBIDDING: dict[str, Any] = {
    "no_repeat_ngram_size": 2,
    "suppress_tokens": [n for t, n in VOCABULARY.items() if t not in LETTERS or t == "c"],
    "bad_words_ids": [[VOCABULARY["a"], VOCABULARY["b"]], [VOCABULARY["k"]]],
}
UNSUPPORTED = {"num_beams": 4, "min_length": 3, "guidance_scale": 1.0}


def write(folder: Path, settings: dict[str, Any]) -> Path:
    write_hugging_face(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": EOS, **settings}))
    return folder


@pytest.fixture(scope="module")
def forbidding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("settings") / "forbidding", FORBIDDING)


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("settings") / "asking", UNSUPPORTED)


@pytest.fixture(scope="module")
def note(asking: Path) -> str:
    return f"{asking} asks for settings that lolama does not follow: min_length, num_beams"


@pytest.mark.parametrize("prompt", ["a", "b", "j", "xyz"])
def test_row_107_commands_follow_what_no_option_says(
    prompt: str, forbidding: Path, published: Path, tmp_path: Path
) -> None:
    """They write what Python generates, to the letter; options keep their own defaults."""
    llm = lolama.load(forbidding)
    said = llm.generate(prompt, temperature=0, max_new_tokens=6, repetition_penalty=1.1, top_p=0.9)
    expected = said.text
    assert len(expected) == 6 and not {"c", "k"} & {*expected} and "ab" not in prompt + expected
    single = run("generate", "-m", forbidding, *GREEDY, prompt)
    assert (single.code, single.out.decode(), single.err) == (0, expected, "")
    lines = tmp_path / "in"
    lines.write_text(json.dumps(prompt) + "\n" + json.dumps({"prompt": prompt, "seed": 3}) + "\n")
    batch = run("generate", "-m", forbidding, *GREEDY, "--batch", lines)
    assert [json.loads(line)["text"] for line in batch.out.splitlines()] == [expected] * 2
    chat = run("chat", "-m", forbidding, *GREEDY, "--raw", stdin=prompt.encode())
    assert chat.out.decode().rstrip("\n") == expected
    assert run("generate", "-m", published, *GREEDY, prompt).out.decode() != expected


def test_row_107_a_chat_follows_the_model_that_it_goes_on_with(
    forbidding: Path, published: Path
) -> None:
    said = f"b\n/model {forbidding}\n/clear\nb\n/model {published}\n/clear\nb\n"
    outcome = run("chat", "-m", published, *GREEDY, "--raw", stdin=said.encode())
    replies = [reply for reply in outcome.out.decode().split("\n") if reply]
    assert outcome.code == 0 and len(replies) == 3
    assert replies[0] == replies[2] == "cdefgh"
    assert len(replies[1]) == 6 and "c" not in replies[1]


def test_row_107_python_minus_m_follows_it_too(
    forbidding: Path,
    asking: Path,
    note: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lolama_core.__main__ import main

    copy, other = tmp_path / "copy", tmp_path / "other"
    assert run("convert", forbidding, copy).code == 0
    expected = run("generate", "-m", forbidding, *GREEDY, "j").out.decode()
    monkeypatch.setattr("sys.argv", ["lolama_core", "-m", str(copy), *GREEDY, "j"])
    assert main() == 0
    assert capsys.readouterr() == (f"{expected}\n", "")
    assert run("convert", asking, other).code == 0
    monkeypatch.setattr("sys.argv", ["lolama_core", "-m", str(other), *GREEDY, "j"])
    assert main() == 0
    assert capsys.readouterr().err == f"note: {note.replace(str(asking), str(other))}\n"


def test_row_107_settings_are_saved_and_quantized_with_the_model(
    forbidding: Path, tmp_path: Path
) -> None:
    saved, small = tmp_path / "saved", tmp_path / "small"
    lolama.save(lolama.load(forbidding).model, saved)
    assert run("quantize", "-m", forbidding, "-o", small).code == 0
    for folder in (saved, small):
        assert dict(lolama.load_model(folder).generation_defaults.sampling) == FORBIDDING


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("generate", "--max-tokens", "2", "xyz"), b""),
        (("generate", "--max-tokens", "2", "--quantize", "xyz"), b""),
        (("generate", "--max-tokens", "2", "--batch", "-"), b'"x"\n"y"\n"z"\n'),
        (("chat", "--max-tokens", "2", "--raw"), b"x\ny\nz\n"),
    ],
)
def test_row_107_settings_that_lolama_does_not_have_are_named_once(
    arguments: tuple[str, ...], stdin: bytes, asking: Path, note: str
) -> None:
    outcome = run(arguments[0], "-m", asking, *arguments[1:], stdin=stdin)
    assert outcome.code == 0
    assert outcome.err.count(note) == outcome.err.count("does not follow") == 1
    assert f"note: {note}\n" in outcome.err


def test_row_260_settings_that_only_lolama_has_are_named_by_commands(tmp_path: Path) -> None:
    asked = {
        "presence_penalty": 1.5,
        "frequency_penalty": 1,
        "dry_multiplier": 0.8,
        "top_n_sigma": 1,
        "xtc_probability": 0,
    }
    folder = write(tmp_path / "model", asked)
    outcome = run("generate", "-m", folder, *GREEDY, "b")
    named = "dry_multiplier, frequency_penalty, presence_penalty, top_n_sigma"
    note = f"note: {folder} asks for settings that lolama does not follow: {named}\n"
    assert (outcome.code, outcome.out, outcome.err) == (0, b"cdefgh", note)


def test_row_267_a_misspelled_setting_is_named_by_commands(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {"do_sample": True, "temprature": 0.5, "\x1b[31m": 1})
    outcome = run("generate", "-m", folder, *GREEDY, "b")
    note = f"note: {folder} asks for settings that lolama does not follow: \\x1b[31m, temprature\n"
    assert (outcome.code, outcome.out, outcome.err) == (0, b"cdefgh", note)
    with pytest.warns(UserWarning, match="does not follow: .*, temprature$"):
        lolama.load(folder)


def test_row_107_commands_that_generate_nothing_of_it_are_silent(
    asking: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text("abcdefgh")
    for arguments in (("eval", text, "-m", asking, "--quantize"), ("info", asking)):
        outcome = run(*arguments)
        assert outcome.code == 0 and "does not follow" not in outcome.err


def test_row_107_python_warns_where_a_model_is_loaded(
    asking: Path, note: str, tmp_path: Path
) -> None:
    import lolama_core

    copy = tmp_path / "copy"
    assert run("convert", asking, copy).code == 0
    told = note.replace(str(asking), str(copy))
    for load, folder, expected in (
        *((load, asking, note) for load in (lolama.load, lolama.load_model)),
        (lolama_core.load, copy, told),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            load(folder)
        assert [(str(w.message), w.filename) for w in caught] == [(expected, __file__)]
    config = json.loads((copy / "config.json").read_text())
    assert config["generation"]["unsupported"] == ["min_length", "num_beams"]


def test_row_107_python_warns_of_a_model_that_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    from lolama import data

    files = names.resolve("demo-vision")
    files.config["generation"]["unsupported"] = ["num_beams"]
    monkeypatch.setattr(data, "resolve", lambda name, confirm: files)
    with pytest.warns(UserWarning, match="demo-vision asks for .*: num_beams$") as caught:
        load_llava_model("demo-vision")
    assert [w.filename for w in caught] == [__file__]


def test_row_195_the_key_of_a_batch_holds_what_the_model_asks_for(
    forbidding: Path, tmp_path: Path
) -> None:
    """Answers that were made with other settings of the model are not taken for these."""
    lines, answers = tmp_path / "in", tmp_path / "out"
    lines.write_text('"b"\n')
    folder = write(tmp_path / "model", FORBIDDING)
    arguments = ("generate", "-m", folder, *GREEDY, "--batch", lines, "-o", answers)
    assert run(*arguments).code == 0
    first = answers.read_bytes()
    assert run(*arguments).code == 0 and answers.read_bytes() == first
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": EOS}))
    run(*arguments).refused(2, str(answers))
    assert answers.read_bytes() == first
