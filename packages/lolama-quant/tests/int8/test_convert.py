"""Which linears are swapped, what stays, and the tensors of a saved model."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

from lolama_core import Llama, LlamaConfig
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_quant import Int8Linear
from lolama_quant.int8.convert import converted, declared, int8_linears, prepare_, quantize_

SCHEME = QuantizationScheme(name="int8")
OUTLIERS = QuantizationScheme(name="int8", outlier_columns={"layers.0.attention.q_proj": (1, 30)})


def llama(*, tied: bool = False) -> Llama:
    torch.manual_seed(0)
    return Llama(
        LlamaConfig(
            vocab_size=64,
            d_model=32,
            num_heads=4,
            num_kv_heads=2,
            num_layers=2,
            hidden_dim=48,
            max_seq_len=64,
            attention_bias=True,
            tie_word_embeddings=tied,
        )
    ).eval()


def test_embeddings_and_lm_head_stay() -> None:
    model = llama()
    head, embedding = model.lm_head, model.embed_tokens
    report = quantize_(model, SCHEME)
    assert len(report.replaced) == 14
    assert model.lm_head is head and model.embed_tokens is embedding
    assert isinstance(model.get_submodule("layers.1.feed_forward.w_down"), Int8Linear)
    assert report.bytes_after < report.bytes_before * 0.3  # of float32, and small rows


def test_lm_head_is_quantized_when_asked() -> None:
    model = llama()
    quantize_(model, QuantizationScheme(name="int8", skipped=()))
    assert isinstance(model.get_submodule("lm_head"), Int8Linear)


@pytest.mark.parametrize("skipped", [(), ("lm_head",)])
def test_a_tied_lm_head_stays_tied(skipped: tuple[str, ...]) -> None:
    model = llama(tied=True)
    quantize_(model, QuantizationScheme(name="int8", skipped=skipped))
    assert model.lm_head.weight is model.embed_tokens.weight
    assert model.lm_head.weight.dtype == torch.float32


def test_linears_that_share_a_weight_share_the_integers() -> None:
    module = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8), "c": nn.Linear(8, 8)})
    module["b"].weight = module["a"].weight
    empty = nn.ModuleDict({name: nn.Linear(8, 8, device="meta") for name in "abc"})
    empty["b"].weight = empty["a"].weight
    report = quantize_(module, SCHEME)
    prepare_(empty, SCHEME)
    for quantized in (module, empty):
        assert quantized["a"].weight is quantized["b"].weight
        assert quantized["a"].scale is quantized["b"].scale
        assert quantized["a"].weight is not quantized["c"].weight
        assert quantized["a"].bias is not quantized["b"].bias
    assert report.bytes_before == 2 * 256 and report.bytes_after == 2 * (64 + 32)


def test_skipped_names_cover_ends_and_whole_parts() -> None:
    module = nn.ModuleDict(
        {"text": nn.ModuleDict({"lm_head": nn.Linear(4, 4), "q": nn.Linear(4, 4)})}
        | {"vision": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), "my_lm_head": nn.Linear(4, 4)}
    )
    report = quantize_(module, QuantizationScheme(name="int8", skipped=("lm_head", "vision")))
    assert set(report.replaced) == {"text.q", "my_lm_head"}


def test_attention_of_torch_itself_still_runs() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    expected = layer(x)
    quantize_(layer.requires_grad_(False), SCHEME)
    assert isinstance(layer.get_submodule("linear1"), Int8Linear)
    layer.train()  # its fast path for inference reads weights around the layers
    layer.dropout.p = layer.dropout1.p = layer.dropout2.p = layer.self_attn.dropout = 0.0
    assert (layer(x) - expected).norm() / expected.norm() < 0.02


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_row_78_after_a_refused_weight_the_model_is_as_it_was(value: float) -> None:
    model = llama()
    with torch.no_grad():
        model.get_parameter("layers.1.feed_forward.w_down.weight")[3, 4] = value
    before = {name: id(module) for name, module in model.named_modules()}
    with pytest.raises(ModelError, match=r"layers\.1\.feed_forward\.w_down\.weight: holds NaN"):
        quantize_(model, SCHEME)
    assert {name: id(module) for name, module in model.named_modules()} == before
    empty = llama().to("meta")
    prepare_(empty, SCHEME)
    tensors = converted(empty, model.state_dict().items())
    with pytest.raises(ModelError, match=r"layers\.1\.feed_forward\.w_down\.weight: holds NaN"):
        list(tensors)


def test_row_81_quantizing_twice_and_other_versions_are_refused() -> None:
    model = llama()
    quantize_(model, SCHEME)
    for again in (quantize_, prepare_):
        with pytest.raises(UsageError, match="is quantized already"):
            again(model, SCHEME)
        with pytest.raises(ModelError, match=r"version 2 of the int8 layout; .* reads 1"):
            again(llama(), QuantizationScheme(name="int8", version=2))
        with pytest.raises(UsageError, match="no linear layer"):
            again(nn.Sequential(nn.ReLU()), SCHEME)


@pytest.mark.parametrize("columns", [(3, 1), (1, 1), (-1,), (32,)])
def test_outlier_columns_that_cannot_be_are_refused(columns: tuple[int, ...]) -> None:
    name = "layers.0.attention.q_proj"
    scheme = QuantizationScheme(name="int8", outlier_columns={name: columns})
    with pytest.raises(ModelError, match=r"names outlier columns of .*q_proj"):
        prepare_(llama().to("meta"), scheme)
    with pytest.raises(ModelError, match=r"of 'no\.such', which has 0 inputs"):
        prepare_(llama(), QuantizationScheme(name="int8", outlier_columns={"no.such": (1,)}))


@pytest.mark.parametrize("scheme", [SCHEME, OUTLIERS])
def test_tensor_by_tensor_gives_the_same_as_in_memory(scheme: QuantizationScheme) -> None:
    model, empty = llama(), llama().to("meta")
    prepare_(empty, scheme)
    streamed = dict(converted(empty, model.state_dict().items()))
    quantize_(model, scheme)
    state = model.state_dict()
    assert streamed.keys() == state.keys()
    assert all(torch.equal(streamed[name], state[name]) for name in state)
    assert declared(empty) == declared(model)
    assert {streamed[name].dtype for name in declared(empty)} == {torch.int8, torch.float32}


def test_the_dense_weights_are_let_go() -> None:
    model = llama()
    dense = [
        weakref.ref(model.get_parameter(f"layers.{layer}.attention.q_proj.weight"))
        for layer in range(2)
    ]
    quantize_(model, SCHEME)
    gc.collect()
    assert all(reference() is None for reference in dense)


@pytest.mark.parametrize(
    ("shape", "limit"),
    [
        # TinyLlama and Llama 2 7B, as their configurations say
        ((32000, 2048, 32, 4, 22, 5632), 0.57),
        ((32000, 4096, 32, 32, 32, 11008), 0.53),
    ],
)
def test_size_beside_sixteen_bits(shape: tuple[int, ...], limit: float) -> None:
    names = ("vocab_size", "d_model", "num_heads", "num_kv_heads", "num_layers", "hidden_dim")
    sizes: dict[str, Any] = dict(zip(names, shape, strict=True))
    config = LlamaConfig(**sizes, max_seq_len=2048)
    with torch.device("meta"):
        model = Llama(config).to(torch.bfloat16)
    before = sum(tensor.nbytes for tensor in model.state_dict().values())
    prepare_(model, SCHEME)
    after = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert after <= limit * before
    assert len(int8_linears(model)) == 7 * config.num_layers
