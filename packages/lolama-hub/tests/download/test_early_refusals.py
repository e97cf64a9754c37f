"""What cannot be used is refused before its weights are downloaded; the bytes that the hub sent tell."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lolama_core.files.checkpoint_io import FileCheckpointIO
from lolama_core.protocols.errors import ModelError, NotAvailableError
from lolama_hub import HuggingFaceSource
from lolama_hub.testing.repository import CONFIG, SMALL_FILES
from lolama_hub.testing.stand_in_hub import StandInHub

NAME = "owner/model"
WEIGHTS = bytes(3_000_000)
FILES = {**SMALL_FILES, "model.safetensors": WEIGHTS}
CONFIG_BYTES = len(SMALL_FILES["config.json"])
IO = FileCheckpointIO()


@pytest.fixture
def hub(stand_in_hub: Callable[..., StandInHub]) -> StandInHub:
    return stand_in_hub({NAME: FILES})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (b"", "is empty"),
        (b"<html>please log in</html>", "is a web page"),
        (b"{}", "model_type is missing"),
        (b'{"model_type": "gpt2"}', "'gpt2' is not supported"),
        (json.dumps({**CONFIG, "num_hidden_layers": 0}).encode(), "num_hidden_layers is 0"),
        (json.dumps({**CONFIG, "quantization_config": {"quant_method": "awq"}}).encode(), "'awq'"),
        (b'{"model_type": "llava", "vision_config": {"model_type": "siglip"}}', "'siglip'"),
    ],
)
def test_row_50_a_configuration_that_cannot_be_used_is_noticed_before_anyone_is_asked(
    hub: StandInHub, source: HuggingFaceSource, tmp_path: Path, config: bytes, words: str
) -> None:
    hub.put(NAME, {**FILES, "config.json": config})
    with pytest.raises(ModelError, match=rf"^{NAME}/config\.json: .*{words}"):
        source.plan(NAME, IO)
    assert hub.bytes_sent() == len(config)
    assert not list(tmp_path.iterdir())


def test_a_model_that_sees_is_refused_without_safetensors_before_anyone_is_asked(
    hub: StandInHub, source: HuggingFaceSource
) -> None:
    config = b'{"model_type": "llava", "text_config": {"vocab_size": 32064}}'
    hub.put(NAME, {**SMALL_FILES, "config.json": config, "pytorch_model.bin": WEIGHTS})
    with pytest.raises(ModelError, match="get a version of the model in safetensors"):
        source.plan(NAME, IO)
    assert hub.bytes_sent() == len(config)


INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00001.safetensors"


def index_of(shard: str, *names: str) -> bytes:
    return json.dumps({"weight_map": dict.fromkeys(names, shard)}).encode()


@pytest.mark.parametrize(
    ("small", "words"),
    [
        ({"tokenizer.json": b"{"}, r"tokenizer\.json: is not valid JSON"),
        (
            {"tokenizer.json": b'{"model": {"vocab": {"a": 99}}}'},
            r"tokenizer\.json: the token 'a' has the id 99",
        ),
        ({"generation_config.json": b'{"eos_token_id": 8}'}, "eos_token_id is 8"),
        ({INDEX: index_of("model-00002-of-00002.safetensors", "x")}, "lists model-00002-of-00002"),
        ({INDEX: index_of("../x", "x")}, r"names the file '\.\./x'"),
        ({INDEX: index_of(SHARD, "model.norm.weight")}, "lacks 11 tensors"),
        ({INDEX: index_of(SHARD, "model.layers.0.experts.w1")}, "holds, unasked for, 1 tensor"),
    ],
)
def test_rows_39_to_41_and_50_to_53_small_files_are_checked_before_weights_come(
    hub: StandInHub,
    source: HuggingFaceSource,
    small: dict[str, bytes],
    words: str,
) -> None:
    weights = SHARD if INDEX in small else "model.safetensors"
    hub.put(NAME, {**SMALL_FILES, **small, weights: WEIGHTS})
    plan = source.plan(NAME, IO)
    assert plan.bytes_to_fetch > len(WEIGHTS)  # which is what a person is asked about
    with pytest.raises(ModelError, match=rf"^{NAME}/.*{words}"):
        source.fetch(plan, IO, confirm=lambda _: True)
    assert hub.bytes_sent() == sum(map(len, {**SMALL_FILES, **small}.values()))
    assert list(source.stored(IO)) == []


def test_a_missing_package_is_noticed_before_weights_come(
    hub: StandInHub, source: HuggingFaceSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
    model = {"tokenizer.model": b"\0" * 100, "model.safetensors": WEIGHTS}
    hub.put(NAME, {"config.json": SMALL_FILES["config.json"], **model})
    with pytest.raises(NotAvailableError, match=r"pip install 'lolama-hub\[sentencepiece\]'"):
        source.fetch(source.plan(NAME, IO), IO, confirm=lambda _: True)
    assert hub.bytes_sent() == CONFIG_BYTES + 100


def test_row_128_a_repository_without_a_tokenizer_is_refused_before_weights_come(
    hub: StandInHub, source: HuggingFaceSource
) -> None:
    hub.put(NAME, {"config.json": SMALL_FILES["config.json"], "model.safetensors": WEIGHTS})
    with pytest.raises(
        ModelError, match=rf"{NAME}: has neither tokenizer\.json nor tokenizer\.model"
    ):
        source.fetch(source.plan(NAME, IO), IO, confirm=lambda _: True)
    assert hub.bytes_sent() == CONFIG_BYTES
