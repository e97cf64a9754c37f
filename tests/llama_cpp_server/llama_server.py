#!/usr/bin/env python3
"""Start ``lolama serve`` with the options of llama.cpp's server, for llama.cpp's own tests of it.

It translates the options, and becomes the other program: it answers nothing itself. An option that lolama has
not ends it with one line, so the tests that need it fail.

The environment variable ``LOLAMA_STORIES_GGUF`` names the file of the one model that is here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent / "templates"
"""Templates that llama.cpp has built in, by name. ``chatml`` is for models that have none."""

MODEL = "LOLAMA_STORIES_GGUF"

_STORIES = {
    ("ggml-org/test-model-stories260K", None),
    ("ggml-org/models", "tinyllamas/stories260K.gguf"),
}

# llama.cpp's option → lolama's, with the same value.
_SAME = {
    "--port": "--port",
    "--host": "--host",
    "--temp": "--temperature",
    "--seed": "--seed",
    "--parallel": "--parallel",
    "--sleep-idle-seconds": "--sleep-idle",
    "--api-key": "--api-key",
}
# Options whose value changes no answer here: how a prompt is cut into passes, and where a model runs.
_UNNEEDED = {"--batch-size", "--ubatch-size", "--threads", "--n-gpu-layers", "--cache-ram"}
# The length of answers to requests that give none, and no limit: such answers go on as long as they may.
_UNNEEDED.add("--n-predict")
# Switches that are always on, or mean nothing, here.
_ALWAYS = {
    "--offline": "lolama serve never downloads",
    "--cont-batching": "requests always run together",
    "--jinja": "templates are always Jinja",
    "--no-jinja": "templates are always Jinja",
    "--no-cache-idle-slots": "what is kept of texts needs no slot",
    "--slots": "the default",
    "--metrics": "the default",
    "--backend_sampling": "there is one way to choose tokens",
}
_VALUES = {
    "--model",
    "--hf-repo",
    "--hf-file",
    "--alias",
    "--tags",
    "--ctx-size",
    "--chat-template",
    "--chat-template-file",
    "--reasoning",
    "--cors-origins",
}
_SWITCHES = {"--no-slots", "--kv-unified", "--no-ui", "--verbose"}


class Refused(Exception):
    """An option that lolama has not."""


def given_options(words: Sequence[str]) -> dict[str, str]:
    """Option → its value, "" for a switch.

    Raises:
        Refused: for one that is not translated.
    """
    found: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word in _SAME or word in _VALUES or word in _UNNEEDED:
            found[word] = next(rest)
        elif word in _SWITCHES or word in _ALWAYS:
            found[word] = ""
        else:
            raise Refused(f"lolama serve has no {word}")
    return found


def model_file(given: dict[str, str]) -> str | None:
    """The file of the model that is asked for.

    Raises:
        Refused: if it is not here.
    """
    if "--model" in given:
        return given["--model"]
    if "--hf-repo" not in given:
        return None
    asked = given["--hf-repo"], given.get("--hf-file")
    if asked not in _STORIES:
        raise Refused(f"the model {'/'.join(filter(None, asked))} is not here")
    return os.environ[MODEL]


def translated(words: Sequence[str]) -> list[str]:
    """Options of ``lolama serve`` that mean what ``words`` mean to llama.cpp's server.

    Raises:
        Refused: for what cannot be meant.
    """
    given = given_options(words)
    made = [word for name in _SAME if name in given for word in (_SAME[name], given[name])]
    model = model_file(given)
    if model is not None:
        made += ["--model", model, "--any-model"]
    made += [*_names(given), *_lengths(given), *_template(given)]
    # A server that is given no `--metrics` has none, and likewise for the others.
    made += ["--no-metrics"] if "--metrics" not in given else []
    made += ["--no-slots"] if "--no-slots" in given else []
    made += ["--no-page"] if "--no-ui" in given else []
    made += ["--show-prompts"] if "--verbose" in given else []
    # llama.cpp has a model think wherever its template can turn that on or off.
    made += ["--no-think" if given.get("--reasoning") == "off" else "--think"]
    if given.get("--cors-origins", "localhost") != "localhost":
        made += ["--cors-origin", given["--cors-origins"]]
    return made


def _names(given: dict[str, str]) -> Iterator[str]:
    # llama.cpp keeps them in a set in order, and the first one is what the model is called.
    for alias in sorted(filter(None, given.get("--alias", "").split(","))):
        yield from ("--alias", alias)
    for tag in filter(None, given.get("--tags", "").split(",")):
        yield from ("--tag", tag)


def _lengths(given: dict[str, str]) -> Iterator[str]:
    if "--ctx-size" in given:
        # llama.cpp's context is that of all slots together, unless they share one.
        shared = "--kv-unified" in given
        slots = 1 if shared else int(given.get("--parallel", "1"))
        yield from ("--context", str(int(given["--ctx-size"]) // slots))


def _template(given: dict[str, str]) -> Iterator[str]:
    name = given.get("--chat-template", "chatml")
    if "--chat-template-file" in given:
        yield from ("--template", given["--chat-template-file"])
    elif (TEMPLATES / f"{name}.jinja").is_file():
        yield from ("--template", str(TEMPLATES / f"{name}.jinja"))
    else:  # its source
        with tempfile.NamedTemporaryFile("w", suffix=".jinja", delete=False) as file:
            file.write(name)
        yield from ("--template", file.name)


def main() -> None:
    """Become ``lolama serve``."""
    try:
        options = translated(sys.argv[1:])
    except Refused as refusal:
        sys.exit(f"llama_server: {refusal}")
    os.execv(sys.executable, [sys.executable, "-m", "lolama_cli", "serve", *options])


if __name__ == "__main__":
    main()
