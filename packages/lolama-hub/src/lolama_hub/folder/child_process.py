"""Work on files that may do anything to whoever opens them: in a process of its own, its memory capped.

What a damaged file can do to a library written in C++, such as ending the process, then ends the child.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable

from lolama_core.protocols.child_interpreter import command, search_path
from lolama_core.protocols.errors import LolamaError, ModelError, ResourceError, shortage

# The paths first: what follows is found through them.
_CHILD = (
    "import pickle, sys\n"
    "sys.path[:] = pickle.load(sys.stdin.buffer)\n"
    "from lolama_hub.folder.child_process import serve\n"
    "serve()\n"
)


def run_in_child(
    function: Callable[..., object], *arguments: object, subject: str, memory: int
) -> None:
    """Call ``function`` in a new interpreter and wait for it.

    Args:
        function: A function at a module's top level. What it returns is dropped.
        arguments: Anything that can be pickled. They are ours, and trusted.
        subject: What errors name: the file that the work is about.
        memory: Bytes that it may use beyond what the interpreter and torch take. Held on Linux.

    Raises:
        LolamaError: what ``function`` raises.
        ResourceError: if it needs more memory, or no process can be started.
        ModelError: if it ends in any other way.
    """
    path = search_path("lolama_core", "lolama_hub")
    order = pickle.dumps(path) + pickle.dumps((function, arguments, memory))
    try:
        done = subprocess.run(command(_CHILD), input=order, capture_output=True)
    except OSError as error:
        found = shortage(error, subject)
        if found is not None:
            raise found from None
        reason = f"cannot be converted: no process can be started ({error.strerror})"
        raise ResourceError(subject, reason, "close other programs") from None
    if done.returncode == 0:
        # `serve` wrote this, and nothing from a model reaches it.
        outcome = pickle.loads(done.stdout)
        if isinstance(outcome, LolamaError):
            raise outcome
        return
    if any(
        word in done.stderr for word in (b"MemoryError", b"bad_alloc", b"can't allocate memory")
    ):
        reason = (
            f"needs more than {memory / 1e9:,.2f} GB of memory, which its size does not explain"
        )
        raise ResourceError(subject, reason, "use a version of the model in safetensors")
    reason = f"cannot be converted: what reads it ended with status {done.returncode}"
    raise ModelError(subject, reason, "get the file again, or use a version in safetensors")


def serve() -> None:
    """The child's side: do what standard input says, and tell the outcome on standard output."""
    function, arguments, memory = pickle.load(sys.stdin.buffer)
    outcome: LolamaError | None = None
    with open(sys.stdout.fileno(), "wb", closefd=False) as out:
        sys.stdout = sys.stderr  # whatever a library prints is no outcome
        _cap_memory(memory)
        try:
            function(*arguments)
        except LolamaError as error:
            outcome = type(error)(error.subject, error.reason, error.remedy)
        out.write(pickle.dumps(outcome))


def _cap_memory(memory: int) -> None:
    """Refuse to grow by more than ``memory`` bytes. Only Linux counts a process's address space so."""
    if sys.platform != "linux":
        return
    import resource

    import torch

    torch.set_num_threads(1)  # each thread would take address space of its own
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, resource.RLIM_INFINITY))
