"""A model in memory → a lolama checkpoint: after training, after quantizing, or made from a configuration.

`quantize` writes quantized models, keeps them and finds them again. `kept` lists and deletes those.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

import lolama_core
import lolama_quant
from lolama import wiring
from lolama.files import expanded
from lolama.language_model import LanguageModel
from lolama_core.protocols import CausalLM
from lolama_core.protocols.arguments import truth
from lolama_core.protocols.checks import kind_of
from lolama_core.protocols.errors import UsageError, exists_already
from lolama_core.protocols.look import functions_in_place
from lolama_core.protocols.quantizer import QuantizationScheme
from lolama_core.protocols.types import (
    FORMAT_NAME,
    FORMAT_VERSION,
    JSON,
    CanonicalConfig,
    GenerationBlock,
    GenerationDefaults,
    ModelFiles,
    TokenizerFiles,
)

if TYPE_CHECKING:
    from lolama_core import Tokenizer

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def save(
    model: LanguageModel | CausalLM | nn.Module,
    folder: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model to a folder that `load` loads again, with the same logits, bit for bit.

    The folder appears when it is whole: an interruption leaves nothing, or the checkpoint that was there.

    Args:
        model: A text model or one that sees, quantized or not; or what `load` returned.
        folder: Must not exist, unless ``overwrite``; its parent must.
        tokenizer: Goes with it, with its chat template. Without, a loaded model takes the one it was loaded
            with. A model of your own configuration may have none: it is given ids.
        overwrite: Replace the lolama checkpoint that is there. Nothing else is ever replaced.

    Raises:
        UsageError: for a folder that exists; for a model with parts or tensors that a checkpoint does not
            hold, naming the first; for weights that are not all of one dtype, float32, bfloat16 or float16.
        ModelError: if a weight is NaN or infinite, or the files of its tokenizer are gone.
        ResourceError: if the disk is full.

    Example:
        >>> model = lolama.load_model("demo")
        >>> quantize_model_int8(model)
        >>> lolama.save(model, "my-demo-int8")
        >>> print(lolama.load("my-demo-int8").chat("What is two plus three?"))
        Two plus three is five.
    """
    overwrite = truth("overwrite", overwrite)
    directory = expanded(folder, "folder")
    if folder == "":  # which would be the current folder
        raise UsageError("folder", "is empty", "give one")
    if os.path.lexists(directory) and not overwrite:
        raise exists_already(directory, "add overwrite=True")
    if isinstance(model, LanguageModel):
        tokenizer = model.tokenizer if tokenizer is None else tokenizer
        module = cast(nn.Module, model.model)
    else:
        module = cast(nn.Module, model)
        tokenizer = _own_tokenizer(module) if tokenizer is None else tokenizer
    family, block = _family_and_block(module)
    scheme = lolama_quant.scheme_of(module)
    config = _config(module, family, block, tokenizer, scheme)
    tensors = _tensors(module, _plain(config, scheme))
    lolama_core.write_checkpoint(
        directory,
        config,
        tensors.items(),
        tokenizer_json=None if tokenizer is None else tokenizer.tokenizer_json,
        chat_template=None if tokenizer is None else tokenizer.chat_template,
        replace=overwrite,
    )


def _own_tokenizer(module: nn.Module) -> Tokenizer | None:
    files: ModelFiles | None = getattr(module, wiring.LOADED_FROM, None)
    if files is None or files.tokenizer.tokenizer_json is None:
        return None
    return wiring.tokenizer_of(files)


def _config(
    module: nn.Module,
    family: str,
    block: dict[str, JSON],
    tokenizer: Tokenizer | None,
    scheme: QuantizationScheme | None,
) -> CanonicalConfig:
    dtype = cast(CausalLM, module).dtype
    if dtype not in _DTYPES:
        raise _refuse_dtype("model", dtype)
    config = CanonicalConfig(
        format=FORMAT_NAME,
        format_version=FORMAT_VERSION,
        family=family,
        model=block,
        dtype=str(dtype).removeprefix("torch."),
        generation=_generation(cast(CausalLM, module).generation_defaults, tokenizer),
        tokenizer={} if tokenizer is None else tokenizer.block,
    )
    if scheme is not None:
        declared = lolama_core.installed_quantizer(scheme.name).declared(module)
        config["quantization"] = lolama_core.quantization_block(scheme, declared)
    return config


def _family_and_block(module: nn.Module) -> tuple[str, dict[str, JSON]]:
    from lolama_vision import LLaVA

    if isinstance(module, lolama_core.Llama):
        return "llama", module.config.to_json()
    if isinstance(module, LLaVA) and isinstance(module.language_model, lolama_core.Llama):
        text = module.language_model.config.to_json()
        return "llava", {**module.config.to_json(), "text_config": text}
    reason = "is no model that a lolama checkpoint holds"
    raise UsageError(type(module).__name__, reason, "give the Llama or LLaVA inside it")


def _generation(defaults: GenerationDefaults, tokenizer: Tokenizer | None) -> GenerationBlock:
    eos_ids = defaults.eos_ids | (frozenset() if tokenizer is None else tokenizer.eos_ids)
    block = GenerationBlock(eos_ids=sorted(eos_ids), sampling=dict(defaults.sampling))
    if defaults.vocab_size is not None:
        block["vocab_size"] = defaults.vocab_size
    if defaults.unsupported:
        block["unsupported"] = list(defaults.unsupported)
    return block


def _plain(config: CanonicalConfig, scheme: QuantizationScheme | None) -> nn.Module:
    """The model that loading would build, without weights."""
    files = ModelFiles(name="model", config=config, tensors={}, tokenizer=TokenizerFiles())
    module = lolama_core.build_module(files, lolama_core.installed_families())
    if scheme is not None:
        lolama_core.installed_quantizer(scheme.name).prepare_(module, scheme)
    return module


def _tensors(module: nn.Module, plain: nn.Module) -> dict[str, Tensor]:
    """Canonical name → tensor, each once, as soon as ``module`` is what loading would make of them.

    Raises:
        UsageError: naming the first part or tensor that it would not be.
    """
    _check_parts(module, plain)
    held, expected = module.state_dict(keep_vars=True), plain.state_dict(keep_vars=True)
    for name in sorted(held.keys() ^ expected.keys()):
        reason = "is no tensor of this kind of model" if name in held else "is missing"
        raise UsageError(name, reason, "a checkpoint holds what loading would make, and no more")
    same: dict[int, list[str]] = defaultdict(list)
    for name, tensor in expected.items():
        same[id(tensor)].append(name)
    tensors = {}
    for first, *others in same.values():
        tensors[first] = held[first]
        _check_tensor(first, held[first], expected[first], cast(CausalLM, module).dtype)
        for other in others:
            if held[other] is not held[first] and not torch.equal(held[other], held[first]):
                reason = f"differs from {first}, to which the configuration ties it"
                raise UsageError(other, reason, "untie them in the model's config")
    return tensors


_COMPILED = "_compiled_call_impl"
"""What it runs as is no part of a model."""


def _check_parts(module: nn.Module, plain: nn.Module) -> None:
    parts = dict(module.named_modules(remove_duplicate=False))
    expected = dict(plain.named_modules(remove_duplicate=False))
    for name in {**expected, **parts}:
        found, wanted = parts.get(name), expected.get(name)
        if _kind(found) is not _kind(wanted):
            what = "is missing" if found is None else f"is {kind_of(found)}"
        elif found is not None and (own := set(functions_in_place(found)) - {_COMPILED}):
            what = f"has a {min(own)} of its own"
        else:
            continue
        usual = "nothing" if wanted is None else f"a plain {type(wanted).__name__}"
        reason = f"{what}, where this kind of model has {usual}"
        raise UsageError(name or "model", reason, "keep its weights with torch.save")


def _kind(module: nn.Module | None) -> type[nn.Module | None]:
    """What loading would make of a part. It puts one linear layer in the place of torch's and of vision's."""
    kind = type(module)
    package = kind.__module__.partition(".")[0]
    ours = package in ("torch", "lolama_core", "lolama_vision") and kind.__name__ == "Linear"
    return nn.Linear if ours and issubclass(kind, nn.Linear) else kind


def _check_tensor(name: str, tensor: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Refuse a tensor that a checkpoint cannot hold; ``dtype`` is that of the model's embedding."""
    if tensor.shape != expected.shape:
        reason = (
            f"has shape {tuple(tensor.shape)}; the model's config asks for {tuple(expected.shape)}"
        )
        raise UsageError(name, reason, "change the config with it")
    if tensor.is_meta:
        raise UsageError(name, "is on the meta device and has no values", "load or make weights")
    if tensor.dtype == expected.dtype != torch.float32:
        return  # of quantized weights, whose dtypes are fixed
    if tensor.dtype not in _DTYPES:
        raise _refuse_dtype(name, tensor.dtype)
    # Vectors (norms, biases, scales) have the precision of activations, others that of the embedding.
    if tensor.dim() > 1 and tensor.dtype != dtype:
        reason = f"is {_name(tensor.dtype)}, where the model's embedding is {_name(dtype)}"
        raise UsageError(name, reason, f"convert the model: model.to(torch.{_name(dtype)})")


def _refuse_dtype(name: str, dtype: torch.dtype) -> UsageError:
    allowed = ", ".join(map(_name, _DTYPES))
    reason = f"is {_name(dtype)}; the weights of a checkpoint are one of {allowed}"
    return UsageError(name, reason, "convert the model: model.to(torch.float32)")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
