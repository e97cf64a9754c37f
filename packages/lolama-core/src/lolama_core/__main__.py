"""``python -m lolama_core [-m DIR] PROMPT``: continue a text, with nothing but this package."""

from __future__ import annotations

import argparse
import sys

from lolama_core.protocols.errors import EXIT_CLOSED_PIPE, EXIT_INTERRUPTED, LolamaError


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
        # After the arguments are read: torch takes a second to import.
        from lolama_core import GenerationConfig, TextGenerator, load

        config = GenerationConfig(
            max_new_tokens=arguments.max_tokens,
            temperature=arguments.temperature,
            seed=arguments.seed,
        )
        model, tokenizer = load(arguments.model)
        ids = tokenizer.encode(arguments.prompt, split_special_tokens=True)
        for piece in TextGenerator(model, tokenizer).generate_stream(ids, config).text():
            print(piece, end="", flush=True)
        print(flush=True)
    except LolamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()  # or the interpreter complains once more on its way out
        return EXIT_CLOSED_PIPE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
