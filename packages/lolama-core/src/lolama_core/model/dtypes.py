"""Which precision suits a device, by the names of dtypes: no torch is needed to tell."""

from __future__ import annotations


def suited_dtype(stored: str, device_type: str, *, native_bfloat16: bool) -> str:
    """The best dtype for weights that are stored as ``stored``.

    On a CPU weights stay as they are stored. A GPU gets sixteen bits: bfloat16 where it is native.

    Args:
        stored: ``float32``, ``bfloat16`` or ``float16``.
        device_type: ``cpu``, ``cuda`` or ``mps``.
        native_bfloat16: Whether that device computes in bfloat16 without emulating it. Only an NVIDIA GPU is
            asked: Apple's emulate it at little cost.

    Example:
        >>> suited_dtype("float32", "cuda", native_bfloat16=True)
        'bfloat16'
    """
    if device_type == "cpu":
        return stored
    if device_type == "cuda" and not native_bfloat16:
        return "float16"
    return "bfloat16" if stored == "float32" else stored
