"""What is typed wrong: on a command line, in lines of a batch, in a chat; how a start is interrupted."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest
from program import COMMAND, environment
from warm_program import run

import lolama
from lolama_core.protocols.errors import ResourceError, UsageError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("convert", "demo", ""), ("OUTPUT", "the output's name is empty")),
        (("convert", "", "new"), ("MODEL", "the model's name is empty")),
        (("quantize", "-m", "demo", "-o", ""), ("--output", "the folder's name is empty")),
        (("generate", "-m", "", "z"), ("--model", "the model's name is empty")),
        (("generate", "-m", "demo", "--batch", ""), ("--batch", "the file's name is empty")),
        (("generate", "-m", "demo", "--batch", "-", "-o", ""), ("--output", "name is empty")),
        (("generate", "-m", "demo", "--template", "", "z"), ("--template", "name is empty")),
        (("generate", "-m", "demo-vision", "--image", "", "z"), ("--image", "is empty")),
        (("chat", "-m", "demo", "--load", ""), ("--load", "the file's name is empty")),
        (("eval", "-m", "demo", ""), ("FILE", "the file's name is empty")),
        (("rm", ""), ("MODEL", "the model's name is empty")),
        (("info", ""), ("MODEL", "the model's name is empty")),
        (("pull", ""), ("MODEL", "the model's name is empty")),
        (("config", "set", "model", ""), ("model is empty",)),
    ],
    ids=" ".join,
)
def test_row_215_an_empty_name(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    outcome = run(*arguments)
    outcome.refused(2, *words)
    assert "remove" not in outcome.err


def test_row_215_an_empty_name_in_a_chat(tmp_path: Path) -> None:
    commands = b'/save ""\n/load ""\n/image ""\n/model ""\n'
    lines = run("chat", "-m", "demo", stdin=commands).err.splitlines()
    said = [line for line in lines if line.startswith("error:")]
    assert [line.split(":")[1] for line in said] == [" /save", " /load", " /image", " /model"]
    assert all("a name is empty" in line for line in said)


def test_row_215_an_empty_name_in_python() -> None:
    model = lolama.load_model("demo")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="empty"):
            lolama.save(model, "", overwrite=overwrite)


def test_row_215_a_model_that_is_set_somewhere(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    env = {"LOLAMA_CONFIG": str(file)}
    file.write_text('model = ""\n')
    run("generate", "z", env=env).refused(2, f"error: {file}: model is empty")
    file.write_text('model = "nonsense"\n')
    run("generate", "z", env=env).refused(2, "model 'nonsense'", f"{file} sets that model")
    run("generate", "z", env={"LOLAMA_MODEL": "odd"}).refused(2, "LOLAMA_MODEL sets that model")
    typed = run("generate", "-m", "nonsense", "z", env=env)
    typed.refused(2, "model 'nonsense'")
    assert str(file) not in typed.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("doctor", "extra"), ("takes no argument", "leave it out")),
        (("models", "extra"), ("takes no argument",)),
        (("gc", "extra"), ("takes no argument",)),
        (("config", "path", "extra"), ("takes no argument",)),
        (("config", "get", "model", "extra"), ("takes one argument",)),
        (("config", "set", "model", "a", "b"), ("takes 2 arguments",)),
        (("convert", "demo", "a", "b"), ("takes 2 arguments",)),
        (("config", "set", "temperature", "-3"), ("-3", "put -- in front of it")),
        (("config", "set", "temperature", "--", "-3"), ("temperature -3", "from 0 (greedy)")),
    ],
    ids=" ".join,
)
def test_row_216_too_many_arguments(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    run(*arguments).refused(2, *words)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("chat", "demo"), "lolama chat: takes no argument; leave it out, or name a model by -m"),
        (("bench", "demo"), "lolama bench: takes no argument; leave it out, or name a model by -m"),
        (
            ("quantize", "demo", "-o", "new"),
            "lolama quantize: takes no argument; leave it out, or name a model by -m",
        ),
        (
            ("generate", "demo", "hi"),
            "lolama generate: takes one argument; put quotes around it, and name a model by -m",
        ),
        (
            ("eval", "demo", "book.txt"),
            "lolama eval: takes one argument; put quotes around it, and name a model by -m",
        ),
        (
            ("info", "-m", "demo"),
            "-m: no such option; name the model without it: lolama info MODEL",
        ),
        (
            ("pull", "--model", "demo"),
            "--model: no such option; name the model without it: lolama pull MODEL",
        ),
        (
            ("convert", "-m", "demo", "new"),
            "-m: no such option; name the model without it: lolama convert MODEL",
        ),
        (("rm", "-mdemo"), "-m: no such option; name the model without it: lolama rm MODEL"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else "",
)
def test_row_416_a_model_that_is_named_as_another_command_takes_it(
    arguments: tuple[str, ...], line: str
) -> None:
    outcome = run(*arguments)
    assert (outcome.code, outcome.err) == (2, f"error: {line}\n")


def test_row_217_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('"z"\n')
    missing = tmp_path / "missing" / "answers.jsonl"
    batch = ("generate", "-m", "demo", "--batch", tmp_path / "prompts.jsonl", "-o")
    outcome = run(*batch, missing)
    outcome.refused(2, str(missing), "make the folder, or give another --output")
    assert "remove" not in outcome.err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc here")
def test_row_217_a_folder_that_takes_none() -> None:
    run("convert", "demo", "/proc/new").refused(2, "/proc takes no new folders", "another place")


def test_row_217_a_read_only_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lolama_cli.batch.answers import AnswerFile
    from lolama_cli.errors import Settings, report

    def refuse(path: str | Path, *_: object, **__: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    model = lolama.load("demo")
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", refuse)
        with pytest.raises(ResourceError, match="Read-only"):
            lolama.save(model, tmp_path / "new")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(ResourceError, match="Read-only"):
            AnswerFile(tmp_path / "answers.jsonl")
    error = OSError(errno.EROFS, os.strerror(errno.EROFS), "new")
    assert report(error, Settings()) == 6


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('""', "prompt is empty; give some text, or leave the line out"),
        ('{"messages": [{"role": "user", "content": ""}]}', "messages[0] is empty; give some"),
        ('{"messages": [{"role": true, "content": "z"}]}', "has the role true"),
        ('{"messages": [{"content": "z"}]}', "messages[0] has no role"),
        ('{"prompt": "z", "max_tokens": true}', "max_tokens true is not a number"),
        ('{"prompt": "z", "max_tokens": null}', "max_tokens null is not a number"),
        ('{"prompt": "z", "max_tokens": 1e999}', "1e999 is too large a number"),
        ('{"prompt": "z", "temperature": "hot"}', 'temperature "hot" is not a number'),
        ('{"prompt": "z", "top_p": {"x": false}}', 'top_p {"x": false} is not a number'),
        ('{"prompt": "z", "stop": [null]}', "stop [null] is not a text"),
        ('{"prompt": "z", "stop": [""]}', "stop an empty text is not"),
        ('{"prompt": "z", "images": [""]}', "images is empty; give the path of a picture"),
    ],
)
def test_row_218_settings_of_the_wrong_kind(line: str, words: str) -> None:
    outcome = run("generate", "-m", "demo", "--batch", "-", stdin=line.encode())
    message = json.loads(outcome.out)["error"]["message"]
    assert outcome.code == 2 and message.startswith("line 1") and words in message
    assert "as an argument" not in message and "or -" not in message


def test_row_218_an_empty_stop_text() -> None:
    run("generate", "-m", "demo", "--stop", "", "z").refused(2, "--stop", "an empty text")


# Sends the process Ctrl-C when the named module is imported for the first time.
_INTERRUPTING = """
import os, signal, sys
name, sys.argv = sys.argv[1], sys.argv[2:]
for loaded in [each for each in sys.modules if each.partition(".")[0] == name]:
    del sys.modules[loaded]
class Finder:
    def find_spec(self, sought, *_):
        if sought == name:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("start", "module"),
    [
        *(
            ("from lolama_cli.__main__ import main; main()", name)
            for name in (
                "signal",
                "gc",
                "contextlib",
                "lolama_cli.address_space",
                "lolama_cli.errors",
                "lolama_cli.app",
                "typer",
                "lolama_core.protocols",
            )
        ),
        *(
            ("import runpy; runpy.run_module('lolama_core', run_name='__main__')", name)
            for name in (
                "argparse",
                "lolama_core.generation.generation_config",
                "torch",
                "lolama_core.generation.generator",
            )
        ),
    ],
)
def test_row_219_ctrl_c_while_the_first_modules_are_imported(start: str, module: str) -> None:
    process = subprocess.run(
        (COMMAND[0], "-c", _INTERRUPTING + start, module, "lolama", "--temperature", "0", "z")
        if "lolama_core'" in start
        else (COMMAND[0], "-c", _INTERRUPTING + start, module, "lolama", "models"),
        capture_output=True,
        env=environment(),
        timeout=60,
    )
    assert (process.returncode, process.stdout, process.stderr) == (130, b"", b"")
