"""The texts of Metal kernels as they are compiled, and compiled once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lolama_core.protocols.grouped import FORMATS
from lolama_quant.metal import grouped_linear, shader


@pytest.mark.parametrize("kernel", ["int8_linear", "grouped_linear"])
def test_kernels_ship_with_the_package(kernel: str) -> None:
    text = shader.source(kernel, torch.bfloat16, GROUP=32)
    assert f"kernel void {kernel}(" in text
    # Metal's own names come first: none of ours may change them.
    assert text.startswith(
        "#include <metal_stdlib>\nusing namespace metal;\n#define SCALAR bfloat\n"
    )
    assert "\n#define GROUP 32\n" in text and "\n#define ROWS 8\n" in text


def test_a_text_is_compiled_once_for_a_dtype_and_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def compile_shader(text: str) -> SimpleNamespace:
        texts.append(text)
        return SimpleNamespace(grouped_linear=lambda *_, **__: None)

    monkeypatch.setattr(torch.mps, "compile_shader", compile_shader)
    shader.library.cache_clear()
    for dtype in (torch.float16, torch.bfloat16) * 2:
        for form, kind in FORMATS.items():
            stored = kind.tensors(4, 64)
            weight, scale = (torch.zeros(stored[name][1]) for name in ("weight", "block_scale"))
            y = grouped_linear.grouped_rows(torch.ones(3, 64).to(dtype), weight, None, scale, form)
            assert y.shape == (3, 4) and y.dtype == dtype
    shader.library.cache_clear()
    assert len(texts) == len(set(texts)) == 2 * len(FORMATS)
