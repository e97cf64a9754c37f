"""A text and what a model computed for it, as the numbers that a picture of it needs."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from lolama_core.generation.request_factory import RequestFactory, too_long
from lolama_core.model.llama import Llama
from lolama_core.observation.observed import ObservedLayer, ObservedPass
from lolama_core.observation.observer import Observer, blocks_of, observe, observed_model
from lolama_core.protocols import CausalLM, Tokenizer
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.explaining import Candidate, ExplainedLayer, Explanation, Neuron
from lolama_core.protocols.inference import run_inference
from lolama_core.runtime.pages import position_bytes

MOST_NUMBERS = 4_000_000
"""Attention weights of one explanation: T²/2 for each head of each layer."""

_CANDIDATES, _NEURONS, _LOGITS = 5, 8, 2000


def explain(model: CausalLM, tokenizer: Tokenizer, ids: Sequence[int]) -> Explanation:
    """Run a text through ``model`` once, and tell what each part of it computed.

    Args:
        model: A `Llama`, or a model around one.
        tokenizer: Its own.
        ids: The text, T token ids.

    Raises:
        UsageError: for no ids, a text that is too long, or a model that is no `Llama` inside.
    """
    text = observed_model(model)
    ids = RequestFactory(model, None).ids(ids)
    if len(ids) > text.max_seq_len:
        raise too_long(len(ids), text.max_seq_len)
    heads = text.config.num_layers * text.config.num_heads
    if heads * len(ids) ** 2 // 2 > MOST_NUMBERS:
        most = int((2 * MOST_NUMBERS / heads) ** 0.5)
        raise UsageError("text", f"has {len(ids)} tokens", f"give {most} at most to this model")

    def run() -> Explanation:
        with observe(model) as seen:
            text.forward_embeds(text.embed(torch.tensor([ids], device=text.device)))
        return _explained(text, tokenizer, ids, seen, seen.passes[-1])

    return run_inference(text.device, run)


def reference_sources() -> dict[str, str]:
    """Name of a function of `lolama_core.reference` → its lines."""
    # Its `main` imports the whole package, which would close a circle.
    reference = importlib.import_module("lolama_core.reference")
    functions = inspect.getmembers(reference, inspect.isfunction)
    own = (one for _, one in functions if one.__module__ == reference.__name__)
    return {one.__name__: inspect.getsource(one) for one in own}


def second_view(model: CausalLM) -> Llama:
    """Another decoder over the weights of ``model``: whatever watches or changes its parts leaves that alone.

    Raises:
        UsageError: for a model that is no `Llama` inside.
    """
    text = observed_model(model)
    tensors = (*text.parameters(), *text.buffers())
    return copy.deepcopy(text, {id(tensor): tensor for tensor in tensors})


def _explained(
    text: Llama, tokenizer: Tokenizer, ids: Sequence[int], seen: Observer, found: ObservedPass
) -> Explanation:
    config, first = text.config, found.layers[0]
    logits = seen.logits_after(found, -1)[0, -1]
    best = logits.topk(min(_LOGITS, len(logits)))
    chosen = [int(i) for i in best.indices]
    return Explanation(
        ids=tuple(ids),
        texts=[_text(tokenizer, token_id) for token_id in ids],
        angles=rounded(torch.atan2(first.sin[0], first.cos[0])),
        heads=config.num_heads,
        key_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        width=config.d_model,
        neurons=config.hidden_dim,
        vocabulary=config.vocab_size,
        cache_bytes=position_bytes(text.make_cache(1, 1)),
        layers=[
            _layer(text, tokenizer, seen, found, number) for number in range(config.num_layers)
        ],
        logits=list(zip(chosen, rounded(best.values), strict=True)),
        candidates=[_text(tokenizer, token_id) for token_id in chosen],
    )


def _layer(
    text: Llama, tokenizer: Tokenizer, seen: Observer, found: ObservedPass, number: int
) -> ExplainedLayer:
    layer = found.layers[number]
    before = found.layers[number - 1].after if number else found.embeds
    weights = layer.attention[0]  # (H, T, T)
    added = layer.after_attention - before, layer.after - layer.after_attention
    return ExplainedLayer(
        attention=[
            [rounded(row[: place + 1]) for place, row in enumerate(head)] for head in weights
        ],
        queries=rounded(unturned(layer.queries[0], layer)),
        keys=rounded(unturned(layer.keys[0], layer)),
        values=rounded(layer.values[0]),
        head_sizes=rounded(_head_sizes(text, layer, number)),
        attention_size=rounded(added[0][0].norm(dim=-1)),
        network_size=rounded(added[1][0].norm(dim=-1)),
        neurons=_neurons(layer),
        stream=rounded(layer.after[0].norm(dim=-1)),
        predictions=_predictions(tokenizer, seen.logits_after(found, number)[0]),
    )


def unturned(turned: Tensor, layer: ObservedLayer) -> Tensor:
    """Queries or keys (heads, T, hd) as they were before RoPE turned them."""
    first, second = turned.chunk(2, dim=-1)
    cos, sin = layer.cos[0], layer.sin[0]  # (T, hd / 2)
    scale = cos.square() + sin.square()  # yarn turns and stretches
    back = first * cos + second * sin, second * cos - first * sin
    return torch.cat(back, dim=-1) / torch.cat((scale, scale), dim=-1)


def _head_sizes(text: Llama, layer: ObservedLayer, number: int) -> Tensor:
    """(H, T): the length of what ``o_proj`` makes of each head alone, its bias aside."""
    project = blocks_of(text)[number].attention.o_proj
    heads = layer.heads[0].to(text.device)  # (T, H, hd)
    apart = torch.diag_embed(heads.transpose(1, 2))  # (T, hd, H, H)
    alone = apart.permute(0, 2, 3, 1)  # (T, H, H, hd), one head each
    nothing = project(alone.new_zeros(1, heads[0].numel()))
    added = project(alone.flatten(2)) - nothing  # (T, H, D)
    return cast("Tensor", added.float().norm(dim=-1).T.cpu())


def _neurons(layer: ObservedLayer) -> list[list[Neuron]]:
    if layer.neurons is None or layer.gate is None:
        return [[] for _ in range(layer.after.shape[1])]
    values, gates = layer.neurons[0], layer.gate[0]  # (T, F)
    found = []
    for row, gate in zip(values, gates, strict=True):
        chosen = row.abs().topk(min(_NEURONS, len(row))).indices.tolist()
        found.append([Neuron(n, round(float(gate[n]), 6), round(float(row[n]), 6)) for n in chosen])
    return found


def _predictions(tokenizer: Tokenizer, logits: Tensor) -> list[list[Candidate]]:
    """(T, V) logits → the best tokens of each position."""
    best = logits.softmax(-1).topk(min(_CANDIDATES, logits.shape[-1]))
    return [
        [Candidate(i, _text(tokenizer, i), round(p, 6)) for p, i in zip(row, of_row, strict=True)]
        for row, of_row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def _text(tokenizer: Tokenizer, token_id: int) -> str:
    """What a token spells; a space ahead of it stays."""
    return tokenizer.decode([token_id], skip_special_tokens=False)


def rounded(numbers: Tensor) -> Any:
    """Numbers as lists that are nested as deep as the tensor has dimensions, with six decimals."""
    if numbers.dim() == 1:
        return [round(number, 6) for number in numbers.tolist()]
    return [rounded(part) for part in numbers]
