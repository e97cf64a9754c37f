"""Downloads that go wrong, rows 1 to 27 of docs/faults.md: the installed program against a stand-in hub."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from patience import until
from program import COMMAND, Outcome, environment
from terminal import Terminal
from warm_program import Run, WarmProgram

from lolama_core.testing.promises import Promises
from lolama_hub.download.retries import ATTEMPTS
from lolama_hub.testing.faults import ALWAYS, Fault, Place
from lolama_hub.testing.repository import SMALL_FILES, list_entry
from lolama_hub.testing.stand_in_hub import StandInHub

NAME = "owner/model"
BIG = "model.safetensors"
SIZE = 12_000_000
WRITTEN_AT_ONCE = 2**20


@dataclass
class World:
    """A hub, a store of one's own, and the program between them."""

    hub: StandInHub
    home: Path
    program: WarmProgram
    token: str = ""

    def environment(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        token = {"HF_TOKEN": self.token} if self.token else {}
        folders = {"LOLAMA_HOME": str(self.home), "HF_HOME": str(self.home.parent / "hf")}
        return {**self.hub.environment(), **folders, **token, **(changes or {})}

    def lolama(self, *arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
        return self.program.run(*arguments, env=self.environment(env))

    def pull(self, *, env: Mapping[str, str] | None = None) -> Outcome:
        return self.lolama("pull", "--yes", NAME, env=env)

    def start(self) -> Run:
        return self.program.start("pull", "--yes", NAME, env=self.environment())

    def snapshot(self) -> Path:
        return self.home / "models" / "owner--model" / self.hub.repos[NAME].commit

    def break_off(self, size: int) -> None:
        """Have a download end after ``size`` bytes of the large file."""
        self.hub.faults = [
            Fault("close", after=size),
            Fault("status", "resolve", name=BIG, status=418, skip=1),
        ]
        self.pull().refused(4, "HTTP 418")

    def is_whole(self) -> bool:
        """Whether what is visible is the published bytes, by sha256."""
        folder = self.snapshot()
        published = self.hub.repos[NAME].files
        return folder.is_dir() and all(
            sha256((folder / name).read_bytes())
            == sha256(content if isinstance(content, bytes) else content.read_bytes())
            for name, content in published.items()
        )

    def fetched(self, outcome: Outcome) -> None:
        """Check that it went well: 0, nothing to say, the folder on standard output, the right bytes."""
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out.decode() == f"{self.snapshot()}\n"
        assert self.is_whole()

    def refused(self, outcome: Outcome, code: int, *words: str) -> None:
        """Check that it went wrong by the contract, and that no model is visible."""
        outcome.refused(code, *words)
        assert not self.snapshot().exists()

    def stop_at(self, size: int) -> Run:
        """A run whose download stands still at ``size`` bytes of the large file, for as long as it likes."""
        self.hub.faults = [Fault("stall", after=size)]
        process = self.start()
        until(lambda: self.partial() > size - WRITTEN_AT_ONCE)
        return process

    def sent(self) -> int:
        """Bytes of the large file that went out so far."""
        return sum(request.sent for request in self.hub.requests if request.place == "file")

    def partial(self) -> int:
        part = self.snapshot().with_suffix(".partial") / f"{BIG}.part"
        return part.stat().st_size if part.exists() else 0


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


BYTES = bytes(range(251)) * (SIZE // 251)
# What is read to see whether the model can be used at all, before anyone is asked to agree.
CONFIG_SIZE = len(SMALL_FILES["config.json"])


@pytest.fixture
def world(tmp_path: Path, warm: WarmProgram) -> Iterator[World]:
    files: dict[str, bytes | Path] = {
        **SMALL_FILES,
        "README.md": b"not needed",
        "modeling.py": b"raise SystemExit",
        BIG: BYTES,
        "pytorch_model.bin": BYTES,
    }
    needed = {name: files[name] for name in ("config.json", "tokenizer.json", BIG)}
    with StandInHub({NAME: files}) as hub:
        # What is compared afterwards is what lolama needs; the rest must not be fetched.
        hub.listing[NAME] = [list_entry(hub.repos[NAME], name) for name in files]
        hub.repos[NAME].files = needed
        yield World(hub, tmp_path / "store", warm)


def test_what_is_needed_is_fetched_and_nothing_else(world: World) -> None:
    world.fetched(world.pull())
    repo = world.hub.repos[NAME]
    assert world.hub.bytes_sent() == sum(repo.size(name) for name in repo.files)
    assert {path.name for path in world.snapshot().iterdir()} == {
        *world.hub.repos[NAME].files,
        "lolama.json",
    }
    assert not any(request.authorised for request in world.hub.requests)
    # Once more: nothing is left to fetch.
    before = world.hub.bytes_sent()
    world.fetched(world.pull())
    assert world.hub.bytes_sent() == before


@pytest.mark.parametrize("token", ["", "hf_member"])
def test_row_01_repository_missing(world: World, token: str) -> None:
    world.hub.tokens.add("hf_member")
    world.token = token
    outcome = world.lolama("pull", "--yes", "owner/other")
    world.refused(outcome, 5, "owner/other", "missing or private")


def test_row_02_gated_anonymous(world: World) -> None:
    world.hub.gated.add(NAME)
    page = f"{world.hub.endpoint}/{NAME}"
    world.refused(world.pull(), 5, "gated", "license", page, "HF_TOKEN")


def test_row_03_gated_without_access(world: World) -> None:
    world.hub.gated.add(NAME)
    world.hub.tokens.add("hf_stranger")
    world.token = "hf_stranger"
    world.refused(world.pull(), 5, "gated", "no access", f"{world.hub.endpoint}/{NAME}")


def test_a_gated_model_for_a_member_whose_token_never_leaves_the_hub(world: World) -> None:
    world.hub.gated.add(NAME)
    world.hub.tokens.add("hf_member")
    world.hub.members.add("hf_member")
    world.token = "hf_member"
    world.fetched(world.pull())
    authorised = {request.place for request in world.hub.requests if request.authorised}
    assert authorised == {"revision", "tree", "head", "resolve"}  # and not "file"


@pytest.mark.parametrize("token", ["hf_wrongwrongwrong", "hf_évil", "hf_a\nb: c"])
def test_row_04_bad_token(world: World, token: str) -> None:
    world.token = token
    outcome = world.pull()
    world.refused(outcome, 5, "token", "HF_TOKEN")
    assert "hf_" not in outcome.err
    assert "wrong" not in outcome.err
    debugged = world.lolama("--debug", "pull", "--yes", NAME)
    assert token not in debugged.err


def test_row_05_missing_revision(world: World) -> None:
    outcome = world.lolama("pull", "--yes", f"{NAME}@v9")
    world.refused(outcome, 4, NAME, "no revision", "v9")


def test_row_06_too_many_requests(world: World) -> None:
    def asked() -> int:
        return len([request for request in world.hub.requests if request.place == "tree"])

    wait = {"Retry-After": "0"}
    world.hub.faults = [Fault("status", "tree", times=1, status=429, headers=wait)]
    world.fetched(world.pull())
    assert asked() == 2
    world.lolama("rm", NAME)
    world.hub.faults = [Fault("status", "tree", times=ALWAYS, status=429, headers=wait)]
    world.refused(world.pull(), 4, "too many requests", "wait 0 s")
    assert asked() == 2 + ATTEMPTS
    # It waits as long as is reasonable, not as long as a server likes.
    world.hub.faults = [Fault("status", "tree", status=429, headers={"Retry-After": "86400"})]
    world.refused(world.pull(), 4, "wait 86400 s")
    assert asked() == 2 + ATTEMPTS + 1


@pytest.mark.parametrize("place", ["revision", "tree", "head"])
def test_row_07_server_errors_on_metadata(world: World, place: str) -> None:
    world.hub.faults = [
        Fault("status", place, status=500),  # type: ignore[arg-type]
        Fault("status", place, status=503),  # type: ignore[arg-type]
    ]
    world.fetched(world.pull())


def test_row_07_a_hub_that_is_down(world: World) -> None:
    world.hub.faults = [Fault("status", "revision", times=ALWAYS, status=502)]
    world.refused(world.pull(), 4, "HTTP 502", "try again later")


def test_row_08_the_file_server_is_busy_once(world: World) -> None:
    world.hub.faults = [Fault("status", "file", status=503)]
    world.fetched(world.pull())


def test_row_09_a_signed_address_expires(world: World) -> None:
    world.hub.faults = [Fault("status", "file", status=403)]
    world.fetched(world.pull())
    asked = [request.place for request in world.hub.requests if request.path.endswith(BIG)]
    assert asked == ["head", "resolve", "file", "resolve", "file"]


def fetched_again(world: World) -> float:
    """The share of the large file that was sent more than once."""
    return world.sent() / len(BYTES) - 1


def test_row_10_a_reset_in_mid_body(world: World) -> None:
    world.hub.faults = [Fault("reset", after=5_000_000), Fault("reset", after=9_000_000)]
    world.fetched(world.pull())
    assert fetched_again(world) < 0.1


def test_row_11_a_connection_closed_in_mid_body(world: World) -> None:
    world.hub.faults = [Fault("close", after=7_654_321), Fault("close", after=11_999_000)]
    world.fetched(world.pull())
    assert fetched_again(world) <= 0.0


@pytest.mark.parametrize("kind", ["stall", "trickle"])
def test_row_12_a_stalled_transfer(world: World, kind: str) -> None:
    """The hub would stand still for ever: whoever goes on has given up by himself."""
    world.hub.timeout = 1
    world.hub.faults = [Fault(kind, after=6_000_000)]  # type: ignore[arg-type]
    world.fetched(world.pull())
    assert [r.range for r in world.hub.requests if r.place == "resolve"][-1].startswith("bytes=6")


@pytest.mark.promise
def test_row_12_a_stalled_transfer_is_given_up_after_the_timeout(
    world: World, promises: Promises
) -> None:
    world.hub.timeout = 1
    world.hub.faults = [Fault("stall", after=6_000_000)]
    world.lolama("--version")  # the first of all runs waits for its host
    with promises.within(1 + 5, "a pull that stalls once, with a timeout of 1 s"):
        world.fetched(world.pull())


def test_row_13_a_range_that_is_ignored(world: World) -> None:
    world.hub.faults = [
        Fault("close", after=6_000_000),
        Fault("ignore-range"),
    ]
    world.fetched(world.pull())
    assert fetched_again(world) > 0.4  # nothing but the whole could be had


@pytest.mark.parametrize("name", [BIG, "tokenizer.json"])
def test_row_14_a_flipped_bit(world: World, name: str) -> None:
    place = "file" if name == BIG else "resolve"
    after = 5_000_001 if name == BIG else 1
    world.hub.faults = [Fault("flip", place, name=name, after=after)]  # type: ignore[arg-type]
    world.refused(world.pull(), 4, name, "another content", "removed")
    staging = world.snapshot().with_suffix(".partial")
    assert not (staging / name).exists()
    assert not (staging / f"{name}.part").exists()
    world.fetched(world.pull())


def test_row_14_a_flipped_bit_in_what_an_earlier_run_left(world: World) -> None:
    world.break_off(5_000_000)
    part = world.snapshot().with_suffix(".partial") / f"{BIG}.part"
    assert part.stat().st_size == 5_000_000
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    world.hub.faults = []
    world.fetched(world.pull())


@pytest.mark.parametrize("place", ["revision", "tree", "head", "resolve", "file"])
def test_row_15_a_captive_portal(world: World, place: str) -> None:
    world.hub.faults = [Fault("html", place, times=ALWAYS)]  # type: ignore[arg-type]
    outcome = world.pull()
    world.refused(outcome, 4)
    assert ("not a hub" in outcome.err) or ("web page" in outcome.err)


@pytest.mark.parametrize("headers", [("X-Repo-Commit",), ("ETag", "X-Linked-Etag")])
def test_row_16_a_server_that_states_no_commit_or_no_etag(
    world: World, headers: tuple[str, ...]
) -> None:
    for name in ("config.json", BIG):
        fault = Fault("drop-headers", "head", name=name, headers=dict.fromkeys(headers, ""))
        world.hub.faults = [fault]
        world.refused(world.pull(), 4, "not a hub", name)


@pytest.mark.parametrize("etag", ["../../escaped", "/escaped", '"..%2f..%2fescaped"', "a" * 5000])
def test_row_17_a_hostile_etag(world: World, etag: str) -> None:
    headers = {"ETag": etag, "X-Linked-Etag": etag}
    world.hub.faults = [Fault("headers", "head", times=ALWAYS, headers=headers)]
    world.refused(world.pull(), 4, "not a hub", "ETag")
    assert not list(world.home.parent.rglob("*escaped*"))


@pytest.mark.parametrize(
    "path", ["../x", "/x", "C:\\x", "a/../../x", "x\0y", "x" * 300, "a//b", "\ud800", "x\x1b[31m"]
)
def test_row_18_hostile_file_names(world: World, path: str) -> None:
    listing = world.hub.listing[NAME]
    assert isinstance(listing, list)
    listing.append({**listing[0], "path": path})
    world.refused(world.pull(), 3, NAME, "file named")
    assert {p.name for p in world.home.parent.iterdir()} <= {"store", "hf"}


def test_row_19_larger_than_the_free_disk(world: World) -> None:
    listing = world.hub.listing[NAME]
    assert isinstance(listing, list)
    for entry in listing:
        if entry["path"] == BIG:
            entry["size"] = entry["lfs"]["size"] = 2**49
    world.refused(world.pull(), 6, "needs 562,949.95 GB", "free", "LOLAMA_HOME")
    assert world.hub.bytes_sent() == CONFIG_SIZE


def test_row_20_the_disk_fills_in_mid_file(world: World) -> None:
    # No file grows past 4 MB, as on a full disk.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))"
    command = ("pull", "--yes", NAME)
    outcome = world.program.run(*command, env=world.environment(), before=limit)
    world.refused(outcome, 6, os.strerror(errno.EFBIG), "free")
    # With room again it goes on where it stopped.
    world.fetched(world.pull())
    assert fetched_again(world) < 0.5


def test_row_21_killed_and_run_again(world: World) -> None:
    for size in (2_000_000, 5_000_000, 9_000_000):
        process = world.stop_at(size)
        process.kill()
        process.communicate()
        assert not world.snapshot().exists()
    world.fetched(world.pull())
    assert [path.name for path in world.home.iterdir() if path.name != "models"] in ([], ["locks"])
    assert not list((world.home / "locks").iterdir())
    names = {path.name for path in world.snapshot().parent.iterdir()}
    assert names == {world.snapshot().name, "refs.json"}
    ranges = [int(r.range[6:-1]) for r in world.hub.requests if r.place == "file" and r.range]
    assert len(ranges) == 3
    for size, start in zip((2_000_000, 5_000_000, 9_000_000), ranges, strict=True):
        assert size - WRITTEN_AT_ONCE < start <= size


def interrupted(process: Run) -> None:
    """Press Ctrl-C, which ends it with nothing to say."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")


def test_row_22_ctrl_c_in_mid_download(world: World) -> None:
    world.hub.rate = 0.2e6  # a minute for all
    process = world.start()
    until(lambda: world.sent() > 200_000)
    interrupted(process)
    assert not world.snapshot().exists()
    # Nor is a server waited for that has stopped sending: it has as long as the test.
    world.hub.rate, world.hub.timeout = 0, 3600
    process = world.stop_at(6_000_000)
    asked = len(world.hub.requests)
    interrupted(process)
    assert len(world.hub.requests) == asked
    world.fetched(world.pull())
    assert world.sent() <= 1.1 * len(BYTES)


@pytest.mark.promise
def test_row_22_ctrl_c_in_mid_download_ends_it_within_a_second(
    world: World, promises: Promises
) -> None:
    world.hub.rate = 3e6
    process = world.start()
    until(lambda: world.partial() > 2_000_000)
    with promises.within(1, "Ctrl-C in mid download"):
        interrupted(process)
    world.hub.rate = 0
    process = world.stop_at(6_000_000)
    with promises.within(1, "Ctrl-C in a download that stalls"):
        interrupted(process)


def test_row_22_ctrl_c_on_a_terminal_says_how_to_go_on(world: World) -> None:
    world.hub.rate = 3e6
    terminal = Terminal("pull", "--yes", NAME, env=world.environment())
    terminal.wait_for(b"in all")
    terminal.press_ctrl_c()
    assert terminal.end() == 130
    assert "note: what has come is kept; run it again to go on" in " ".join(terminal.text.split())


def test_row_23_two_processes_and_one_model(world: World) -> None:
    world.hub.rate = 10e6
    processes = [world.start() for _ in range(3)]
    for process in processes:
        out, _ = process.communicate()
        assert (process.returncode, out.decode()) == (0, f"{world.snapshot()}\n")
    assert world.is_whole()
    assert [r.sent for r in world.hub.requests if r.place == "file"] == [len(BYTES)]


def test_row_24_the_holder_of_the_lock_is_killed(world: World) -> None:
    first = world.stop_at(3_000_000)
    second = world.start()
    until(lambda: len([r for r in world.hub.requests if r.place == "revision"]) == 2)
    first.kill()
    first.communicate()
    second.communicate()
    assert second.returncode == 0
    assert world.is_whole()


def test_row_25_offline(world: World) -> None:
    offline = {"HF_HUB_OFFLINE": "1"}
    world.refused(world.pull(env=offline), 4, "is not downloaded", "HF_HUB_OFFLINE")
    world.lolama("generate", "-m", NAME, "z", env=offline).refused(4, "is not downloaded")
    world.break_off(3_000_000)
    partly = world.lolama("generate", "-m", NAME, "z", env=offline)
    partly.refused(4, "only partly downloaded", BIG, "missing")
    assert len(world.hub.requests) > 0


def test_row_25_offline_with_the_whole_model(
    published: Path, tmp_path: Path, warm: WarmProgram
) -> None:
    files: dict[str, bytes | Path] = {path.name: path for path in published.iterdir()}
    with StandInHub({NAME: files}) as hub:
        world = World(hub, tmp_path / "store", warm)
        outcome = world.lolama("generate", "--yes", "-m", NAME, "--max-tokens", "3", "z")
        assert (outcome.code, outcome.out) == (0, b"abc")
        before = len(hub.requests)
        for offline in ({"HF_HUB_OFFLINE": "1"}, {}):  # it asks nothing even where it may
            outcome = world.lolama("generate", "-m", NAME, "--max-tokens", "3", "z", env=offline)
            assert (outcome.code, outcome.out, outcome.err) == (0, b"abc", "")
        assert len(hub.requests) == before


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def test_row_26_a_dead_proxy(world: World) -> None:
    address = f"http://user:secret@127.0.0.1:{closed_port()}"
    outcome = world.pull(env={"HTTP_PROXY": address, "http_proxy": address, "NO_PROXY": ""})
    world.refused(outcome, 4, "proxy", address.replace("user:secret@", ""))
    assert "secret" not in outcome.err


def test_row_26_no_such_host_and_nobody_there(world: World) -> None:
    world.refused(world.pull(env={"HF_ENDPOINT": "http://hub.invalid"}), 4, "hub.invalid")
    nobody = f"http://127.0.0.1:{closed_port()}"
    world.refused(world.pull(env={"HF_ENDPOINT": nobody}), 4, nobody, "nobody listens")
    world.refused(world.pull(env={"HF_ENDPOINT": "ftp://x"}), 4, "HF_ENDPOINT")


@pytest.mark.parametrize("name", ["../etc", "a b/c", "a/b/c", "", "x" * 300 + "/y", "a--b/c"])
def test_row_27_a_bad_id(world: World, name: str) -> None:
    for command in (("pull", "--yes", name), ("rm", name), ("generate", "-m", name, "z")):
        world.refused(world.lolama(*command), 2)
    assert world.hub.requests == []


def ask(world: World, keys: bytes) -> tuple[int, str, str]:
    """Run ``lolama pull`` on a terminal and type; exit code, standard output, what the terminal shows."""
    ours, theirs = pty.openpty()
    read, write = os.pipe()
    pid = world.program.begin((theirs, write, theirs), ("pull", NAME), world.environment())
    os.close(theirs)
    os.close(write)
    shown = b""
    while b"[y/N] " not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, keys)
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    with open(read, "rb") as out:
        return world.program.wait(pid), out.read().decode(), shown.decode()


@pytest.mark.parametrize("keys", [b"n\n", b"\n", b"\x04", b"yess\n"])
def test_row_27_the_question_answered_with_no(world: World, keys: bytes) -> None:
    code, out, shown = ask(world, keys)
    assert (code, out) == (2, "")
    assert f"Download {NAME} (12 MB in 2 files)? [y/N] " in shown
    assert "error:" in shown and "owner/model: was not fetched" in shown
    assert world.hub.bytes_sent() == CONFIG_SIZE
    assert not world.home.exists()


def test_row_27_the_question_answered_with_yes(world: World) -> None:
    code, out, shown = ask(world, b"y\n")
    assert (code, out) == (0, f"{world.snapshot()}\n")
    assert "in all" in shown
    assert world.is_whole()


def test_row_27_without_a_terminal_nobody_is_asked(world: World) -> None:
    for command in (("pull", NAME), ("generate", "-m", NAME, "z")):
        world.refused(world.lolama(*command), 2, NAME, "12 MB in 2 files", "--yes")
    assert world.hub.bytes_sent() == 2 * CONFIG_SIZE


def test_row_27_the_python_interface_asks_through_confirm(
    published: Path, tmp_path: Path, warm: WarmProgram
) -> None:
    program = (
        "import sys\n"
        "from lolama import load_model, load_tokenizer\n"
        "from lolama_core.protocols.errors import UsageError\n"
        "for confirm in (None, False, lambda plan: plan.bytes_to_fetch < 9):\n"
        "    try:\n"
        f"        load_tokenizer({NAME!r}, confirm=confirm)\n"
        "    except UsageError as error:\n"
        "        print(error)\n"
        f"print(type(load_model({NAME!r}, confirm=True)).__name__)\n"
        f"print(load_tokenizer({NAME!r}).vocab_size)\n"
    )
    files: dict[str, bytes | Path] = {path.name: path for path in published.iterdir()}
    with StandInHub({NAME: files}) as hub:
        world = World(hub, tmp_path / "store", warm)
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment(world.environment()),
        )
    unasked, refused, declined, loaded, size = done.stdout.splitlines()
    assert "is to be downloaded (" in unasked
    assert "confirm=True" in unasked
    assert "MB in 3 files" in unasked
    assert refused == declined
    assert "was not fetched" in refused
    assert (loaded, int(size) > 200, done.stderr) == ("Llama", True, "")


def test_what_is_built_in_is_not_pulled(world: World) -> None:
    world.lolama("pull", "demo").refused(2, "demo", "built in")


def test_rm_and_gc(world: World) -> None:
    world.lolama("rm", NAME).refused(2, "not in the store")
    world.pull()
    listed = world.lolama("models").out.decode().splitlines()[-1].split("\t")
    assert listed[0] == NAME
    assert int(listed[8]) > len(BYTES)
    old = world.snapshot()
    # The same weights under a new commit are not fetched again.
    files = world.hub.repos[NAME].files
    world.hub.listing.clear()
    world.hub.put(NAME, {**files, "config.json": SMALL_FILES["config.json"] + b"\n"})
    before = world.hub.bytes_sent()
    world.fetched(world.pull())
    assert world.hub.bytes_sent() - before < 1000
    assert old.exists()
    outcome = world.lolama("gc")
    assert (outcome.code, outcome.out) == (0, b"")
    assert "12 MB freed" in outcome.err
    assert not old.exists()
    assert world.is_whole()
    world.hub.put(NAME, {**files, BIG: BYTES[::-1]})
    world.break_off(3_000_000)
    assert world.lolama("gc").err == "3 MB freed\n"
    outcome = world.lolama("rm", NAME)
    assert (outcome.code, outcome.err) == (0, "12 MB freed\n")
    assert not list((world.home / "models").iterdir())


def test_a_model_in_hugging_faces_own_cache_is_used_as_it_is(
    published: Path, tmp_path: Path, warm: WarmProgram
) -> None:
    files: dict[str, bytes | Path] = {path.name: path for path in published.iterdir()}
    with StandInHub({NAME: files}) as hub:
        world = World(hub, tmp_path / "store", warm)
        cache = tmp_path / "hf" / "hub" / "models--owner--model"
        commit = hub.repos[NAME].commit
        (cache / "blobs").mkdir(parents=True)
        (cache / "snapshots" / commit).mkdir(parents=True)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(commit)
        for name, path in files.items():
            assert isinstance(path, Path)
            blob = cache / "blobs" / hub.repos[NAME].digest(name)
            blob.write_bytes(path.read_bytes())
            (cache / "snapshots" / commit / name).symlink_to(f"../../blobs/{blob.name}")
        outcome = world.lolama("generate", "-m", NAME, "--max-tokens", "3", "z")
        assert (outcome.code, outcome.out, outcome.err) == (0, b"abc", "")
        listed = json.loads(world.lolama("models", "--json").out)["models"][-1]
        stored = listed["stored"]
        assert (listed["name"], stored["revision"], stored["shared"]) == (NAME, commit, True)
        assert stored["bytes"] == sum(blob.stat().st_size for blob in (cache / "blobs").iterdir())
        world.lolama("rm", NAME).refused(2, "Hugging Face's own cache", f"hf cache rm model/{NAME}")
        assert hub.requests == []
        # One that is not whole is fetched, but only what is not there; nothing is asked where nothing is.
        outcome = world.lolama("pull", NAME)
        world.fetched(outcome)
        assert hub.bytes_sent() == 0
        listed = json.loads(world.lolama("models", "--json").out)["models"][-1]
        assert (listed["name"], listed["stored"]["shared"]) == (NAME, False)
        world.lolama("rm", NAME)
        (cache / "blobs" / hub.repos[NAME].digest("config.json")).unlink()
        world.fetched(world.pull())
        assert hub.bytes_sent() == (published / "config.json").stat().st_size


def test_an_alias_of_ones_own(world: World, tmp_path: Path) -> None:
    config = tmp_path / "config" / "lolama"
    config.mkdir(parents=True)
    (config / "aliases.toml").write_text(f'[mine]\nrepo = "{NAME}"\nparameters = "3B"\n')
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    world.fetched(world.lolama("pull", "--yes", "mine", env=env))
    assert "mine\t3B\ttext" in world.lolama("models", env=env).out.decode()
    (config / "aliases.toml").write_text('[mine]\nrepo = "../x"\n')
    world.lolama("models", env=env).refused(2, "aliases.toml", "mine.repo")


def test_convert_and_use_the_result(published: Path, tmp_path: Path, warm: WarmProgram) -> None:
    target = tmp_path / "mine"
    outcome = warm.run("convert", published, target)
    assert (outcome.code, outcome.out.decode(), outcome.err) == (0, f"{target}\n", "")
    assert json.loads((target / "config.json").read_text())["format"] == "lolama"
    assert warm.run("generate", "-m", target, "--max-tokens", "3", "z").out == b"abc"
    warm.run("convert", published, target).refused(2, str(target), "exists already")
    warm.run("convert", published, tmp_path / "no" / "such").refused(2)


SECRETS = "user:SECRET@"


def with_password(address: str) -> str:
    return address.replace("://", f"://{SECRETS}", 1)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *(
            (401, "GatedRepo"),
            (403, "GatedRepo"),
            (404, "RevisionNotFound"),
            (404, "EntryNotFound"),
        ),
        *((404, "RepoNotFound"), (400, ""), (401, ""), (403, ""), (404, ""), (503, "")),
    ],
)
def test_row_112_the_password_of_the_endpoint_is_never_shown(
    world: World, status: int, code: str
) -> None:
    headers = {"X-Error-Code": code} if code else {}
    if status == 503:
        headers["Retry-After"] = "3600"
    world.hub.faults = [Fault("status", "head", times=ALWAYS, status=status, headers=headers)]
    outcome = world.pull(env={"HF_ENDPOINT": with_password(world.hub.endpoint)})
    assert "SECRET" not in outcome.err
    outcome.refused(5 if outcome.code == 5 else 4)


@pytest.mark.parametrize(
    "settings",
    [
        {"HF_ENDPOINT": "http://user:SECRET@hub.invalid"},
        {"HF_ENDPOINT": "http://user:SECRET@[::1"},
        {"HF_ENDPOINT": "http://user:SECRET@h:99999999"},
        {"HF_ENDPOINT": "http://user:SECRET"},
        {"HF_ENDPOINT": "ftp://user:SECRET@h"},
        {"HTTP_PROXY": "http://user:SECRET@127.0.0.1:9", "NO_PROXY": ""},
        {"HTTP_PROXY": "user:SECRET@127.0.0.1:9", "NO_PROXY": ""},
        {"HTTP_PROXY": "http://user:SECRET@[::1", "NO_PROXY": ""},
        {"HTTP_PROXY": "http://user:SECRET@h:1:1", "NO_PROXY": ""},
        {"HTTP_PROXY": "ftp://user:SECRET@h", "NO_PROXY": ""},
        {"HTTP_PROXY": "socks5://user:SECRET@127.0.0.1:9", "NO_PROXY": ""},
    ],
    ids=lambda settings: " ".join(settings.values()),
)
def test_rows_112_and_117_addresses_of_the_environment(
    world: World, settings: dict[str, str]
) -> None:
    outcome = world.pull(env=settings)
    outcome.refused(4)
    assert "SECRET" not in outcome.err


@pytest.mark.parametrize(
    "endpoint", ["http://user:SECRET", "http://user:SECRET@[::1", "http://hub.invalid"]
)
def test_rows_112_and_117_an_endpoint_that_is_there_from_the_first_import_on(
    world: World, endpoint: str
) -> None:
    done = subprocess.run(
        (*COMMAND, "--debug", "pull", "--yes", NAME),
        env=environment(world.environment({"HF_ENDPOINT": endpoint})),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert "SECRET" not in done.stderr


NO_ADDRESSES = (
    "http://[::1",
    "http://x:99999999/",
    "http://localhost:abc/",
    "http://" + "a" * 300 + "/",
    "http://a..b/",
    "ftp://user:SECRET@h/",
    "http://user:SECRET@[/",
    "http://user:SECRET@h:port/",
)


@pytest.mark.parametrize("address", NO_ADDRESSES)
@pytest.mark.parametrize("place", ["head", "resolve"])
def test_row_117_a_redirect_to_what_is_no_address(world: World, address: str, place: Place) -> None:
    world.hub.faults = [
        Fault("status", place, times=ALWAYS, status=302, headers={"Location": address})
    ]
    outcome = world.pull()
    # httpx takes this for a host with an odd name, which is as well.
    odd = place == "resolve" and address.endswith("@[/")
    outcome.refused(4, "cannot reach" if odd else "what answers is not a hub")
    assert "SECRET" not in outcome.err


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_row_117_a_list_that_goes_on_at_what_is_no_address(world: World, address: str) -> None:
    listing = json.dumps([list_entry(world.hub.repos[NAME], "config.json")]).encode()
    fault = Fault("body", "tree", times=ALWAYS, body=listing)
    fault.headers = {"Link": f'<{address}>; rel="next"'}
    world.hub.faults = [fault]
    outcome = world.pull()
    outcome.refused(4, "what answers is not a hub")
    assert "SECRET" not in outcome.err
