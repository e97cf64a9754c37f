"""Every field of transformers' configurations that changes what a model computes is read, or refused by name.

For each text architecture that is read, each field of its configuration class is changed in turn, and
transformers writes a tiny model of it. lolama has its logits, or refuses the folder in one clear line.
``LOLAMA_FIELDS`` tells how many of the changes are tried: ``nox -s families`` tries all.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from tests.test_parity import CASES, DESCENDANTS, LENGTH, SIZES, fill, load, random_ids, rope

from lolama_core.protocols.errors import LolamaError
from lolama_hub.folder.layouts import LAYOUTS
from lolama_hub.folder.layouts.layout import no_switches

pytestmark = pytest.mark.filterwarnings("ignore")  # the oracle's

MOST = os.environ.get("LOLAMA_FIELDS", "2")
TOLERANCE = 1e-4

BASES = dict(reversed([*CASES.values(), *DESCENDANTS.values()]))
"""The first parity case of each architecture."""

SKIPPED = frozenset(
    # They say what a model returns, how it is trained, named and run, or what tokenizers read; or they are
    # sizes by which all weights change their shapes.
    "architectures model_type transformers_version _name_or_path name_or_path dtype torch_dtype use_cache "
    "return_dict output_hidden_states output_attentions output_router_logits id2label label2id problem_type "
    "chunk_size_feed_forward is_encoder_decoder use_return_dict initializer_range router_aux_loss_coef "
    "attention_dropout resid_pdrop embd_pdrop router_jitter_noise pretraining_tp bos_token_id eos_token_id "
    "pad_token_id vocab_size hidden_size intermediate_size num_hidden_layers".split()
)
ACTIVATIONS = ("relu", "gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "relu2", "quick_gelu")
ROPES = [
    rope("linear", factor=2.0),
    rope("dynamic", factor=2.0),
    rope("yarn", factor=4.0, original_max_position_embeddings=16),
    rope(
        "llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=16,
    ),
    rope("default", partial_rotary_factor=0.5),
    rope("proportional", factor=2.0),
]


class Change(NamedTuple):
    """One field of an architecture, and the value that it gets."""

    kind: str
    field: str
    value: Any


def other_values(field: str, value: Any, layers: int) -> list[Any]:
    """Values that a field may have instead of ``value``."""
    if field == "rope_parameters":
        return [each["rope_parameters"] for each in ROPES]
    if field == "layer_types":
        kinds = ["full_attention", "sliding_attention", "linear_attention", "chunked_attention"]
        alternating = [kinds[layer % 2] for layer in range(layers)]
        return [alternating, *([kind] * layers for kind in kinds)]
    if isinstance(value, str) and ("act" in field or value in ACTIVATIONS):
        return [name for name in ACTIVATIONS if name != value]
    match value:
        case bool():
            return [not value]
        case int():
            return [0, 1, 2, value + 1, 2 * value]
        case float():
            return [0.0, 0.5 * value, 1.5 * value, 1.0, 3]
        case None:
            return [True, 1, 3, 7, 0.5, [1, 0, 1], "rope", "all"]
        case str():
            return ["rope", "nope", "default", "alibi"]
        case list():
            return [None, [], [1], [0, 2], [1] * layers, [0] * layers]
        case _:
            return []


def changes(kind: str) -> Iterator[Change]:
    """All changes of an architecture's configuration, one at a time."""
    config = config_of(kind).to_dict()
    config.update(
        {name: None for name in type(config_of(kind)).__annotations__ if name not in config}
    )
    # Fields that files of other architectures have, which some code reads wherever it finds them.
    strangers = ("head_dim", "partial_rotary_factor", "sliding_window", "layer_types", "clip_qkv")
    for field, value in {**dict.fromkeys(strangers), **config}.items():
        if field not in SKIPPED:
            for other in other_values(field, value, config["num_hidden_layers"]):
                yield Change(kind, field, other)


def config_of(kind: str, **fields: Any) -> Any:
    return transformers.AutoConfig.for_model(kind, **{**SIZES, **BASES[kind], **fields})


def oracle(change: Change, folder: Path) -> Any:
    """The tiny model of transformers, saved in a folder; None if it does not run."""
    try:
        config = config_of(change.kind, **{change.field: change.value})
        with torch.device("meta"):
            size = sum(
                parameter.numel()
                for parameter in transformers.AutoModelForCausalLM.from_config(config).parameters()
            )
        if size > 5_000_000:
            return None
        torch.manual_seed(7)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        fill(model.eval(), change.kind)
        with torch.inference_mode():
            logits = model(random_ids(2, LENGTH), use_cache=False).logits
        model.save_pretrained(folder)
    except Exception:
        return None
    return logits if bool(logits.isfinite().all()) else None


def outcome(change: Change, folder: Path) -> str:
    """What came of it: one of a few words, or how lolama differs."""
    expected = oracle(change, folder)
    if expected is None:
        return "transformers has no such model"
    try:
        model = load(folder)
        with torch.inference_mode():
            logits = model(random_ids(2, LENGTH))
    except LolamaError as error:
        message = str(error)
        assert message.isprintable() and len(message) < 1000, message
        return "refused"
    if logits.shape != expected.shape:
        return f"{change}: another shape"
    difference = float((logits - expected).abs().max())
    return "equal" if difference <= TOLERANCE else f"{change}: differs by {difference:.2g}"


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
def test_row_355_a_field_that_changes_the_arithmetic_is_read_or_refused(
    kind: str, tmp_path: Path, record_property: Any
) -> None:
    found: Counter[str] = Counter()
    every = list(changes(kind))
    step = 1 if MOST == "all" else len(every) // int(MOST)
    for number, change in enumerate(every[::step]):
        found[outcome(change, tmp_path / str(number))] += 1
    known = {
        name: found.pop(name, 0) for name in ("equal", "refused", "transformers has no such model")
    }
    assert not found, "\n".join(found)
    told = ", ".join(f"{count} {name}" for name, count in known.items())
    print(f"{kind}: {told}")
    record_property("changes", told)


def test_a_field_that_nobody_reads_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = Change("granite", "residual_multiplier", 0.7)
    assert outcome(change, tmp_path / "read") == "equal"
    monkeypatch.setitem(LAYOUTS, "granite", replace(LAYOUTS["granite"], switches=no_switches))
    assert "differs by" in outcome(change, tmp_path / "ignored")
