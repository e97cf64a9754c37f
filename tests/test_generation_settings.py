"""Settings that forbid tokens: lolama against transformers, through files, on every way to a token."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from lolama_core import (
    FileCheckpointIO,
    GenerationConfig,
    Llama,
    LlamaFamily,
    TextGenerator,
    load_model,
)
from lolama_core.protocols.settings import Kind, rows
from lolama_core.runtime.row_memory import RowMemory
from lolama_core.runtime.runner import runner_of
from lolama_hub import HuggingFaceSource

VOCABULARY, EOS, NEW = 40, 2, 24
PROMPTS = [[5, 6, 7, 5, 6], [9], [11, 4, 11, 4, 11, 4, 30]]

Write: TypeAlias = Callable[[dict[str, Any]], Path]


def test_row_260_every_setting_is_followed_or_named(write: Write) -> None:
    """Only how long a text becomes is left to the caller; what transformers does not know is named."""
    import transformers

    known = vars(transformers.GenerationConfig())
    value: dict[Kind, Any] = {
        "integer": 3,
        "integer or null": 3,
        "number": 0.5,
        "boolean": True,
        "list of strings": ["a"],
        "list of integers": [5],
        "list of lists of integers": [[5]],
        "list of strings or integers": ["a"],
        "object": {"5": 1.0},
    }
    asked = {name: value[row.kind] for name, row in rows(GenerationConfig).items()}
    files = HuggingFaceSource().resolve(
        str(write({"do_sample": True, **asked})), FileCheckpointIO()
    )
    assert files is not None
    generation: Any = files.config["generation"]
    followed, named = set(generation["sampling"]), set(generation["unsupported"])
    assert named == asked.keys() - known.keys()
    assert not followed & named
    assert followed | named == asked.keys() - {"max_new_tokens"}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that repeats itself within a few tokens, without a tokenizer."""
    import transformers

    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=EOS,
    )
    folder = tmp_path_factory.mktemp("settings") / "model"
    transformers.LlamaForCausalLM(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture
def write(model_folder: Path) -> Write:
    def write_settings(settings: dict[str, Any]) -> Path:
        text = json.dumps({"eos_token_id": EOS, **settings})
        (model_folder / "generation_config.json").write_text(text)
        return model_folder

    return write_settings


def expected(folder: Path, prompt: list[int]) -> tuple[int, ...]:
    """What transformers generates with the folder's own settings, greedy; no end token."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = model.generate(torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False)
    ids = found[0, len(prompt) :].tolist()
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return tuple(ids[:-1] if ids[-1] in ends else ids)


def load(folder: Path, dtype: str = "float32") -> Llama:
    files = HuggingFaceSource().resolve(str(folder), FileCheckpointIO())
    model = load_model(files, {"llama": LlamaFamily()}, device="cpu", dtype=dtype)
    assert isinstance(model, Llama)
    return model


GREEDY: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": NEW}


def every_way(model: Llama, **settings: Any) -> list[list[tuple[int, ...]]]:
    """The ids behind each prompt: at once, as a stream, in a batch, with a recorded step."""
    generator, recorded = TextGenerator(model), TextGenerator(model)
    recorded._idle = [RowMemory(runner_of(model), 1, record=True)]
    chosen = GREEDY | settings
    return [
        [generator.generate(prompt, **chosen).ids for prompt in PROMPTS],
        [tuple(generator.generate_stream(prompt, **chosen)) for prompt in PROMPTS],
        [result.ids for result in generator.generate_batch(PROMPTS, **chosen)],
        [recorded.generate(prompt, **chosen).ids for prompt in PROMPTS],
    ]


def frequent(model: Llama) -> list[int]:
    """What the model says by itself to the first prompt."""
    return list(
        TextGenerator(model).generate(PROMPTS[0], GenerationConfig.greedy(max_new_tokens=9)).ids
    )


CASES: dict[str, Callable[[list[int]], dict[str, Any]]] = {
    "one_gram": lambda said: {"no_repeat_ngram_size": 1},
    "bigrams": lambda said: {"no_repeat_ngram_size": 2},
    "trigrams": lambda said: {"no_repeat_ngram_size": 3},
    "suppressed": lambda said: {"suppress_tokens": [said[0], said[2]]},
    "bad_words": lambda said: {"bad_words_ids": [[said[1]], said[1:3], said[3:6]]},
    "bad_words_of_two": lambda said: {"bad_words_ids": [said[:2], said[2:4], said[4:6]]},
    "an_end_is_no_bad_word": lambda said: {
        "eos_token_id": [said[3], EOS],
        "bad_words_ids": [[said[3]], [said[0]]],
    },
    "no_early_end": lambda said: {"eos_token_id": [EOS, said[1]], "min_new_tokens": 7},
    "all": lambda said: {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "suppress_tokens": [said[1]],
        "bad_words_ids": [said[:2], [said[0]]],
        "eos_token_id": [EOS, said[2]],
        "min_new_tokens": 5,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_row_107_whole_generations_equal_those_of_transformers(case: str, write: Write) -> None:
    settings = CASES[case](frequent(load(write({}))))
    plain = every_way(load(write({})), repetition_penalty=1.0)
    folder = write(settings)
    right = [expected(folder, prompt) for prompt in PROMPTS]
    own = {} if "repetition_penalty" in settings else {"repetition_penalty": 1.0}
    ways = every_way(load(folder), **own)
    assert ways == [right] * 4
    assert ways != plain  # the setting changed something


def test_row_107_keywords_are_the_same_settings(write: Write) -> None:
    settings = CASES["all"](frequent(load(write({}))))
    eos = {"eos_token_id": settings.pop("eos_token_id")}
    right = every_way(load(write(eos | settings)))
    assert every_way(load(write(eos)), **settings) == right
    off: dict[str, Any] = {
        "no_repeat_ngram_size": 0,
        "suppress_tokens": [],
        "bad_words_ids": [],
        "min_new_tokens": 0,
        "repetition_penalty": 1.0,
    }
    plain = every_way(load(write(eos)), repetition_penalty=1.0)
    assert every_way(load(write(eos | settings)), **off) == plain != right


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_row_107_kernels_take_no_shortcut(dtype: str, write: Write) -> None:
    """Nothing forbidden comes out, greedy or not, whatever computes the logits."""
    said = frequent(load(write({})))
    settings = {"no_repeat_ngram_size": 2, "suppress_tokens": said[:2], "bad_words_ids": [[7]]}
    model = load(write(settings), dtype)
    for temperature in (0.0, 1.5):
        for results in every_way(model, temperature=temperature, seed=1):
            for prompt, ids in zip(PROMPTS, results, strict=True):
                assert not {*said[:2], 7} & set(ids)
                pairs = list(pairwise([*prompt, *ids]))[len(prompt) - 1 :]
                before = list(pairwise(prompt))
                assert len({*pairs} - {*before}) == len(pairs)


def test_row_107_an_end_that_is_ignored_counts_for_nothing(write: Write) -> None:
    said = frequent(load(write({})))
    model = load(write({"eos_token_id": said[1], "min_new_tokens": 9}))
    plain = load(write({"eos_token_id": said[1]}))
    assert every_way(model, ignore_eos=True) == every_way(plain, ignore_eos=True)
    assert every_way(model) != every_way(plain)


@pytest.mark.parametrize("case", ["bigrams", "suppressed", "bad_words", "no_early_end", "all"])
def test_row_194_settings_that_stand_in_config_json(case: str, write: Write) -> None:
    """Where there is no generation_config.json, transformers finds them there."""
    folder = write({})
    settings = CASES[case](frequent(load(folder)))
    config = folder / "config.json"
    before = config.read_text()
    (folder / "generation_config.json").unlink()
    config.write_text(json.dumps(json.loads(before) | settings))
    try:
        right = [expected(folder, prompt) for prompt in PROMPTS]
        own = {} if "repetition_penalty" in settings else {"repetition_penalty": 1.0}
        assert every_way(load(folder), **own) == [right] * 4
    finally:
        config.write_text(before)
