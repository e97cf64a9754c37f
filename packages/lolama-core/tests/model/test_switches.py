"""Models with switches say the same however they run, and checkpoints without switches are as they were."""

from __future__ import annotations

import copy
import json
from dataclasses import fields
from typing import Any

import pytest
import torch

from lolama_core import Generation, Kernels, Llama, LlamaConfig, Tokenizer, set_kernels
from lolama_core.model.layer_kinds import config_of_layer
from lolama_core.model.switches import Switches
from lolama_core.protocols.errors import ModelError
from lolama_core.runtime.runner import runner_of
from lolama_core.testing.decoder_kernel import logits_of_row
from lolama_core.testing.engine import ALONE, Way, content, run_jobs
from lolama_core.testing.engine_jobs import CONTEXT, DEFAULTS, VOCABULARY, make_jobs
from lolama_core.testing.switches import SWITCHED

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 48,
    "num_heads": 4,
    "num_kv_heads": 2,
    "num_layers": 3,
    "hidden_dim": 64,
    "max_seq_len": CONTEXT,
}

WAYS = [
    Way(2, 7, little_memory=True),
    Way(5, None, little_memory=True, draft="lookup"),
    Way(16, 64, draft="itself"),
]


def test_each_switch_has_a_case() -> None:
    named = {name for case in SWITCHED.values() for name in case}
    assert {switch.name for switch in fields(Switches)} <= named


@pytest.mark.parametrize("name", SWITCHED)
def test_json_and_back(name: str) -> None:
    config = LlamaConfig(**SMALL, **SWITCHED[name])
    assert LlamaConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.to_json().keys() >= SWITCHED[name].keys()


def test_what_is_off_is_not_written() -> None:
    written = LlamaConfig(**SMALL).to_json().keys()
    assert written == {f.name for f in fields(LlamaConfig)} - {f.name for f in fields(Switches)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("qk_norm", "heads"),
        ("qk_norm", True),
        ("sliding_layers", [3]),
        ("sliding_layers", [0, 0]),
        ("sliding_layers", [-1]),
        ("sliding_layers", [True]),
        ("sliding_layers", "01"),
        ("sliding_layers", 1),
        ("unrotated_layers", [3]),
        ("unrotated_layers", None),
        ("rotary_dim", 3),
        ("rotary_dim", 14),
        ("activation", "relu"),
        ("activation", None),
        ("norms", []),
        ("embedding_scale", 0),
        ("residual_scale", float("nan")),
        ("attention_scale", "1"),
        ("logit_divisor", -1),
        ("attention_softcap", 0.0),
        ("logit_softcap", True),
        ("sliding_rope_base", 0.5),
        ("query_scale_beta", 0.1),
        ("query_scale_length", 16),
        ("num_experts", 0),
        ("num_experts", True),
        ("experts_per_token", 2),
        ("expert_dim", 8),
        ("shared_expert_dim", 8),
        ("normalize_expert_weights", None),
        ("dense_layers", [3]),
    ],
)
def test_impossible_values_are_named(field: str, value: object) -> None:
    with pytest.raises(ModelError, match=r"config .*: is ") as caught:
        LlamaConfig(**{**SMALL, field: value})
    assert field in str(caught.value)


def test_layers_that_are_alike_share_a_kind() -> None:
    config = LlamaConfig(**SMALL, sliding_window=7, sliding_layers=(0, 2))
    model = Llama(config)
    assert [kind.sliding_window for kind in model.kinds] == [7, None]
    assert [block.attention.kind for block in model.layers] == [0, 1, 0]  # type: ignore[union-attr]
    plain = LlamaConfig(**SMALL)
    assert all(config_of_layer(plain, layer) is plain for layer in range(3))


@pytest.fixture(scope="module", params=SWITCHED)
def model(request: pytest.FixtureRequest) -> Llama:
    """All that it attends to changes what it says."""
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**SMALL, **SWITCHED[request.param])).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.normal_(1.0, 0.2)
        elif "o_proj" in name:
            parameter.mul_(8)
    model.generation_defaults = DEFAULTS
    return model


@pytest.fixture(scope="module")
def alone(model: Llama, byte_level: Tokenizer) -> list[list[Generation[str]]]:
    """What each job leads to when nothing else has run, or runs, without any kernel."""
    set_kernels(model, Kernels())
    jobs = make_jobs(6, 0)
    found = [run_jobs(ALONE.engine(model, byte_level), [job])[0] for job in jobs]
    set_kernels(model, None)
    return found


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(model: Llama, dtype: torch.dtype) -> None:
    """Weights and cache, in chunks: within what rounding them changes."""
    ids = torch.randint(0, VOCABULARY, (1, 60), generator=torch.Generator().manual_seed(1))
    narrow, expected = copy.deepcopy(model).to(dtype), model(ids)[0]
    for chunk, rows in ((1, 1), (25, 1), (7, 3)):
        found = logits_of_row(runner_of(narrow), ids, chunk, rows)
        assert (found - expected).std() < 0.05 * expected.std()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_text_is_as_it_would_be_alone(
    model: Llama, byte_level: Tokenizer, alone: list[list[Generation[str]]], way: Way
) -> None:
    """In pages, chunks and batches, with drafts, put back, and with the kernels that are installed."""
    jobs = make_jobs(6, 0)
    found = run_jobs(way.engine(model, byte_level), jobs, make_jobs(2, 1), seed=way.rows)
    for results, expected in zip(found, alone, strict=True):
        for result, wanted in zip(results, expected, strict=True):
            assert content(result).ids == content(wanted).ids
            assert result.finish_reason == wanted.finish_reason
