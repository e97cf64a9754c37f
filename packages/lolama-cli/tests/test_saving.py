"""``lolama.save``: what is loaded again is the model that was saved, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from drawings import circle
from torch import nn

import lolama
from lolama import Llama, LlamaConfig
from lolama.model import quantize_model_int8
from lolama_core.protocols.errors import ModelError, ResourceError, UsageError
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.protocols.types import TokenizerBlock
from lolama_quant import Int8Linear, Int8Quantizer

TINY = {"vocab_size": 64, "d_model": 32, "num_heads": 4, "num_layers": 2, "hidden_dim": 48}


def tiny(**changes: Any) -> Llama:
    torch.manual_seed(0)
    return Llama(LlamaConfig(**{**TINY, "max_seq_len": 64, **changes}))


def load(name: str | Path, **how: Any) -> Any:
    return lolama.load_model(name, device="cpu", **how)


def changed(model: nn.Module) -> None:
    """A step of training, as far as weights are concerned."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.is_floating_point():
                weight.add_(0.01 * torch.randn(weight.shape, generator=generator))


def logits(model: Any, steps: int = 3) -> torch.Tensor:
    """The logits of a prompt and of decoding steps after it."""
    seeing = hasattr(model, "vision_tower")
    ids = torch.randint(3, 60, (1, 40), generator=torch.Generator().manual_seed(0))
    inputs = {}
    if seeing:
        ids[0, 2] = model.config.image_token_id
        side = model.config.vision_config.image_size
        pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        inputs = {"pixel_values": pixels}
    with torch.inference_mode():
        prompt = model.embed_prompt(ids, [40], **inputs)
        cache = model.make_cache(1, prompt.lengths[0] + steps)
        found = [model.forward_embeds(prompt.embeds, cache)]
        cache.advance([prompt.lengths[0]])
        for step in range(steps):
            token = torch.tensor([[5 + step]])
            found.append(model.forward_embeds(model.embed(token), cache))
            cache.advance([1])
        found.append(model.forward_embeds(prompt.embeds, logits="all")[0])
    return torch.cat(found)


def int8_with_outliers(model: nn.Module) -> None:
    columns = {"layers.0.attention.q_proj": (1, 5), "layers.1.feed_forward.w_down": (7,)}
    scheme = QuantizationScheme(name="int8", skipped=("o_proj",), outlier_columns=columns)
    Int8Quantizer().quantize_(model, scheme)


@pytest.mark.parametrize("name", ["demo", "demo-vision"])
@pytest.mark.parametrize("dtype", [None, "float32", "float16"])
@pytest.mark.parametrize("change", [None, changed, quantize_model_int8])
def test_logits_are_the_same(
    tmp_path: Path, name: str, dtype: str | None, change: Callable[[nn.Module], None] | None
) -> None:
    model = load(name, dtype=dtype)
    if change is not None:
        change(model)
    lolama.save(model, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.dtype == model.dtype
    assert torch.equal(logits(again), logits(model))
    assert again.generation_defaults == model.generation_defaults
    own, other = lolama.load_tokenizer(name), lolama.load_tokenizer(tmp_path / "saved")
    assert (other.block, other.chat_template) == (own.block, own.chat_template)
    assert other.tokenizer_json == own.tokenizer_json


def test_int8_models_that_were_saved_or_have_outliers(tmp_path: Path) -> None:
    model = load("demo")
    int8_with_outliers(model)
    lolama.save(model, tmp_path / "one")
    one = load(tmp_path / "one")
    assert torch.equal(logits(one), logits(model))
    layer = one.get_submodule("layers.0.attention.q_proj")
    assert isinstance(layer, Int8Linear) and layer.outlier_columns is not None
    assert not isinstance(one.get_submodule("layers.0.attention.o_proj"), Int8Linear)
    lolama.save(one, tmp_path / "two")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True},
        {"attention_bias": "qkv", "num_kv_heads": 2, "head_dim": 16, "sliding_window": 8},
        {"rope_scaling": {"type": "linear", "factor": 2.0, "original_max_seq_len": 32}},
        {"qk_norm": "head", "sliding_window": 8, "sliding_layers": (0,)},
        {
            "num_experts": 4,
            "experts_per_token": 2,
            "expert_dim": 24,
            "shared_expert_dim": 16,
            "dense_layers": (0,),
        },
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_of_ones_own_without_tokenizer(
    tmp_path: Path, shape: dict[str, Any], dtype: torch.dtype
) -> None:
    model = tiny(**shape).to(dtype)
    lolama.save(model, tmp_path / "mine")
    again = load(tmp_path / "mine")
    assert again.config == model.config
    weights = again.state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weights[name], weight.to(weights[name].dtype))
    with torch.inference_mode():
        ids = torch.arange(20)[None]
        torch.testing.assert_close(again(ids), model(ids), atol=2e-2, rtol=2e-2)
    lolama.save(again, tmp_path / "again")
    assert torch.equal(logits(load(tmp_path / "again")), logits(again))
    with pytest.raises(ModelError, match="has no tokenizer"):
        lolama.load(tmp_path / "mine")


def test_what_was_trained_is_what_is_saved(tmp_path: Path) -> None:
    model = tiny(tie_word_embeddings=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    ids = torch.arange(40)[None] % 7
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    lolama.save(model, tmp_path / "trained")
    again = load(tmp_path / "trained")
    with torch.inference_mode():
        found = nn.functional.cross_entropy(again(ids)[0, :-1], ids[0, 1:])
    assert float(found) < losses[-1] < losses[0]
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)


def test_with_a_tokenizer_of_its_own(tmp_path: Path) -> None:
    own = lolama.load_tokenizer("demo")
    model = tiny(vocab_size=own.vocab_size)
    lolama.save(model, tmp_path / "mine", tokenizer=own)
    llm = lolama.load(tmp_path / "mine")
    assert llm.chat("Hello", max_new_tokens=3).finish_reason
    assert llm.model.generation_defaults.eos_ids == own.eos_ids
    assert llm.encode_chat("Hello")[0] == own.render_chat([{"role": "user", "content": "Hello"}])


def test_end_tokens_of_model_and_tokenizer_are_kept(tmp_path: Path) -> None:
    """A generation ends at both."""
    own = lolama.load_tokenizer("demo")
    model = tiny(vocab_size=own.vocab_size)
    model.generation_defaults = replace(model.generation_defaults, eos_ids=frozenset({77}))
    lolama.save(model, tmp_path / "mine", tokenizer=own)
    again = lolama.load_model(str(tmp_path / "mine"))
    assert again.generation_defaults.eos_ids == own.eos_ids | {77}


def test_what_load_returned_and_folders_of_hugging_face(tmp_path: Path, published: Path) -> None:
    for name in ("demo-vision", published):
        llm = lolama.load(name, device="cpu")
        folder = tmp_path / Path(name).name
        lolama.save(llm, folder)
        again = lolama.load(folder, device="cpu")
        assert again.generate("a", temperature=0, max_new_tokens=5) == llm.generate(
            "a", temperature=0, max_new_tokens=5
        )
    reply = lolama.load(tmp_path / "demo-vision").chat(
        "What is in the picture?", images=circle(), temperature=0
    )
    assert str(reply) == "A large red circle in the centre."


def test_a_linear_of_torch_is_saved_as_what_loading_makes_of_it(tmp_path: Path) -> None:
    model: Any = tiny()
    model.layers[1].attention.q_proj = nn.Linear(32, 32, bias=False)
    lolama.save(model, tmp_path / "mine")
    weight = load(tmp_path / "mine").layers[1].attention.q_proj.weight
    assert torch.equal(weight, model.layers[1].attention.q_proj.weight)


def test_a_copy_of_a_model_remembers_too(tmp_path: Path) -> None:
    model = copy.deepcopy(load("demo"))
    lolama.save(model, tmp_path / "copy")
    assert str(lolama.load(tmp_path / "copy").chat("What is two plus three?", temperature=0))


def test_the_block_of_a_tokenizer_tells_all_of_it() -> None:
    assert lolama.load_tokenizer("demo").block.keys() == TokenizerBlock.__annotations__.keys()


def test_row_192_a_folder_that_exists(tmp_path: Path) -> None:
    model = tiny()
    lolama.save(model, tmp_path / "mine")
    with pytest.raises(
        UsageError, match="mine: exists already; choose another name, or add overwrite=True"
    ):
        lolama.save(model, tmp_path / "mine")
    changed(model)
    lolama.save(model, tmp_path / "mine", overwrite=True)
    again = load(tmp_path / "mine")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    lolama.save(again, tmp_path / "mine", overwrite=True)  # where it came from
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not a lolama checkpoint"):
        lolama.save(model, tmp_path / "notes", overwrite=True)
    with pytest.raises(UsageError, match="does not exist"):
        lolama.save(model, tmp_path / "no" / "parent")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "notes"]


class Linear(nn.Linear):
    """Has the name of what a checkpoint holds, and is something else."""


class OwnAttention(nn.Module):
    """An attention that no checkpoint holds."""


def _swap_attention(model: Any) -> None:
    model.layers[1].attention = OwnAttention()


def _swap_linear(model: Any) -> None:
    model.layers[1].attention.q_proj = Linear(32, 32, bias=False)


def _subclass(model: Any) -> None:
    model.__class__ = type("OwnLlama", (Llama,), {})


def _own_forward(model: Any) -> None:
    model.layers[0].feed_forward.forward = lambda x: x


def _own_method(model: Any) -> None:
    model.layers[1].attention.split_heads = lambda x: x


def _further_part(model: Any) -> None:
    model.adapter = nn.Linear(2, 2)


def _further_weight(model: Any) -> None:
    model.layers[0].gate = nn.Parameter(torch.ones(1))


def _fewer_layers(model: Any) -> None:
    del model.layers[1]


def _larger_vocabulary(model: Any) -> None:
    model.lm_head.weight = nn.Parameter(torch.ones(65, 32))


def _one_in_another_dtype(model: Any) -> None:
    model.layers[1].feed_forward.w_up.to(torch.bfloat16)


def _untied(model: Any) -> None:
    model.lm_head.weight = nn.Parameter(model.embed_tokens.weight.detach() + 1)


def _no_weights(model: Any) -> None:
    model.to("meta")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_swap_attention, "layers.1.attention: is an OwnAttention, where .* a plain Attention"),
        (_swap_linear, "layers.1.attention.q_proj: is a Linear, where .* a plain Linear"),
        (_subclass, "model: is an OwnLlama, where this kind of model has a plain Llama"),
        (_own_forward, "layers.0.feed_forward: has a forward of its own"),
        (_own_method, "layers.1.attention: has a split_heads of its own"),
        (_further_part, "adapter: is a Linear, where this kind of model has nothing"),
        (_further_weight, "layers.0.gate: is no tensor of this kind of model"),
        (_fewer_layers, "layers.1: is missing, where this kind of model has a plain Block"),
        (_larger_vocabulary, r"lm_head.weight: has shape \(65, 32\); .* asks for \(64, 32\)"),
        (_one_in_another_dtype, "w_up.weight: is bfloat16, where the model's embedding is float32"),
        (_untied, "lm_head.weight: differs from embed_tokens.weight"),
        (_no_weights, "embed_tokens.weight: is on the meta device"),
        (nn.Module.double, "model: is float64; the weights of a checkpoint are one of float32"),
        (lambda model: model.to(torch.float8_e5m2), "model: is float8_e5m2"),
    ],
)
def test_row_193_a_model_that_no_checkpoint_holds(
    tmp_path: Path, spoil: Callable[[Any], object], message: str
) -> None:
    model = tiny(tie_word_embeddings=spoil is _untied)
    spoil(model)
    with pytest.raises(UsageError, match=message) as caught:
        lolama.save(model, tmp_path / "mine")
    assert caught.value.remedy and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.DataParallel(tiny()), "demo", None])
def test_row_193_what_is_no_model(tmp_path: Path, model: Any) -> None:
    with pytest.raises(UsageError, match="is no model that a lolama checkpoint holds"):
        lolama.save(model, tmp_path / "mine")


def test_row_193_a_language_model_of_another_kind_that_sees(tmp_path: Path) -> None:
    model = load("demo-vision")
    model.language_model = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="LLaVA: is no model"):
        lolama.save(model, tmp_path / "mine")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_row_193_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    model: Any = tiny()
    with torch.no_grad():
        model.layers[0].attention.o_proj.weight[3, 4] = value
    with pytest.raises(ModelError, match=r"o_proj.weight' holds NaN or Inf; write it with"):
        lolama.save(model, tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_row_193_the_tokenizer_it_was_loaded_with_is_gone(tmp_path: Path) -> None:
    lolama.save(load("demo"), tmp_path / "one")
    model = load(tmp_path / "one")
    (tmp_path / "one" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json: does not exist"):
        lolama.save(model, tmp_path / "two")
    lolama.save(model, tmp_path / "two", tokenizer=lolama.load_tokenizer("demo"))


def test_row_193_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from lolama_core.files.safetensors_writer import SafetensorsWriter

    def full(writer: SafetensorsWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SafetensorsWriter, "finish", full)
    with pytest.raises(ResourceError, match="No space left"):
        lolama.save(tiny(), tmp_path / "mine")
    assert not list(tmp_path.iterdir())
