"""Modules of lolama_quant by the names that they had in 0.1."""

from __future__ import annotations

import importlib
import sys

import pytest

MOVED = {
    "absmax": "int8.absmax",
    "backends": "int8.backends",
    "backends.cpu": "int8.backends.cpu",
    "backends.cuda": "int8.backends.cuda",
    "backends.metal": "metal.int8_linear",
    "backends.reference": "int8.backends.reference",
    "convert": "int8.convert",
    "decoder_kernel": "cpu.decoder",
    "int8_kernel": "cpu.int8_linear",
    "int8_linear": "int8.linear",
    "int8_products": "int8.description",
    "native_library": "cpu.library",
    "native_linear": "cpu.linear",
    "outliers": "int8.outliers",
    "quantizer": "int8.quantizer",
    "rounded_activations": "int8.rounded_activations",
    "triton_compiler": "triton.compiler",
    "triton_decoder_kernel": "triton.decoder_kernel",
    "triton_kernels": "triton.kernels",
}


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_is_the_same_module_and_warns(old: str, new: str) -> None:
    home = importlib.import_module(f"lolama_quant.{new}")
    sys.modules.pop(f"lolama_quant.{old}", None)
    with pytest.warns(
        DeprecationWarning, match=f"lolama_quant.{old} has moved: import lolama_quant.{new}; "
    ):
        assert importlib.import_module(f"lolama_quant.{old}") is home


@pytest.mark.parametrize("name", ["decoding", "overlap", "products"])
def test_old_names_of_triton_kernels(name: str) -> None:
    pytest.importorskip("triton")
    home = importlib.import_module(f"lolama_quant.triton.kernels.{name}")
    sys.modules.pop(f"lolama_quant.triton_kernels.{name}", None)
    with pytest.warns(DeprecationWarning, match=f"triton_kernels.{name} has moved"):
        assert importlib.import_module(f"lolama_quant.triton_kernels.{name}") is home
