"""A place where models could run, and what there is to tell about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Device:
    """A place where models could run.

    A field is None where it does not apply, or the system does not tell.

    Attributes:
        name: As ``--device`` takes it.
        problem: Why it cannot be used here; None if it can.
        processor: The model of the processor or GPU.
        instruction_set: The best one that torch uses here; of a CPU.
        cores: Logical ones, of a CPU.
        threads: How many of them torch uses.
        memory_bytes: All of it; of an Apple GPU, what the system recommends to use at most.
        free_memory_bytes: What can still be allocated.
        native_bfloat16: Whether a GPU computes in bfloat16 without emulating it.
    """

    name: str
    problem: str | None = None
    processor: str | None = None
    instruction_set: str | None = None
    cores: int | None = None
    threads: int | None = None
    memory_bytes: int | None = None
    free_memory_bytes: int | None = None
    native_bfloat16: bool | None = None
