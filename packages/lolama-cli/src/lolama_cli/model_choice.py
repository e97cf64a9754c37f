"""From the options that name a model to the model, and what ``-v`` tells about it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lolama_cli.ahead import load_libraries_ahead, read_ahead
from lolama_cli.console import note
from lolama_cli.progress_line import progress_line
from lolama_cli.transfer_bars import transfer_bars
from lolama_core.protocols.errors import UsageError
from lolama_core.protocols.notices import unsupported

if TYPE_CHECKING:
    from lolama_core.protocols import CausalLM, Tokenizer
    from lolama_core.protocols.types import ModelFiles


@dataclass(kw_only=True)
class ModelChoice:
    """A model as the options describe it: first its small files, then its weights.

    Attributes:
        name: What the user called it.
        quantize, device, dtype, cache_dtype, yes: The options of these names.
        template: Source of a chat template in the place of its own.
        no_think: Have its chat template turn thinking off.
        needs_switch: Refuse a model whose template has no switch for ``no_think``.
        load_seconds: How long `load` took.
    """

    name: str
    quantize: int = 0
    device: str = "auto"
    dtype: str = "auto"
    cache_dtype: Literal["auto", "int8"] = "auto"
    yes: bool = False
    template: str | None = None
    no_think: bool = False
    needs_switch: bool = True
    load_seconds: float = 0.0

    def open(self) -> tuple[ModelFiles, Tokenizer]:
        """Its files, downloaded if need be, and its tokenizer. No weight is read.

        What can be refused is refused here, without torch: it takes seconds to import.

        Raises:
            UsageError: also if ``needs_switch`` and the chat template has no switch for ``no_think``.
        """
        from lolama import names, wiring
        from lolama.devices import check_device

        check_device(self.device)
        with transfer_bars() as bars:
            files = names.resolve(self.name, confirm=self.yes or None, progress=bars)
        wiring.check(files)
        # Not before: a refusal so far has read nothing of torch. Reading the tokenizer takes the longest.
        load_libraries_ahead()
        asked = files if self.template is None else names.with_chat_template(files, self.template)
        tokenizer = wiring.tokenizer_of(asked)
        return files, self._without_thinking(tokenizer) if self.no_think else tokenizer

    def _without_thinking(self, tokenizer: Tokenizer) -> Tokenizer:
        from lolama.thinking import thinks, with_thinking

        try:
            return with_thinking(tokenizer, False)
        except UsageError:
            if self.needs_switch:
                raise
        if thinks(tokenizer):
            note(f"note: {self.name} thinks, and its chat template has no switch to turn that off")
        return tokenizer

    def load(self, files: ModelFiles, *, verbose: bool = False, is_draft: bool = False) -> CausalLM:
        """The model, on its device.

        Args:
            files: Its files.
            verbose: Tell about it.
            is_draft: Leave the number of threads to the model that it guesses for.
        """
        from lolama import wiring

        if self.quantize:
            with progress_line("quantizing") as steps:
                files = wiring.quantized(files, self.quantize, tell=note, steps=steps)
        else:
            read_ahead(files)
        wiring.import_torch()
        started = time.perf_counter()
        model = wiring.load_files(files, device=self.device, dtype=self.dtype)
        if not is_draft:
            wiring.suit_threads(model)
        self.load_seconds = time.perf_counter() - started
        if verbose:
            tell_loaded(files, model, self.load_seconds)
            if self.stored is not None:
                note(f"keys and values: {self.stored}")
        return model

    @property
    def stored(self) -> Literal["int8"] | None:
        """What keys and values are stored in; None for the dtype of the model."""
        return None if self.cache_dtype == "auto" else self.cache_dtype


def tell_unsupported(files: ModelFiles) -> None:
    """Name the settings of generation that the model's authors ask for in vain, on standard error."""
    if notice := unsupported(files):
        note(f"note: {notice}")


def tell_loaded(files: ModelFiles, model: CausalLM, seconds: float) -> None:
    """Write about it to standard error, line by line. ``seconds``: how long loading took."""
    from lolama import doctor, names

    shape = names.text_shape(files)
    stored, used = files.config["dtype"], str(model.dtype).removeprefix("torch.")
    note(
        f"{files.name}: {files.family}, {shape.get('num_layers')} layers of width "
        f"{shape.get('d_model')}, context {model.max_seq_len:,}, {len(files.tensors)} tensors"
    )
    for path in sorted({location.path for location in files.tensors.values()}):
        note(f"read {path} ({path.stat().st_size / 1e6:,.1f} MB)")
    converted = "" if stored == used else f" (stored as {stored})"
    note(f"loaded in {seconds:.2f} s: {used}{converted} on {model.device}")
    note(_products_line(model))
    note(f"decoding: {doctor.decoding(model)}")


def weights_in_words(facts: Mapping[str, object]) -> str:
    """What weights are, of the facts ``quantization`` and ``dtype``, such as ``int4 and bfloat16``."""
    dtype, quantization = facts["dtype"], facts["quantization"]
    return f"{quantization} and {dtype}" if quantization else f"{dtype}"


def _products_line(model: CausalLM) -> str:
    """Which linear kernel computes how many of the model's linears, and why an installed one does not."""
    from lolama import doctor

    products = doctor.products(model)
    used, unused = [], []
    for product in products:
        what = f"{product.name} ({product.description})" if product.description else product.name
        if product.linears:
            plural = "s" if product.linears > 1 else ""
            used.append(f"{what} for {product.linears:,} linear{plural}")
        else:
            unused.append(what)
    line = f"matrix multiplications: {', '.join(used)}"
    if unused:
        line += f"; not in use: {', '.join(unused)}"
    elif [product.name for product in products] == ["torch"]:
        line += "; no linear kernel is installed (pip install lolama-quant)"
    return line
