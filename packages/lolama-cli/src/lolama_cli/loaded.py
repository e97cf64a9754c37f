"""What ``-v`` tells about a model that was loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lolama_cli.console import note

if TYPE_CHECKING:
    from lolama_core.protocols import CausalLM
    from lolama_core.protocols.types import ModelFiles


def tell_loaded(files: ModelFiles, model: CausalLM, seconds: float) -> None:
    """Write it to standard error, line by line. ``seconds``: how long loading took."""
    from lolama import report, wiring

    shape = wiring.text_shape(files)
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
    note(f"decoding: {report.decoding(model)}")


def _products_line(model: CausalLM) -> str:
    """Which linear kernel computes how many of the model's linears, and why an installed one does not."""
    from lolama import report

    products = report.products(model)
    used, unused = [], []
    for product in products:
        what = f"{product.name} ({product.description})" if product.description else product.name
        if product.linears:
            plural = "s" if product.linears > 1 else ""
            used.append(f"{what} for {product.linears:,} linear{plural}")
        else:
            unused.append(what)
    line = f"products: {', '.join(used)}"
    if unused:
        line += f"; not in use: {', '.join(unused)}"
    elif [product.name for product in products] == ["torch"]:
        line += "; no linear kernel is installed (pip install lolama-quant)"
    return line
