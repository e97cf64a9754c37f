"""Products with int8 weights, one module for each kind of device.

Every backend has a function ``linear(x, weight, scale)``, for x (M, K) of any floating-point dtype, weight
(N, K) int8 and scale (N,) float32 → (M, N), float32 or the dtype of ``x``. Any M is right, 0 included.
`int8.description` says in words which path it takes here.
"""

from __future__ import annotations

from types import ModuleType

from lolama_quant.int8.backends import cpu, cuda, reference
from lolama_quant.metal import int8_linear as metal

BACKENDS: dict[str, ModuleType] = {"cpu": cpu, "cuda": cuda, "mps": metal}
"""Device type → module. Other devices take `reference`, which is right everywhere."""


def backend_of(device_type: str) -> ModuleType:
    """The backend for tensors on a device of this type."""
    return BACKENDS.get(device_type, reference)
