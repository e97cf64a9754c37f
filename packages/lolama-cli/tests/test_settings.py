"""Every setting of a generation reaches options, batches, /set, JSON and a user's defaults."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from talk import session
from warm_program import run

import lolama
from lolama import GenerationConfig
from lolama_cli import schemas
from lolama_cli.app import root_command
from lolama_cli.chat import settings as of_chat
from lolama_cli.chat import transcript
from lolama_cli.command_words import OPTIONS
from lolama_cli.defaults import KEYS
from lolama_cli.settings import SETTINGS, from_text, from_words, option_of, to_json, to_text
from lolama_core.protocols.errors import UsageError

LISTS = {key for key, row in SETTINGS.items() if isinstance(row.default, tuple | dict)}


def test_every_setting_is_everywhere() -> None:
    named = {row.name for row in SETTINGS.values()}
    assert named | {"logprobs", "prompt_logprobs"} == {f.name for f in fields(GenerationConfig)}
    assert "logprobs" not in named and OPTIONS["logprobs"] == "--logprobs"  # of `generate` alone
    for command in ("generate", "chat"):
        parameters = {each.name: each for each in root_command().commands[command].params}
        for key, row in SETTINGS.items():
            assert option_of(key) in parameters[key].opts
            assert getattr(parameters[key], "help") == row.help  # noqa: B009 # of an option
            assert parameters[key].default == (None if key in LISTS else row.default)
    assert {key.replace("_", "-") for key in SETTINGS} < {*of_chat.NAMES}
    assert {key.replace("_", "-") for key in {*SETTINGS} - LISTS} < {*KEYS}
    in_json = {path for path in schemas.GENERATE.fields if path.startswith("settings.")}
    assert {f"settings.{key}" for key in SETTINGS if key != "seed"} <= in_json


CASES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("--typical-p", "0.3"), {"typical_p": 0.3}),
    (("--top-n-sigma", "1.5"), {"top_n_sigma": 1.5}),
    (("--xtc-probability", "1", "--xtc-threshold", "0.02"), {"xtc_probability": 1, "xtc_threshold": 0.02}),
    (("--presence-penalty", "30"), {"presence_penalty": 30}),
    (("--frequency-penalty", "30"), {"frequency_penalty": 30}),
    (("--dry-multiplier", "9", "--dry-allowed-length", "1"), {"dry_multiplier": 9, "dry_allowed_length": 1}),
    (
        ("--dry-multiplier", "90", "--dry-sequence-breaker", "c", "--dry-sequence-breaker", "d"),
        {"dry_multiplier": 90, "dry_sequence_breakers": ("c", "d")},
    ),
    (
        ("--dry-multiplier", "9", "--dry-base", "3", "--dry-penalty-last-n", "40"),
        {"dry_multiplier": 9, "dry_base": 3, "dry_penalty_last_n": 40},
    ),
    (("--no-repeat-ngram-size", "2"), {"no_repeat_ngram_size": 2}),
    (("--suppress-tokens", "70,71", "--suppress-tokens", "72"), {"suppress_tokens": (70, 71, 72)}),
    (("--bad-words-ids", "70,71", "--bad-words-ids", "75"), {"bad_words_ids": ((70, 71), (75,))}),
    (("--logit-bias", "70=-50", "--logit-bias", "1=1e2"), {"logit_bias": {70: -50.0, 1: 100.0}}),
    (("--logit-bias", "1=1e2", "--min-tokens", "5"), {"logit_bias": {1: 100.0}, "min_new_tokens": 5}),
    (("--logit-bias", "1=1e2", "--ignore-eos"), {"logit_bias": {1: 100.0}, "ignore_eos": True}),
]  # fmt: skip


@pytest.mark.parametrize(("options", "settings"), CASES, ids=[case[0][0][2:] for case in CASES])
def test_an_option_does_what_the_setting_does_in_python(
    options: tuple[str, ...], settings: dict[str, Any], base: Path
) -> None:
    common: dict[str, Any] = {
        "seed": 4,
        "max_new_tokens": 40,
        "top_p": 0.9,
        "repetition_penalty": 1,
    }
    told = run(
        *("generate", "-m", base, "--seed", "4", "--max-tokens", "40", "--repetition-penalty", "1"),
        *("--temperature", "0.7", "--json", *options, "?"),
    )
    assert told.code == 0, told.err
    answer = json.loads(told.out)
    expected = lolama.load(base).generate("?", temperature=0.7, **common, **settings)
    assert (answer["text"], answer["ids"]) == (expected.text, [*expected.ids])
    keys = {row.name: key for key, row in SETTINGS.items()}
    for name, value in settings.items():
        assert answer["settings"][keys[name]] == json.loads(json.dumps(to_json(value)))
    line = {"prompt": "?", **{keys[name]: to_json(value) for name, value in settings.items()}}
    batch = run(
        *("generate", "-m", base, "--seed", "3", "--max-tokens", "40", "--repetition-penalty", "1"),
        *("--temperature", "0.7", "--batch", "-"),
        stdin=json.dumps(line).encode(),
    )
    assert json.loads(batch.out)["ids"] == answer["ids"]  # line 1 adds 1 to the seed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--typical-p", "2"), ("--typical-p", "a probability from 0 to 1")),
        (("--top-n-sigma", "-1"), ("--top-n-sigma", "0 (off)")),
        (("--dry-base", "0.5"), ("--dry-base", "from 1")),
        (("--min-tokens", "-1"), ("--min-tokens", "0 (off)")),
        (("--suppress-tokens", "5;7"), ("--suppress-tokens", "'5;7' is no list of token ids", "5,7,9")),
        (("--suppress-tokens", "x", "--logit-bias", "x"), ("--suppress-tokens", "'x'")),
        (("--suppress-tokens", ""), ("--suppress-tokens", "no list of token ids")),
        (("--bad-words-ids", "5,-7"), ("--bad-words-ids", "no list of token ids")),
        (("--logit-bias", "5"), ("--logit-bias", "'5' is not ID=VALUE", "15=-2.5")),
        (("--logit-bias", "5=x"), ("--logit-bias", "'5=x' is not ID=VALUE")),
        (("--logit-bias", "-5=1"), ("--logit-bias", "'-5=1' is not ID=VALUE")),
        (("--logit-bias", "5=nan"), ("--logit-bias", "nan is not a number from")),
        (("--dry-sequence-breaker", ""), ("--dry-sequence-breakers", "an empty text")),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_the_option(
    options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    run("generate", "-m", "demo", *options, "z").refused(2, *words)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("min_tokens", "5", 'min_tokens "5" is not a number'),
        ("ignore_eos", 1, "ignore_eos 1 is not true or false"),
        ("suppress_tokens", 5, "suppress_tokens 5 is not a list of token ids"),
        ("suppress_tokens", [True], "is not a list of token ids"),
        ("bad_words_ids", [5], "is not a list of lists of token ids"),
        ("logit_bias", [5], "is not an object of token ids and numbers"),
        ("logit_bias", {"a": 1}, "is not an object of token ids and numbers"),
        ("logit_bias", {"5": "1"}, "is not an object of token ids and numbers"),
        ("logit_bias", {"9" * 5000: 1}, "is not an object of token ids and numbers"),
        ("dry_sequence_breakers", "x", "is not a list of texts and token ids"),
        ("typical_p", 1.5, "typical_p 1.5 is not a probability"),
        ("logit_bias", {"5": 1e9}, "logit_bias 1000000000.0 is not a number from"),
        ("max_new_tokens", 5, "has the key 'max_new_tokens'; did you mean max_tokens?"),
    ],
)
def test_nonsense_in_a_line_of_a_batch(key: str, value: object, expected: str, base: Path) -> None:
    line = json.dumps({"prompt": "a", key: value})
    outcome = run("generate", "-m", base, "--batch", "-", stdin=line.encode())
    assert expected in json.loads(outcome.out)["error"]["message"]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("typical_p", "0.5", 0.5),
        ("ignore_eos", "true", True),
        ("seed", "none", None),
        ("stop", "two words", ("two words",)),
        ("stop", "none", ()),
        ("suppress_tokens", "5,7 9", (5, 7, 9)),
        ("suppress_tokens", "none", ()),
        ("bad_words_ids", "5,7 9", ((5, 7), (9,))),
        ("logit_bias", "5=1 7=-2.5", {5: 1.0, 7: -2.5}),
        ("logit_bias", "none", {}),
        ("dry_sequence_breakers", ", ", (", ",)),
    ],
)
def test_set_takes_what_options_take(key: str, text: str, value: Any) -> None:
    chat, row = session(), SETTINGS[key]
    assert from_text(row, text, key) == value
    of_chat.set_from_text(chat, option_of(key), text)
    assert getattr(chat.config, row.name) == value
    assert of_chat.settings_of(chat)[key.replace("_", "-")] == to_json(value)
    assert chat.given == {row.name}


def test_what_set_refuses_changes_nothing() -> None:
    chat = session()
    before = chat.config
    for name, text, words in (
        ("temperature", "0.5 0.6", "0.5 0.6 is not a number"),
        ("typical-p", "2", "/set typical-p: 2 is not a probability"),
        ("logit-bias", "5", "/set logit-bias: '5' is not ID=VALUE"),
        ("logit-bias", "9" * 5000 + "=1", "is not ID=VALUE"),
        ("suppress-tokens", "9" * 5000, "is no list of token ids"),
        ("ignore-eos", "perhaps", "/set ignore-eos: 'perhaps' is not a boolean"),
        ("typical", "1", "did you mean typical-p"),
    ):
        with pytest.raises(UsageError, match=words):
            of_chat.set_from_text(chat, name, text)
    assert chat.config == before and not chat.given


@pytest.mark.parametrize(
    ("key", "option", "line"),
    [
        ("suppress_tokens", "9999", [9999]),
        ("logit_bias", "9999=5", {"9999": 5}),
        ("bad_words_ids", "5,9999", [[5, 9999]]),
    ],
)
def test_row_261_ids_of_no_token_are_refused(key: str, option: str, line: Any, base: Path) -> None:
    from known_model import VOCABULARY

    reason = f"9999 is not a token id below {len(VOCABULARY)}, the size of the vocabulary"
    run("generate", "-m", base, option_of(key), option, "a").refused(2, option_of(key), reason)
    lines = [json.dumps({"prompt": "a", key: line}), json.dumps({"prompt": "a"})]
    outcome = run("generate", "-m", base, "--batch", "-", stdin="\n".join(lines).encode())
    refused, answered = map(json.loads, outcome.out.splitlines())
    assert outcome.code == 2 and answered["text"]
    assert key in refused["error"]["message"] and reason in refused["error"]["message"]
    said = f"/set {key.replace('_', '-')} {option}\na\n/set {key.replace('_', '-')} none\na\n"
    chat = run("chat", "-m", base, "--raw", "--max-tokens", "3", stdin=said.encode())
    assert reason in chat.err and chat.out.decode().split() == ["bcd"]


def test_a_word_for_each_element_of_an_option() -> None:
    assert from_words(SETTINGS["dry_sequence_breakers"], ["a b", "no"], "") == ("a b", "no")
    assert from_words(SETTINGS["dry_sequence_breakers"], ["none"], "") == ()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("dry_sequence_breakers", '["\\n", ":", 13]', ("\n", ":", 13)),
        ("dry_sequence_breakers", ": *", (": *",)),
        ("stop", '["[INST]", "none", "é\\u2028"]', ("[INST]", "none", "é\u2028")),
        ("stop", "[]", ()),
        ("suppress_tokens", "[5, 7]", (5, 7)),
        ("bad_words_ids", "[[5, 7], [9]]", ((5, 7), (9,))),
        ("logit_bias", "15=1 16=-2.5", {15: 1.0, 16: -2.5}),
        ("ignore_eos", "true", True),
        ("seed", "none", None),
        ("temperature", "0.25", 0.25),
    ],
)
def test_row_263_set_takes_lists_in_json_and_shows_what_can_be_typed(
    key: str, text: str, value: Any
) -> None:
    chat, name = session(), key.replace("_", "-")
    of_chat.set_from_text(chat, name, text)
    assert getattr(chat.config, SETTINGS[key].name) == value
    shown = to_text(of_chat.settings_of(chat)[name])
    assert len(shown.splitlines()) == 1
    again = session()
    of_chat.set_from_text(again, name, shown)
    assert again.config == chat.config


def test_row_263_a_chat_shows_lists_in_json(base: Path) -> None:
    said = b"/set dry-sequence-breakers\n/set stop\n/set logit-bias 5=1 7=-2\n/set logit-bias\n"
    told = run("chat", "-m", base, stdin=said)
    assert 'dry-sequence-breakers ["\\n", ":", "\\"", "*"]\n' in told.err
    assert "stop none\n" in told.err and "logit-bias 5=1.0 7=-2.0\n" in told.err


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        (
            "stop",
            "[INST]",
            ("'[INST]' is not a text or a list of texts in JSON", 'write ["[INST]"]'),
        ),
        ("dry_sequence_breakers", "[[]]", ("is not a list of texts and token ids in JSON",)),
        (
            "suppress_tokens",
            "[5;7]",
            ("'[5;7]' is not a list of token ids in JSON", "write a list"),
        ),
        ("suppress_tokens", "[" * 100_000, ("is not a list of token ids in JSON",)),
        ("bad_words_ids", "[5]", ("is not a list of lists of token ids in JSON",)),
    ],
)
def test_row_263_set_refuses_what_begins_a_list_and_is_none(
    key: str, text: str, words: tuple[str, ...]
) -> None:
    chat = session()
    with pytest.raises(UsageError) as raised:
        of_chat.set_from_text(chat, key, text)
    assert all(each in str(raised.value) for each in words), raised.value
    assert chat.config == session().config


@pytest.mark.parametrize(
    ("option", "other"),
    [
        ("--logit-bias", "5=1"),
        ("--suppress-tokens", "5"),
        ("--bad-words-ids", "5,7"),
        ("--dry-sequence-breakers", "x"),
    ],
)
def test_row_264_none_stands_alone(option: str, other: str) -> None:
    words = (option, "none stands beside other values", "leave out none, or the others")
    run("generate", "-m", "demo", option, "none", option, other, "z").refused(2, *words)
    run("generate", "-m", "demo", option, other, option, "none", "z").refused(2, *words)


def test_row_264_none_is_a_text_for_stop(base: Path) -> None:
    told = run(
        *(
            "generate",
            "-m",
            base,
            "--json",
            "--max-tokens",
            "1",
            "--stop",
            "none",
            "--stop",
            "x",
            "a",
        )
    )
    assert json.loads(told.out)["settings"]["stop"] == ["none", "x"]


def test_row_265_several_biases_repeat_the_option() -> None:
    told = run("generate", "-m", "demo", "--logit-bias", "263=-100,16=-100", "z")
    told.refused(2, "'263=-100,16=-100' is not ID=VALUE", "as in 15=-2.5, and repeat the option")
    with pytest.raises(UsageError, match="put spaces between several"):
        of_chat.set_from_text(session(), "logit-bias", "263=-100,16=-100")
    assert "Add to the scores of tokens; may be repeated." in " ".join(
        run("generate", "--help").out.decode().split()
    )


def test_row_265_two_values_for_one_id(base: Path) -> None:
    twice = run("generate", "-m", "demo", "--logit-bias", "5=1", "--logit-bias", "05=2", "z")
    twice.refused(2, "--logit-bias", "gives token id 5 two values", "give it one")
    with pytest.raises(UsageError, match="/set logit-bias: gives token id 15 two values"):
        of_chat.set_from_text(session(), "logit-bias", "15=1 15=2")
    with pytest.raises(UsageError, match="logit-bias: gives token id 15 two values"):
        of_chat.apply(session(), {"logit-bias": {"15": 1, "015": 2}})
    line = json.dumps({"prompt": "a", "logit_bias": {"15": 1, "015": 2}})
    answer = json.loads(run("generate", "-m", base, "--batch", "-", stdin=line.encode()).out)
    expected = "line 1: logit_bias gives token id 15 two values; give it one"
    assert answer["error"] == {"message": expected, "exit_code": 2}


def test_defaults_of_a_user_reach_new_settings(base: Path, tmp_path: Path) -> None:
    env = {"LOLAMA_CONFIG": str(tmp_path / "config.toml"), "LOLAMA_IGNORE_EOS": "yes"}
    assert run("config", "set", "typical-p", "0.25", env=env).code == 0
    run("config", "set", "typical-p", "25", env=env).refused(2, "typical-p", "a probability")
    arguments = ("generate", "-m", base, "--json", "--max-tokens", "1")
    told = json.loads(run(*arguments, "a", env=env).out)["settings"]
    assert (told["typical_p"], told["ignore_eos"]) == (0.25, True)
    told = json.loads(run(*arguments, "--typical-p", "0.5", "a", env=env).out)["settings"]
    assert told["typical_p"] == 0.5


RECOMMENDED: dict[str, Any] = {"no_repeat_ngram_size": 2, "suppress_tokens": [70], "typical_p": 0.5}


@pytest.fixture
def recommending(tmp_path: Path) -> Path:
    """A model whose authors recommend settings."""
    import known_model

    folder = known_model.write_hugging_face(tmp_path / "recommending")
    values = {"do_sample": True, "temperature": 0.2, **RECOMMENDED}
    (folder / "generation_config.json").write_text(json.dumps(values))
    return folder


def test_what_was_asked_for_goes_before_what_a_model_recommends(
    recommending: Path, tmp_path: Path
) -> None:
    """Even if it is the default; what nobody asked for follows the model."""

    def settings(*options: str, **env: str) -> dict[str, Any]:
        told = run("generate", "-m", recommending, "--json", *options, "a", env=env)
        assert told.code == 0, told.err
        found: dict[str, Any] = json.loads(told.out)["settings"]
        return {name: found[name] for name in (*RECOMMENDED, "temperature")}

    follows = {**RECOMMENDED, "temperature": 0.7}
    assert settings() == follows
    assert settings("--no-repeat-ngram-size", "0") == {**follows, "no_repeat_ngram_size": 0}
    assert settings("--suppress-tokens", "none") == {**follows, "suppress_tokens": []}
    assert settings(LOLAMA_TYPICAL_P="1") == {**follows, "typical_p": 1.0}


def test_a_chat_follows_the_model_in_what_nobody_asked_for(recommending: Path) -> None:
    def replies(said: str, *options: str) -> list[str]:
        told = run(
            *("chat", "-m", recommending, "--raw", "--temperature", "0", "--max-tokens", "5"),
            *options,
            stdin=said.encode(),
        )
        assert told.code == 0, told.err
        return told.out.decode().split()

    from known_model import VOCABULARY

    never = str(VOCABULARY["d"])
    plain = replies("/set suppress-tokens none\nb\n")
    assert plain == ["cdefg"]
    assert replies("b\n", "--suppress-tokens", never) != plain
    assert replies("b\n", "--suppress-tokens", "none") == plain


def test_a_saved_chat_keeps_what_was_asked_for(tmp_path: Path) -> None:
    """It also keeps common settings. A model's own value may be in force for the others."""
    chat = session()
    of_chat.set_from_text(chat, "logit-bias", "5=1.5")
    of_chat.set_from_text(chat, "suppress-tokens", "none")
    saved = of_chat.settings_to_save(chat)
    assert {"temperature", "seed", "overflow", "logit-bias", "suppress-tokens"} <= {*saved}
    assert not {"typical-p", "dry-multiplier", "ignore-eos"} & {*saved}
    path = tmp_path / "chat.json"
    told = transcript.Transcript(model="", settings=saved, conversation=chat.conversation)
    transcript.save(path, told, replace=False)
    other = session()
    of_chat.apply(other, transcript.load(path).settings)
    assert other.config == chat.config
    assert {"logit_bias", "suppress_tokens"} <= other.given
    assert "typical_p" not in other.given


def test_help_has_a_section_for_settings_that_few_people_use() -> None:
    text = run("generate", "--help").out.decode()
    first, _, second = text.partition("Examples:")[0].partition("More settings of sampling:")
    for key, row in SETTINGS.items():
        rare = f"{option_of(key)} " in second or f"{option_of(key)}\n" in second
        assert (f"{option_of(key)} " in first) != rare, row.name
    assert "--temperature" in first and "--verbose" in first and "[default: 1.75]" in second
