"""The library of ``native/``: found, loaded and described.

No Python lies there: Python would take a library inside a package for a module of its own.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lolama_core.protocols.grouped import FORMATS, GroupFormat

if TYPE_CHECKING:
    import torch

LIBRARY = (
    Path(__file__).parents[1]
    / "native"
    / ("lolama.dylib" if sys.platform == "darwin" else "lolama.so")
)
INTERFACE = 8
"""What ``lolama_interface`` of native/linear.c has to say."""

INSTRUCTION_SETS = ("portable", "AVX2", "AVX-512", "NEON")
INT8_INSTRUCTION_SETS = ("portable", "AVX2", "AVX-512 VNNI", "NEON", "NEON dot product")

ANY_ROWS = 1 << 62
"""More rows than there are."""


@dataclass(frozen=True)
class NativeLibrary:
    """The loaded library.

    Attributes:
        function: ``lolama_linear`` of native/linear.c.
        tiled: ``lolama_tiled_linear``; None if this processor does not multiply bfloat16.
        has_panels: Whether its products of many rows are faster here than torch's: native/panels.h.
        int8, int8_scratch: ``lolama_int8_linear`` and ``lolama_int8_scratch``.
        grouped, grouped_scratch: ``lolama_grouped_linear`` and ``lolama_grouped_scratch``.
        decode, decode_scratch, decodes_prompts: ``lolama_decode``, ``lolama_decode_scratch`` and
            ``lolama_decodes_prompts`` of native/decoder.c.
        instruction_set: Index into `INSTRUCTION_SETS` of the best one this processor has.
        int8_instruction_set: The same for int8 weights, into `INT8_INSTRUCTION_SETS`.
    """

    function: ctypes._NamedFuncPointer
    tiled: ctypes._NamedFuncPointer | None
    has_panels: bool
    int8: ctypes._NamedFuncPointer
    int8_scratch: ctypes._NamedFuncPointer
    grouped: ctypes._NamedFuncPointer
    grouped_scratch: ctypes._NamedFuncPointer
    decode: ctypes._NamedFuncPointer
    decode_scratch: ctypes._NamedFuncPointer
    decodes_prompts: ctypes._NamedFuncPointer
    instruction_set: int
    int8_instruction_set: int

    @property
    def multiplies_bytes(self) -> bool:
        """Whether the processor does, so that int8 products of many rows are fast."""
        return INT8_INSTRUCTION_SETS[self.int8_instruction_set] == "AVX-512 VNNI"

    def taken_by(self, dtypes: Sequence[int | None]) -> int:
        """Which rounded activations weights of these dtypes take: ``taken_by`` of native/grouped.h."""
        return (1 if {4, 5}.intersection(dtypes) else 0) | (2 if {6, 7}.intersection(dtypes) else 0)

    def linear(
        self,
        x: int,
        weights: Sequence[int],
        biases: Sequence[int],
        outputs: Sequence[int],
        y: int,
        rows: int,
        inputs: int,
        dtype: int,
        instruction_set: int | None = None,
        *,
        fixed: bool = False,
        parts: int | None = None,
    ) -> None:
        """Call ``lolama_linear``; its arguments, with addresses as whole numbers and 0 for no bias."""
        count, addresses, sizes = _arrays(weights)
        chosen = self.instruction_set if instruction_set is None else instruction_set
        self.function(
            x,
            addresses(*weights),
            addresses(*biases),
            sizes(*outputs),
            count,
            y,
            rows,
            inputs,
            dtype,
            chosen,
            fixed,
            parts,
        )

    def tiled_linear(
        self,
        x: int,
        weights: Sequence[int],
        biases: Sequence[int],
        outputs: Sequence[int],
        y: int,
        rows: int,
        inputs: int,
    ) -> None:
        """Call ``lolama_tiled_linear``; arguments as for `linear`."""
        assert self.tiled is not None
        count, addresses, sizes = _arrays(weights)
        self.tiled(
            x, addresses(*weights), addresses(*biases), sizes(*outputs), count, y, rows, inputs
        )

    def int8_linear(
        self,
        x: int,
        weights: Sequence[int],
        scales: Sequence[int],
        biases: Sequence[int],
        outputs: Sequence[int],
        y: int,
        rows: int,
        inputs: int,
        instruction_set: int | None = None,
    ) -> None:
        """Call ``lolama_int8_linear``; arguments as for `linear`."""
        import torch

        count, addresses, sizes = _arrays(weights)
        chosen = self.int8_instruction_set if instruction_set is None else instruction_set
        scratch = torch.empty(self.int8_scratch(rows, inputs), dtype=torch.uint8, device="cpu")
        self.int8(
            x,
            addresses(*weights),
            addresses(*scales),
            addresses(*biases),
            sizes(*outputs),
            count,
            y,
            rows,
            inputs,
            scratch.data_ptr(),
            chosen,
        )


def _arrays(
    weights: Sequence[int],
) -> tuple[int, type[ctypes.Array[ctypes.c_void_p]], type[ctypes.Array[ctypes.c_int64]]]:
    count = len(weights)
    return count, ctypes.c_void_p * count, ctypes.c_int64 * count


@cache
def native_library() -> NativeLibrary | str:
    """The library, or one line on why there is none."""
    if not LIBRARY.exists():
        return "not built: installing lolama-quant found no C compiler with OpenMP"
    _load_openmp()
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        return f"cannot be loaded: {error}"
    if not hasattr(library, "lolama_interface") or library.lolama_interface() != INTERFACE:
        return "built for another version of lolama-quant: install it again"
    function = library.lolama_linear
    pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    function.argtypes = [
        *(pointer, pointer, pointer, pointer, number),
        *(pointer, size, size, number, number, number, pointer),
    ]
    function.restype = None
    tiled = library.lolama_tiled_linear
    tiled.argtypes = [pointer, pointer, pointer, pointer, number, pointer, size, size]
    tiled.restype = None
    int8, int8_scratch = library.lolama_int8_linear, library.lolama_int8_scratch
    int8.argtypes = [
        *(pointer, pointer, pointer, pointer, pointer, number),
        *(pointer, size, size, pointer, number),
    ]
    int8.restype = None
    int8_scratch.argtypes, int8_scratch.restype = [size, size], size
    grouped, grouped_scratch = library.lolama_grouped_linear, library.lolama_grouped_scratch
    grouped.argtypes = [
        *(pointer, pointer, pointer, pointer, pointer),
        *(size, pointer, size, size, number, pointer, number),
    ]
    grouped.restype = None
    grouped_scratch.argtypes, grouped_scratch.restype = [size, size, number], size
    decode, scratch = library.lolama_decode, library.lolama_decode_scratch
    decode.argtypes = [pointer, pointer, pointer, pointer, number, pointer, number]
    decode.restype = None
    scratch.argtypes, scratch.restype = [pointer, size, number], size
    library.lolama_decodes_prompts.argtypes = [pointer]
    return NativeLibrary(
        function,
        tiled if library.lolama_has_tiles() else None,
        bool(library.lolama_has_panels()),
        int8,
        int8_scratch,
        grouped,
        grouped_scratch,
        decode,
        scratch,
        library.lolama_decodes_prompts,
        library.lolama_best_isa(),
        library.lolama_best_int8_isa(),
    )


def _load_openmp() -> None:
    """Load the OpenMP runtime that torch brings, if need be torch with it.

    Loaded first, it is found under its name, so that both share one pool of threads, whichever of them comes
    first; two pools would fight over the cores.
    """
    if "torch" in sys.modules:
        return
    found = find_spec("torch")
    if found is not None and found.origin is not None:
        runtime = Path(found.origin).parent / "lib" / "libgomp.so.1"
        if runtime.exists():
            ctypes.CDLL(str(runtime))
            return
    import torch  # noqa: F401


def dtype_number(dtype: torch.dtype) -> int | None:
    """How native/linear.c calls a dtype of weights; None for one that it does not know."""
    import torch

    return {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}.get(dtype)


def format_number(form: GroupFormat) -> int | None:
    """How native/grouped.h calls a format; None for one that it does not know."""
    numbers = {"int4": 4, "int4_32": 5, "int8_16": 6, "int8_32": 7}
    return numbers.get(form.name) if FORMATS.get(form.name) == form else None


def int8_rows() -> int:
    """`most_rows` of int8 weights; 0 without the library."""
    library = native_library()
    return 0 if isinstance(library, str) else _most_rows(library, "int8")


def most_rows(library: NativeLibrary, dtype: torch.dtype) -> int:
    """Up to how many rows the library's products with weights of ``dtype`` are faster than torch's."""
    return _most_rows(library, str(dtype).removeprefix("torch."))


def _most_rows(library: NativeLibrary, dtype: str) -> int:
    """`most_rows` by the name of the dtype.

    Past a few, they are bound by arithmetic. Where the processor multiplies bfloat16 or bytes,
    native/wide_panels.h is as fast as torch's blocked products: with bfloat16 faster up to 128 rows, and with
    int8 the choice at any number, since it rounds activations in groups, which keeps more of their precision.
    float16 is multiplied by few processors, so torch has nothing better for it than these dot products. Where
    the processor multiplies none of them, torch first widens the weights in memory, and native/panels.h is
    faster: with integers at any number of rows, with floats until widening is no large part.
    """
    if library.has_panels:
        return {"float32": 64, "int8": ANY_ROWS}.get(dtype, 256)
    bfloat16 = 128 if library.tiled is not None else 8
    return {"bfloat16": bfloat16, "float16": 32, "int8": ANY_ROWS}.get(dtype, 8)


def describe(*, int8: bool = False) -> str:
    """The instruction set and the numbers of rows, with ``int8`` of those too; or why there is none."""
    library = native_library()
    if isinstance(library, str):
        return library
    dtypes = ("float32", "bfloat16", "float16", *(("int8",) if int8 else ()))
    most = {dtype: _most_rows(library, dtype) for dtype in dtypes}
    limits = ", ".join(
        f"{'any number' if rows == ANY_ROWS else rows} of {dtype}" for dtype, rows in most.items()
    )
    return f"{INSTRUCTION_SETS[library.instruction_set]}, rows: up to {limits}"
