"""What predictions are sensitive to, beside exact derivatives of the KL divergence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lolama_core import Llama, LlamaConfig
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_quant.int4.sensitivity import Sensitivity, sensitivity
from lolama_quant.int8.quantizer import Int8Quantizer

LAST = "layers.1.feed_forward.w_down"


def dense(**changes: Any) -> Llama:
    torch.manual_seed(0)
    shape = {"vocab_size": 48, "d_model": 32, "num_heads": 4, "num_layers": 2, "hidden_dim": 64}
    model = Llama(LlamaConfig(max_seq_len=64, **shape | changes)).eval().requires_grad_(False)
    model.get_parameter("lm_head.weight").mul_(4)  # some predictions are sure, some are open
    return model


def linears(model: nn.Module) -> set[str]:
    return {name for name, one in model.named_modules() if isinstance(one, nn.Linear)} - {"lm_head"}


def texts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(48, (1, width), generator=generator) for width in (60, 50)]


def streams_of(model: Llama, read: list[Tensor]) -> list[Tensor]:
    """What the last norm reads, (1, T, D) each."""
    found = list[Tensor]()
    hook = model.norm.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    for ids in read:
        model(ids)
    hook.remove()
    return found


def exact_outputs(model: Llama, read: list[Tensor]) -> Tensor:
    """The mean of E[g gᵀ] over all tokens, with every y in the place of one that is drawn."""

    def log_p(stream: Tensor) -> Tensor:
        logits: Tensor = model.lm_head(model.norm(stream))
        return logits.log_softmax(-1)

    streams = torch.cat(streams_of(model, read), dim=1)[0]
    total = torch.zeros(32, 32)
    for stream in streams:
        jacobian = torch.func.jacrev(log_p)(stream)  # (V, D)
        total += jacobian.T @ (log_p(stream).exp()[:, None] * jacobian)
    return total / len(streams)


def test_outputs_are_the_fisher_information() -> None:
    model, read = dense(), texts() * 32
    found, exact = sensitivity(model, read, linears(model)), exact_outputs(model, texts())
    assert found.last == LAST and found.outputs is not None
    # 7,040 tokens are drawn.
    assert (found.outputs - exact).norm() < 0.1 * exact.norm()
    assert torch.equal(found.outputs, found.outputs.T)
    assert found.outputs_of(LAST) is found.outputs
    assert found.outputs_of("layers.0.feed_forward.w_down") is None


def test_importance_is_that_of_open_places_and_small_streams() -> None:
    model, read = dense(), texts()
    found = sensitivity(model, read, linears(model)).importance
    assert [one.shape for one in found] == [ids.shape for ids in read]
    assert float(torch.cat(found, dim=1).mean()) == pytest.approx(1)
    wanted = [
        ((1.1 - model(ids).softmax(-1).square().sum(-1)) / stream.square().mean(-1)).sqrt()
        for ids, stream in zip(read, streams_of(model, read), strict=True)
    ]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one / found[0][0, 0], other / wanted[0][0, 0])


def test_the_model_stays_as_it_is() -> None:
    model = dense()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    sensitivity(model, texts(), linears(model))
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    modules = list(model.modules())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in modules)


def test_a_model_in_eight_bits_is_sensitive_to_the_same() -> None:
    model, read = dense(), texts()
    names, wanted = linears(model), sensitivity(model, read, linears(model))
    Int8Quantizer().quantize_(model, QuantizationScheme(name="int8"))
    found = sensitivity(model, read, names)
    assert found.last == LAST
    for one, other in zip(found.importance, wanted.importance, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0)
    assert found.outputs is not None and wanted.outputs is not None
    assert (found.outputs - wanted.outputs).norm() < 0.2 * wanted.outputs.norm()


def test_the_last_linear_of_experts_is_not_in_all_tokens_way() -> None:
    model = dense(num_experts=4, experts_per_token=2, expert_dim=16)
    found = sensitivity(model, texts(), linears(model))
    assert isinstance(found, Sensitivity)
    assert found.last is None and found.outputs is None and len(found.importance) == 2


def test_row_424_what_is_no_number_counts_nothing() -> None:
    model, (good, bad) = dense(), texts()
    model.get_parameter("embed_tokens.weight")[7] = torch.inf
    good[good == 7], bad[0, 20] = 8, 7
    found = sensitivity(model, [good, bad], linears(model))
    alone = sensitivity(model, [good], linears(model))
    assert found.importance[1][0, 20:].tolist() == [0] * 30 and (found.importance[0] > 0).all()
    assert found.outputs is not None and alone.outputs is not None
    torch.testing.assert_close(found.outputs, alone.outputs)
    nothing = sensitivity(model, [bad[:, 20:]], linears(model))
    assert nothing.outputs is None and nothing.importance[0].tolist() == [[1] * 30]


def test_row_457_information_that_float32_does_not_have() -> None:
    model, read = dense(), texts()
    for name, norm in model.named_parameters():
        if "norm" in name:
            norm.mul_(1e15)
    model.norm.weight.mul_(1e10)
    found = sensitivity(model, read, linears(model))
    assert found.last is None and found.outputs is None
    assert all(bool(one.isfinite().all()) for one in found.importance)


def test_steps_are_told() -> None:
    model, told = dense(), list[tuple[int, int]]()
    sensitivity(model, texts(), linears(model), lambda done, total: told.append((done, total)))
    assert told == [(0, 110), (60, 110), (110, 110)]
