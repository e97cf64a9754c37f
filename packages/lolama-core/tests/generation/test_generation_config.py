from __future__ import annotations

import copy
import inspect
import math
import pickle
import re
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from lolama_core import GenerationConfig
from lolama_core.protocols.errors import EXIT_USAGE, UsageError
from lolama_core.protocols.settings import rows

HUGE = 10**5000  # more digits than Python agrees to print

NO_IDS: list[Any] = [5, "5", None, [-1], [1.0], [True], ["a"], [[1], [2]], [-HUGE], [[HUGE]], {5}]
NO_LISTS: list[Any] = [5, "a", None, [5], [[]], [[1], []], ["ab"], {1: 2}, torch.tensor([1, 2])]
REFUSED: list[tuple[str, Any]] = [
    *(("temperature", value) for value in (math.nan, math.inf, -math.inf, -1, -1e-9, 1e400, HUGE)),
    *(("temperature", value) for value in ("1", None, True, [0.5], 1j, np.True_)),
    *(("top_p", value) for value in (-1, -0.001, 1.001, 2, math.nan, math.inf, HUGE, "0.9", True)),
    *(("min_p", value) for value in (-0.1, 1.1, math.nan, None)),
    *(("typical_p", value) for value in (-0.1, 1.1, math.nan, None)),
    *(("top_k", value) for value in (torch.tensor([1, 2]), torch.tensor(1.0), torch.tensor(True))),
    *(("top_k", value) for value in (-1, 1.0, "5", True, math.nan, -HUGE)),
    *(("repetition_penalty", value) for value in (0, -1, math.nan, math.inf, 1e-45, HUGE, "1")),
    *(("presence_penalty", value) for value in (math.nan, math.inf, -math.inf, HUGE, None)),
    *(("frequency_penalty", value) for value in (math.nan, math.inf, -HUGE, "x")),
    *(("max_new_tokens", value) for value in (-1, -HUGE, 1.0, "5", True, None, math.nan)),
    *(("seed", value) for value in (-1, 1 << 63, HUGE, 1.0, "1", True)),
    *(("stop", value) for value in ("", ("a", ""), [1], 5, None, {"a": 1}, b"a", "\ud83d")),
    *(("logit_bias", value) for value in (5, [1], {-1: 1.0}, {"1": 1.0}, {True: 1.0}, {1: "2"})),
    *(("no_repeat_ngram_size", value) for value in (-1, 2.0, "2", True, None, math.nan, -HUGE)),
    *(("min_new_tokens", value) for value in (-1, 2.0, "2", True, None)),
    *(("suppress_tokens", value) for value in NO_IDS),
    *(("bad_words_ids", [value]) for value in NO_IDS),
    *(("bad_words_ids", value) for value in NO_LISTS),
    *(("logit_bias", {1: value}) for value in (math.nan, math.inf, -math.inf, HUGE)),
    *(("logprobs", value) for value in (-1, 101, 1.0, "5", True, HUGE)),
    *(("top_n_sigma", value) for value in (-1, math.nan, math.inf, "1", None, True)),
    *(("xtc_probability", value) for value in (-0.1, 1.1, math.nan, None, "1")),
    *(("xtc_threshold", value) for value in (-0.1, 1.1, math.nan, None)),
    *(("dry_multiplier", value) for value in (-0.1, math.nan, math.inf, "1", True)),
    *(("dry_base", value) for value in (0.99, 0, math.nan, math.inf, None)),
    *(("dry_allowed_length", value) for value in (0, -1, 1.5, "2", None)),
    *(("dry_penalty_last_n", value) for value in (-2, 1.5, "all", None, True)),
    *(
        ("dry_sequence_breakers", value)
        for value in ("", [""], [-1], [1.5], None, [None], "\ud83d")
    ),
]


@pytest.mark.parametrize(
    ("name", "value"), REFUSED, ids=[f"{name}-{i}" for i, (name, _) in enumerate(REFUSED)]
)
def test_nonsense_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        GenerationConfig(**{name: value})
    assert caught.value.subject == name
    assert caught.value.exit_code == EXIT_USAGE
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", 1e-45),
        ("temperature", 2),
        ("top_p", 0),
        ("top_p", 1),
        ("min_p", 1.0),
        ("top_k", 10**9),
        ("repetition_penalty", 0.5),
        ("presence_penalty", -2.0),
        ("max_new_tokens", 0),
        ("seed", 0),
        ("seed", (1 << 63) - 1),
        ("logit_bias", {0: -1e6}),
        ("stop", ()),
        ("no_repeat_ngram_size", 10**9),
        ("min_new_tokens", 10**9),
        ("suppress_tokens", (0, 10**9)),
        ("bad_words_ids", ((5,), (6, 0))),
        ("top_n_sigma", 1.5),
        ("xtc_probability", 1),
        ("dry_base", 1),
        ("dry_penalty_last_n", -1),
        ("dry_sequence_breakers", ()),
        ("dry_sequence_breakers", ("a", 5, "\n")),
    ],
)
def test_what_makes_sense_is_kept(name: str, value: object) -> None:
    assert getattr(GenerationConfig(**{name: value}), name) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("max_new_tokens", np.int64(5), 5),
        ("top_k", torch.tensor(5), 5),
        ("seed", np.uint32(7), 7),
        ("seed", torch.tensor([7]), 7),
        ("temperature", np.float32(0.5), 0.5),
        ("top_p", torch.tensor(0.5), 0.5),
        ("suppress_tokens", torch.tensor([1, 2]), (1, 2)),
        ("suppress_tokens", [np.int64(1), torch.tensor(2)], (1, 2)),
        ("bad_words_ids", np.array([[1, 2]]), ((1, 2),)),
        ("bad_words_ids", [torch.tensor([1]), [np.int8(2), 3]], ((1,), (2, 3))),
        ("logit_bias", {np.int32(3): np.float32(0.5), torch.tensor(4): 1}, {3: 0.5, 4: 1}),
        ("dry_sequence_breakers", [np.int64(5)], (5,)),
        ("dry_sequence_breakers", 5, (5,)),
    ],
)
def test_row_125_numbers_of_any_kind_are_kept_as_pythons_own(
    name: str, value: Any, plain: object
) -> None:
    kept = getattr(GenerationConfig(**{name: value}), name)
    assert kept == plain
    numbers = re.findall(r"[^][(){}:, ]+", repr(kept))  # as they are spelled, within lists too
    assert numbers and all(re.fullmatch(r"[0-9.]+", number) for number in numbers)


@pytest.mark.parametrize("temperature", [0, 0.0, -0.0, 1e-45, 1e-300, 1e-6])
def test_a_temperature_of_nearly_nothing_is_greedy(temperature: float) -> None:
    assert GenerationConfig.sampling(temperature=temperature).is_greedy


def test_what_leaves_one_token_is_greedy() -> None:
    assert GenerationConfig.sampling(top_p=0).is_greedy
    assert GenerationConfig.sampling(top_k=1).is_greedy
    assert not GenerationConfig.sampling(top_k=2, top_p=1e-9, temperature=0.01).is_greedy


def test_one_stop_text_needs_no_list() -> None:
    assert GenerationConfig(stop="\n").stop == ("\n",)
    assert GenerationConfig(stop=["a", "b"]).stop == ("a", "b")


def test_greedy_and_sampling_change_nothing_else() -> None:
    """What the model itself would say: no penalty, nothing cut."""
    for config in (GenerationConfig.greedy(), GenerationConfig.sampling()):
        assert (config.repetition_penalty, config.top_p, config.top_k) == (1.0, 1.0, 0)
        assert (config.min_p, config.typical_p, config.presence_penalty) == (0.0, 1.0, 0.0)
    assert GenerationConfig.greedy().is_greedy
    assert GenerationConfig.sampling().temperature == 1.0
    assert GenerationConfig.greedy(repetition_penalty=1.3, seed=4).repetition_penalty == 1.3


def test_with_settings() -> None:
    config = GenerationConfig(seed=3)
    changed = config.with_settings(top_k=4, max_new_tokens=1)
    assert (changed.top_k, changed.max_new_tokens, changed.seed) == (4, 1, 3)
    assert config.top_k == 0
    with pytest.raises(UsageError, match=r"tempreature.*known are.*temperature"):
        config.with_settings(tempreature=1.0)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"^top_p: 3 is not"):
        config.with_settings(top_p=3)


NAMES: dict[str, str] = {
    "max_tokens": "here it is max_new_tokens",
    "pad_token_id": "here it is left out, since rows are never padded",
    "do_sample": "here it is temperature=0 for False",
    "logits_processors": "here it is an argument of generate, beside its config",
    "temprature": r"did you mean temperature\? known are .*xtc_threshold",
    "flavor": "known are bad_words_ids, ",
}


@pytest.mark.parametrize(("name", "remedy"), NAMES.items())
def test_row_268_a_name_that_is_no_setting_is_told_the_right_one(name: str, remedy: str) -> None:
    wrong: Any = {"top_k": 3, name: 5}
    changed = partial(replace, GenerationConfig())
    for make in (
        GenerationConfig,
        GenerationConfig.greedy,
        GenerationConfig.sampling,
        GenerationConfig().with_settings,
        changed,
    ):
        with pytest.raises(UsageError, match=f"^{name}: is not a generation setting; {remedy}"):
            make(**wrong)


def test_row_268_it_is_a_dataclass_all_the_same() -> None:
    config = GenerationConfig(top_k=3, stop="x", logit_bias={1: 2.0})
    for other in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config and other is not config
    assert replace(config, top_k=4) == GenerationConfig(top_k=4, stop="x", logit_bias={1: 2.0})
    assert repr(config).startswith("GenerationConfig(max_new_tokens=256, ")
    assert asdict(config)["stop"] == ("x",)
    names = [field.name for field in fields(GenerationConfig)]
    assert [*inspect.signature(GenerationConfig).parameters] == names
    positional: Any = GenerationConfig
    with pytest.raises(TypeError, match="positional"):
        positional(5)


def test_it_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        GenerationConfig().top_k = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("temperature", 1e6),
        ("repetition_penalty", 1e6),
        ("presence_penalty", 1e6),
        ("frequency_penalty", -1e6),
    ],
)
def test_a_number_beyond_its_limit_is_told_the_limit(name: str, limit: Any) -> None:
    GenerationConfig(**{name: limit})
    with pytest.raises(UsageError, match="1,000,000"):
        GenerationConfig(**{name: 3 * limit})


def test_every_setting_is_a_row_that_explains_itself() -> None:
    """Options, keys and schemas are made of the rows; the docstring says more."""
    table = rows(GenerationConfig)
    assert [*table] == [field.name for field in fields(GenerationConfig)]
    explained = inspect.getdoc(GenerationConfig) or ""
    default = GenerationConfig()
    for name, row in table.items():
        assert row.name == name and row.help.endswith(".") and len(row.help) < 90
        assert f"\n    {name}: " in explained
        assert row.default == getattr(default, name) == row.check(name, row.default)


def test_fields_of_a_subclass_are_its_own_matter() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Labeled(GenerationConfig):
        label: str = ""

    assert Labeled(label="a", top_k=3).with_settings(label="b").label == "b"  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"^top_k: -1"):
        Labeled(top_k=-1)
