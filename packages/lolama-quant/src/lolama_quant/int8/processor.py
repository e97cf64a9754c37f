"""Which of torch's own products with int8 weights are fast on this processor."""

from __future__ import annotations

import torch


def multiplies_integers() -> bool:
    """Whether torch's integer product is the fast one here: on x86 with AVX-512 and VNNI.

    Without them it runs a plain loop, 4 to 20 times slower than a float32 product.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and bool(
        torch.cpu._is_vnni_supported()
    )


def widens_in_registers() -> bool:
    """Whether torch has vector code for products of bfloat16 with int8 on this processor."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
