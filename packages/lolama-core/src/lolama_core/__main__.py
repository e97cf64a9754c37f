"""``python -m lolama_core [-m DIR] PROMPT``: continue a text, with nothing but this package."""

import os
import sys

if __name__ == "__main__":
    # Before all other imports, which would end in a traceback. Whatever was written is flushed.
    import signal

    # Another handler means that Ctrl-C is ignored on purpose.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))

import argparse
import warnings

from lolama_core.generation.generation_config import GenerationConfig
from lolama_core.protocols.errors import (
    EXIT_CLOSED_PIPE,
    EXIT_INTERRUPTED,
    LolamaError,
    ResourceError,
    shortage,
)
from lolama_core.protocols.settings import OF_COMMANDS

# Setting → the option that sets it here.
_OPTIONS = {
    "max_new_tokens": "--max-tokens",
    "temperature": "--temperature",
    "seed": "--seed",
}


def main() -> int:
    """Write the continuation to standard output as it comes; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lolama_core",
        description="Continue a text. The lolama command (pip install lolama-cli) does much more.",
    )
    parser.add_argument("prompt", help="the text to continue")
    parser.add_argument(
        "-m",
        "--model",
        default="demo",
        help="a lolama checkpoint directory (default: the built-in demo)",
    )
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    try:
        config = GenerationConfig(
            max_new_tokens=arguments.max_tokens,
            temperature=arguments.temperature,
            seed=arguments.seed,
        )
        # After the arguments are checked: torch takes a second to import.
        from lolama_core import TextGenerator, load, suit_threads

        with warnings.catch_warnings(record=True) as caught:
            model, tokenizer = load(arguments.model)
        for warning in caught:
            print(f"note: {warning.message}", file=sys.stderr)
        suit_threads(model)
        sampling = model.generation_defaults.sampling
        config = config.with_recommended(sampling, but=OF_COMMANDS)
        ids = tokenizer.encode(arguments.prompt, split_special_tokens=True)
        stream = TextGenerator(model, tokenizer).generate_stream(ids, config)
        for piece in stream.text():
            _write(piece)
        _write("\n")
        if stream.result is not None and stream.result.context_full:
            print("the model's context is full: the text ends here", file=sys.stderr)
    except LolamaError as error:
        subject = _OPTIONS.get(error.subject, error.subject)
        renamed = LolamaError(subject, error.reason, error.remedy)
        print(f"error: {renamed}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return EXIT_CLOSED_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        found = shortage(error, "lolama_core")
        if found is None:
            raise
        print(f"error: {found}", file=sys.stderr)
        return found.exit_code
    return 0


def _write(text: str) -> None:
    """Put text out at once. What cannot be spelled there becomes ``?``."""
    if sys.stdout is None:
        raise ResourceError("standard output", "is closed", "give it somewhere to go")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise ResourceError(
            "standard output", f"cannot be written: {error.strerror}", "free some space"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
