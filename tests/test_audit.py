"""What a whole run does to the machine, told by Python's audit hook: pull, load, generate; then offline.

Nothing is unpickled, executed or imported from a model's directory, no program is started, nothing is written
outside the store, and no connection is made but to the hub, or at all when offline.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lolama_core.testing import tiny
from lolama_hub.testing.stand_in_hub import StandInHub

NAME = "owner/model"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink",
    "os.truncate", "os.utime", "shutil.copyfile", "shutil.move", "shutil.rmtree",
}  # fmt: skip
STARTING = {"os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"}

PROGRAM = """
import json, os, sys
events = []
def hook(event, arguments):
    if event == "exec":
        arguments = (getattr(arguments[0], "co_filename", "?"),)
    elif event == "import":
        arguments = arguments[:2]
    elif event.partition(".")[0] not in ("open", "os", "shutil", "socket", "subprocess", "pickle"):
        return
    plain = [a if isinstance(a, (int, str)) else repr(a)[:200] for a in arguments]
    events.append((event, plain))
import torch  # its import looks for compilers and counts processors, which is none of our business
sys.addaudithook(hook)
from lolama_cli.app import run
from lolama_cli.errors import Settings
for command in json.loads(sys.argv[1]):
    assert run(command, Settings()) == 0
sys.stdout.flush()
with open(sys.argv[2], "w") as file:
    json.dump(events, file)
os._exit(0)
"""


def audited(
    commands: list[list[str]], env: dict[str, str], log: Path
) -> tuple[str, list[tuple[str, list[Any]]]]:
    done = subprocess.run(
        [sys.executable, "-B", "-c", PROGRAM, json.dumps(commands), str(log)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "0", **env},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, [(event, arguments) for event, arguments in json.loads(log.read_text())]


def check(events: list[tuple[str, list[Any]]], store: Path, log: Path, ports: set[int]) -> None:
    for event, arguments in events:
        told = f"{event} {arguments}"
        assert event not in STARTING, told
        assert not event.startswith("pickle."), told
        paths = [a for a in arguments if isinstance(a, str) and a.startswith("/")]
        inside = all(Path(path).is_relative_to(store) for path in paths)
        if event in ("exec", "import"):
            assert not any(str(store) in str(argument) for argument in arguments), told
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            assert inside or set(paths) <= {os.devnull, str(log)}, told
        elif event in CHANGING:
            assert inside, told
        elif event == "socket.connect":
            assert any(f"('127.0.0.1', {port})" in told for port in ports), told
        elif event == "socket.getaddrinfo":
            assert ports, told


def test_rows_25_45_and_51_a_whole_run(tmp_path: Path) -> None:
    import transformers

    folder, store, log = tmp_path / "published", tmp_path / "store", tmp_path / "log"
    config = transformers.LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        auto_map={"AutoModelForCausalLM": "modeling_x.X"},
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(byte_tokenizer())
    (folder / "modeling_x.py").write_text("raise SystemExit('the code of a model ran')")
    files: dict[str, bytes | Path] = {path.name: path for path in folder.iterdir()}
    with StandInHub({NAME: files}) as hub:
        env = {
            **hub.environment(),
            "LOLAMA_HOME": str(store),
            "HF_HOME": str(tmp_path / "hf"),
            "XDG_CONFIG_HOME": str(tmp_path),
        }
        generate = ["generate", "-m", NAME, "--max-tokens", "5", "--seed", "1", "abc"]
        ports = {int(url.rpartition(":")[2]) for url in (hub.endpoint, hub.file_server)}
        first, events = audited([["pull", "--yes", NAME], generate, ["models"]], env, log)
        check(events, store, log, ports)
        assert any(event == "socket.connect" for event, _ in events)
        offline = {**env, "HF_HUB_OFFLINE": "1"}
        second, events = audited([generate], offline, log)
        check(events, store, log, set())
        assert first.partition("\n")[2].startswith(second)
        names = {path.name for path in store.rglob("*")}
        assert not any(name.endswith(".py") for name in names)
    assert {path.name for path in tmp_path.iterdir()} == {"published", "store", "log"}


def byte_tokenizer() -> str:
    alphabet = sorted(tiny.byte_characters())
    return tiny.byte_level({c: i for i, c in enumerate(alphabet)}, words=False)
