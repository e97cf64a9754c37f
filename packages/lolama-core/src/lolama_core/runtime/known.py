"""Which blocks are exactly what the fast ways know, and why the others are not."""

from __future__ import annotations

from typing import cast

from torch import nn

from lolama_core.model.attention import Attention
from lolama_core.model.block import Block
from lolama_core.model.experts import Experts, Router
from lolama_core.model.feed_forward import FeedForward
from lolama_core.model.linear import Linear, OutputProjection
from lolama_core.model.llama import Llama
from lolama_core.model.norm import RMSNorm
from lolama_core.model.rope import RotaryEmbedding
from lolama_core.model.rope_scaling import dynamic_beyond
from lolama_core.protocols import CausalLM
from lolama_core.protocols.checks import kind_of, with_article
from lolama_core.protocols.decoder_kernel import HasLinearWeights
from lolama_core.protocols.look import global_hooks, has_own_functions, is_as_written
from lolama_core.protocols.model import HasTextModel

_CHILDREN: dict[type[nn.Module], frozenset[str]] = {
    Block: frozenset({"attention", "attention_norm", "feed_forward", "ffn_norm"}),
    Attention: frozenset({"q_proj", "k_proj", "v_proj", "o_proj"}),
    FeedForward: frozenset({"w_gate", "w_up", "w_down"}),
    Experts: frozenset({"router", "experts"}),
    Router: frozenset(),
    RMSNorm: frozenset(),
    Linear: frozenset(),
    OutputProjection: frozenset(),
    RotaryEmbedding: frozenset(),
    nn.Identity: frozenset(),
}
_OPTIONAL: dict[type[nn.Module], frozenset[str]] = {
    Block: frozenset({"attention_post_norm", "ffn_post_norm"}),
    Attention: frozenset({"q_norm", "k_norm"}),
    Experts: frozenset({"shared_expert", "shared_gate"}),
}
"""What blocks of some families have. A block that has one of a pair has both."""
_NUMBERS: dict[type[nn.Module], frozenset[str]] = {
    Block: frozenset({"residual_scale"}),
    Attention: frozenset(
        {
            "layer",
            "kind",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "scale",
            "softcap",
            "growth",
            "growth_length",
        }
    ),
    FeedForward: frozenset({"activation"}),
    Experts: frozenset({"per_token", "normalize"}),
    Router: frozenset(),
    RMSNorm: frozenset({"eps"}),
    Linear: frozenset({"in_features", "out_features"}),
    OutputProjection: frozenset({"in_features", "out_features"}),
    RotaryEmbedding: frozenset({"head_dim", "rotary_dim", "base", "scaling", "attention_factor"}),
    nn.Identity: frozenset(),
}
"""What kernels read beside modules and parameters. Whatever else is set, and not None, they do not know."""
_PARAMETERS: dict[type[nn.Module], frozenset[str]] = {
    RMSNorm: frozenset({"weight"}),
    Router: frozenset({"weight"}),
    Linear: frozenset({"weight", "bias"}),
    OutputProjection: frozenset({"weight", "bias"}),
    RotaryEmbedding: frozenset({"inv_freq"}),
}


OF_ATTENTION, OF_NETWORK = sorted(_CHILDREN[Attention]), sorted(_CHILDREN[FeedForward])
"""The linears of attention, and those of a feed-forward network."""

_OWN_OF_TORCH = vars(nn.Module()).keys()


class UnknownPart(Exception):
    """Why a block runs as it is written."""


def text_model(model: CausalLM) -> Llama | None:
    """The `Llama` that ``model`` is, or that alone reads what it embeds; None if it is, or has, none."""
    while isinstance(model, HasTextModel):
        inner = model.text_model()
        if inner is None:
            return None
        model = inner
    if type(model) is not Llama or not has_own_functions(Llama):
        return None
    return model if not vars(model).keys() & vars(Llama).keys() - {"__dict__"} else None


def check_block(block: nn.Module) -> Block:
    """``block``, if it and all parts of it compute what their names say, position by position.

    Raises:
        UnknownPart: if not.
    """
    if global_hooks():
        raise UnknownPart("a hook watches all modules")
    check(block, Block, "it")
    assert isinstance(block, Block)
    check(block.attention, Attention, "attention")
    for name, norm in norms_of(block).items():
        if norm is not None:
            check(norm, RMSNorm, name)
    for name, linear in _linears(block).items():
        if not isinstance(linear, HasLinearWeights):
            check(linear, Linear, name)
        elif not is_as_written(linear) or not has_own_functions(type(linear)):
            raise UnknownPart(f"{name} has a hook or a function of its own")
    return block


def is_plain_head(head: nn.Module) -> bool:
    """Whether calling ``lm_head`` is a product with its weight and nothing else."""
    try:
        check(head, OutputProjection, "lm_head")
    except UnknownPart:
        return False
    return not global_hooks()


def is_plain_rope(rope: nn.Module) -> bool:
    """Whether the angles of a position depend on nothing but the position."""
    try:
        check(rope, RotaryEmbedding, "rope")
    except UnknownPart:
        return False
    assert isinstance(rope, RotaryEmbedding)
    return dynamic_beyond(rope.scaling) is None and not global_hooks()


def norms_of(block: Block) -> dict[str, nn.Module | None]:
    """Each norm by its name; None for one that the block does not have."""
    norms: dict[str, nn.Module | None] = {
        "attention_norm": block.attention_norm,
        "ffn_norm": block.ffn_norm,
        "q_norm": block.attention.q_norm,
        "k_norm": block.attention.k_norm,
        "attention_post_norm": block.attention_post_norm,
        "ffn_post_norm": block.ffn_post_norm,
    }
    pairs = sorted(_OPTIONAL[Block]), sorted(_OPTIONAL[Attention])
    for one, other in (("attention_norm", "ffn_norm"), *pairs):
        if type(norms[one]) is not type(norms[other]):
            raise UnknownPart(f"it has one of {one} and {other}")
    if type(block.attention_norm) is nn.Identity and block.attention_post_norm is not None:
        for name in ("attention_norm", "ffn_norm"):
            check(block.get_submodule(name), nn.Identity, name)
            norms[name] = None
    return norms


def networks_of(block: Block) -> dict[str, FeedForward]:
    """Each feed-forward network by its name: one, or the experts.

    Raises:
        UnknownPart: if one of them is of another kind.
    """
    whole = block.feed_forward
    if not isinstance(whole, Experts):
        check(whole, FeedForward, "feed_forward")
        assert isinstance(whole, FeedForward)
        return {"feed_forward": whole}
    check(whole, Experts, "feed_forward")
    check(whole.router, Router, "router")
    if type(whole.experts) is not nn.ModuleList or not is_as_written(whole.experts):
        raise UnknownPart("its experts are not what a mixture has")
    if (whole.shared_expert is None) is not (whole.shared_gate is None):
        raise UnknownPart("it has one of shared_expert and shared_gate")
    networks: dict[str, nn.Module] = {
        f"expert {place}": expert for place, expert in enumerate(whole.experts)
    }
    if whole.shared_expert is not None and whole.shared_gate is not None:
        check(whole.shared_gate, Router, "shared_gate")
        networks["shared_expert"] = whole.shared_expert
    for name, network in networks.items():
        check(network, FeedForward, name)
    return cast(dict[str, FeedForward], networks)


def name_in(network: str, part: str) -> str:
    """How messages call a linear of a network."""
    return part if network == "feed_forward" else f"{part} of {network}"


def _linears(block: Block) -> dict[str, nn.Module]:
    """Each linear by its name."""
    of_attention = {name: getattr(block.attention, name) for name in OF_ATTENTION}
    of_networks = {
        name_in(name, part): getattr(network, part)
        for name, network in networks_of(block).items()
        for part in OF_NETWORK
    }
    return of_attention | of_networks


def check(module: nn.Module, kind: type[nn.Module], name: str) -> None:
    """Raises: UnknownPart: if ``module`` is not a plain ``kind``, with nothing in it but what that has."""
    if type(module) is not kind:
        raise UnknownPart(f"{name} is {kind_of(module)}, not {with_article(kind.__name__)}")
    if not is_as_written(module) or not has_own_functions(kind):
        raise UnknownPart(f"{name} has a hook or a function of its own")
    children, parameters = _CHILDREN[kind], _PARAMETERS.get(kind, frozenset())
    found: dict[str, object] = {**module._modules, **module._parameters, **module._buffers}
    strange = set(found) - children - parameters - _OPTIONAL.get(kind, frozenset())
    if strange:
        raise UnknownPart(f"{name} has {min(strange)}, which no kernel knows")
    for number, value in vars(module).items():
        if value is not None and number not in _NUMBERS[kind] and number not in _OWN_OF_TORCH:
            raise UnknownPart(f"{name} has {number}, which no kernel knows")
    missing = {part for part in children if not isinstance(found.get(part), nn.Module)}
    if missing:
        raise UnknownPart(f"{name} has no {min(missing)}")
