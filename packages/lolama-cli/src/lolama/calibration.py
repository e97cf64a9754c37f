"""A model's blocks in four bits, fitted to text that the model writes itself, or to one of the user's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import lolama_core
import lolama_quant
from lolama.steps import Steps, named
from lolama.unfinished import Unfinished
from lolama_core.protocols.errors import LolamaError, ResourceError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lolama_core.protocols import CausalLM, Tokenizer
    from lolama_core.protocols.causal_module import CausalLMModule
    from lolama_core.protocols.types import ModelFiles
    from lolama_quant import Sensitivity

TOKENS = 8192
"""How much text: more gains little, and a linear of 5,632 inputs needs as many tokens."""

_LENGTH = 512
_ROWS = 16
_MOST_TEXTS = 256

_IDS, _IMPORTANCE, _OUTPUTS = "ids.", "importance.", "outputs."
"""What the names of the text's tensors begin with; behind it comes a number, or the name of a linear."""


def calibrated_blocks(
    files: ModelFiles,
    linears: Collection[str],
    text: str | None,
    made: Unfinished,
    *,
    write_int8: Callable[[Path], None],
    tell: Callable[[str], None] | None,
    steps: Steps | None,
) -> Iterator[tuple[str, Tensor]]:
    """Canonical name → tensor in four bits, of the linears inside the blocks of a language model.

    Memory holds one block. Before that all of the model runs, to write and to read the text: in eight bits,
    mapped from a file, so that the system can take its memory back.

    Args:
        files: The model, not quantized.
        linears: Names of the linears that get four bits.
        text: One that is typical of what the model will read; None: the model writes one itself.
        made: What an earlier run made of it; text and blocks are added.
        write_int8: Writes the model in eight bits to a directory.
        tell: Receives a line, if some linears have more inputs than the text has tokens.
        steps: Is told how many tensors of the model in eight bits are written, how many tokens of the text
            are written and read, and how many linears are done; see `quantize_blocks`.

    Raises:
        UsageError: for a text that is too short.
        ResourceError: if the disk is full, or somebody removes what is made.
    """
    model = lolama_core.build_unloaded(files, lolama_core.installed_families())
    texts, sensitive = _read_text(files, model, linears, text, made, write_int8, steps)
    wide, tokens = _count_wide(model, linears, texts)
    if wide and tell is not None:
        tell(
            f"the text has {tokens:,} tokens: {wide:,} of {len(linears):,} linears have more inputs, "
            "and are rounded without it"
        )
    read = [one.tolist() for one in (*texts, *sensitive.importance)]
    digest = hashlib.sha256(str(read).encode()).hexdigest()
    [layers] = [name for name, part in model.named_modules() if part is model.layers]
    embedding = layers.removesuffix("layers") + "embed_tokens"
    weights = lolama_core.read_part(model, embedding, files)
    model.get_submodule(embedding).load_state_dict(weights, assign=True)
    blocks = lolama_quant.quantize_blocks(
        model,
        texts,
        linears,
        sensitive=sensitive,
        read=partial(lolama_core.read_part, model, files=files),
        finished=partial(made.read, depends=digest),
        steps=steps or _silent,
    )
    for block in blocks:
        made.write(block.name, block.tensors, depends=digest)
    for place in range(len(model.layers)):
        part = made.read(f"{layers}.{place}", digest)
        if part is None:
            reason = "was changed or removed while the model was made of it"
            raise ResourceError(str(made.path(f"{layers}.{place}")), reason, "begin again")
        yield from part.items()


def linears_inside_blocks(module: nn.Module) -> set[str]:
    """Names of the linears inside the blocks of a language model that the quantizer ``int4`` gives four bits.

    Args:
        module: A model, perhaps one that sees, with the layout of four bits; see `Quantizer.prepare_`.
    """
    model = cast("CausalLMModule", module)
    [prefix] = [name for name, part in module.named_modules() if part is model.layers]
    declared = lolama_core.installed_quantizer("int4").declared(module)
    names = {
        name.removesuffix(".group_scale") for name in declared if name.endswith(".group_scale")
    }
    return {name for name in names if name.startswith(f"{prefix}.")}


def _count_wide(
    model: CausalLM, linears: Collection[str], texts: Iterable[Tensor]
) -> tuple[int, int]:
    """How many linears have more inputs than all texts have tokens, and how many tokens these are."""
    tokens = sum(ids.numel() for ids in texts)
    parts = dict(cast("nn.Module", model).named_modules())
    return sum(cast("nn.Linear", parts[name]).in_features > tokens for name in linears), tokens


def _read_text(
    files: ModelFiles,
    model: CausalLM,
    linears: Collection[str],
    text: str | None,
    made: Unfinished,
    write_int8: Callable[[Path], None],
    steps: Steps | None,
) -> tuple[list[Tensor], Sensitivity]:
    """What blocks are fitted to, as ids (1, T) each, and how much errors count there."""
    has_none = text is None and files.tokenizer.tokenizer_json is None  # nor is one needed
    tokenizer = None if has_none else lolama_core.load_tokenizer(files)
    given = None if text is None or tokenizer is None else text_of(model, tokenizer, text)
    known = made.read("text")
    if known is not None:
        return _from_tensors(known)
    write_int8(made.path("int8"))
    files = lolama_core.open_checkpoint(made.path("int8"), immutable=True)
    int8 = lolama_core.load_model(files, lolama_core.installed_families(), device="cpu")
    texts = given or own_text(int8, tokenizer, named(steps, "writing a text") or _silent)
    runner = lolama_core.runner_of(int8)
    with runner.products if isinstance(runner, lolama_core.Runner) else nullcontext():
        told = named(steps, "reading it") or _silent
        sensitive = lolama_quant.sensitivity(int8, texts, linears, told)
    made.write("text", _as_tensors(texts, sensitive))
    made.remove("int8")
    return texts, sensitive


def _as_tensors(texts: Iterable[Tensor], sensitive: Sensitivity) -> dict[str, Tensor]:
    """Both by the names that they have on the disk."""
    found = {f"{_IDS}{place}": ids for place, ids in enumerate(texts)}
    found |= {f"{_IMPORTANCE}{place}": one for place, one in enumerate(sensitive.importance)}
    if sensitive.outputs is not None:
        found[f"{_OUTPUTS}{sensitive.last}"] = sensitive.outputs
    return found


def _from_tensors(known: Mapping[str, Tensor]) -> tuple[list[Tensor], Sensitivity]:
    """`_as_tensors` undone."""
    count = sum(name.startswith(_IDS) for name in known)
    ids, importance = (
        [known[f"{kind}{place}"] for place in range(count)] for kind in (_IDS, _IMPORTANCE)
    )
    last = next((name for name in known if name.startswith(_OUTPUTS)), None)
    return ids, lolama_quant.Sensitivity(
        importance=tuple(importance),
        last=None if last is None else last.removeprefix(_OUTPUTS),
        outputs=None if last is None else known[last],
    )


def _silent(done: int, count: int) -> None:
    pass


def own_text(model: CausalLM, tokenizer: Tokenizer | None, steps: Steps) -> list[Tensor]:
    """Texts that the model writes at temperature 1, (1, T) each, of about `TOKENS` together.

    Each begins with the token that texts begin with, or where there is none with another one.
    """
    import torch

    limit = min(_LENGTH, model.max_seq_len) - 1
    bos = None if tokenizer is None else tokenizer.bos_id
    found: list[Tensor] = []
    written, batch = 0, lolama_core.BatchGenerator(model)
    steps(0, TOKENS)
    # A model whose texts are very short would write for ever.
    while written < TOKENS and len(found) < _MOST_TEXTS:
        begins: dict[int, int] = {}
        for seed in range(len(found), len(found) + _ROWS):
            begin = (seed * 7919 + 1) % model.vocab_size if bos is None else bos
            ticket = batch.submit(
                [begin], max_new_tokens=limit, temperature=1.0, top_p=1.0, top_k=0, seed=seed
            )
            begins[ticket] = begin
        so_far = written
        while batch.busy:
            so_far += sum(map(len, batch.step().values()))
            steps(min(so_far, TOKENS), TOKENS)
        results = batch.collect()
        for ticket, begin in begins.items():  # whichever ended first: that depends on the time
            result = results[ticket]
            if isinstance(result, LolamaError):
                raise result
            found.append(torch.tensor([[begin, *result.ids]]))
            written += found[-1].shape[1]
    return found


def text_of(model: CausalLM, tokenizer: Tokenizer, text: str) -> list[Tensor]:
    """The beginning of a text as ids, (1, T) each, of `TOKENS` together at most.

    Raises:
        UsageError: if it is too short.
    """
    import torch

    ids = tokenizer.encode_ids(text, split_special_tokens=True)[:TOKENS]
    length = min(_LENGTH, model.max_seq_len)
    if len(ids) < length:
        reason = (
            f"has too few tokens: {len(ids):,}, where {length:,} are the least to calibrate with"
        )
        raise UsageError("calibration text", reason, "give a longer one, or none")
    return [torch.tensor([list(ids[i : i + length])]) for i in range(0, len(ids), length)]
