"""What a tree keeps is the same after it was saved and restored, or the file is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import stat
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lolama_core import Llama
from lolama_core.files.safetensors_reader import SafetensorsFile
from lolama_core.files.safetensors_writer import SafetensorsWriter
from lolama_core.model.kv_cache import own_cache
from lolama_core.protocols.errors import LolamaError, ModelError, ResourceError, UsageError
from lolama_core.protocols.types import PromptKey
from lolama_core.runtime.int8_cache import CacheDtype
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import PAGE, Pages
from lolama_core.runtime.prefix_tree import PrefixTree
from lolama_core.runtime.runner import runner_of
from lolama_core.runtime.saved_prefixes import restore_prefixes, save_prefixes

LIMIT = 16
SIZES = {"num_layers": 1, "max_seq_len": 512}


class Memory:
    """Pages and a tree over them, and texts that a model runs."""

    def __init__(
        self, model: Llama, limit: int = LIMIT, cache_dtype: CacheDtype | None = None
    ) -> None:
        self.model = model
        self.pages = Pages(own_cache(model.make_cache(1, 1)), limit, cache_dtype=cache_dtype)
        self.tree = PrefixTree(self.pages)
        self.rows: list[Row] = []

    @torch.inference_mode()
    def run(self, ids: Sequence[int], keys: Sequence[PromptKey] | None = None) -> torch.Tensor:
        """Logits of the last position; what is known is not run, and all is kept."""
        keys, row = keys or ids, Row()
        self.tree.begin(row, keys[:-1])
        cache, runner = PagedCache(self.pages, [row]), runner_of(self.model)
        embeds = runner.embed(torch.tensor([ids[row.length :]]))
        logits = runner.forward_embeds(embeds, cache)
        cache.advance([embeds.shape[1]])
        self.tree.keep(row, keys)
        self.pages.give_back(row.pages)
        return logits

    def save(self, path: Path) -> None:
        save_prefixes(self.tree, self.pages, path, self.model)

    def restore(self, path: Path) -> int:
        return restore_prefixes(self.tree, self.pages, path, self.model)


def text(*blocks: int, last: int = 0) -> list[int]:
    """A page of ids for each block, and some of another."""
    return [id for block in blocks for id in range(block, block + PAGE)] + [7] * last


FIRST, SECOND = text(1, 50, 100, last=20), text(1, 60, last=11)


@pytest.fixture
def model(tiny_llama: Callable[..., Llama]) -> Llama:
    return tiny_llama(**SIZES)


@pytest.fixture
def saved(model: Llama, tmp_path: Path) -> tuple[Path, Memory]:
    memory, path = Memory(model), tmp_path / "prompts.cache"
    memory.run(FIRST)
    memory.run(SECOND)
    memory.save(path)
    return path, memory


def test_texts_come_back_bit_for_bit(saved: tuple[Path, Memory], model: Llama) -> None:
    path, before = saved
    after = Memory(model)
    # Two of FIRST's pages are its own, one is shared by both, and the last ones are parts.
    assert after.restore(path) == 3 * PAGE + 20 + PAGE + 11
    assert after.pages.idle == 6 == before.pages.idle
    assert after.pages.used_bytes == 0 and after.pages.left == LIMIT
    for ids in (FIRST, SECOND, [*FIRST, 3, 3, 3], text(1, 50, last=4)):
        assert after.tree.known(ids) == before.tree.known(ids)
        assert torch.equal(after.run(ids), before.run(ids))
    row = Row()
    after.tree.begin(row, FIRST)
    assert row.length == len(FIRST)


def test_codes_and_scales_come_back_bit_for_bit(model: Llama, tmp_path: Path) -> None:
    before, path = Memory(model, cache_dtype="int8"), tmp_path / "c"
    before.run(FIRST)
    before.run(SECOND)
    before.save(path)
    after = Memory(model, cache_dtype="int8")
    assert after.restore(path) == 3 * PAGE + 20 + PAGE + 11
    for ids in (FIRST, SECOND, [*FIRST, 3, 3, 3], text(1, 50, last=4)):
        assert after.tree.known(ids) == before.tree.known(ids)
        assert torch.equal(after.run(ids), before.run(ids))


def test_row_295_another_cache_dtype_is_refused(model: Llama, tmp_path: Path) -> None:
    """With what to do, and nothing is taken from the file. One that nobody writes is damage."""
    memories = {dtype: Memory(model, cache_dtype=dtype) for dtype in (None, "int8")}
    for dtype, memory in memories.items():
        memory.run(FIRST)
        memory.save(tmp_path / str(dtype))
    for dtype, other, reason in (
        (None, "int8", "holds no keys and values in int8; leave out `cache_dtype`"),
        ("int8", None, 'holds keys and values in int8; give `cache_dtype="int8"`'),
    ):
        after, path = Memory(model, cache_dtype=other), tmp_path / str(dtype)  # type: ignore[arg-type]
        with pytest.raises(UsageError) as raised:
            after.restore(path)
        assert str(raised.value) == f"{path}: {reason}, or give another name"
        assert after.pages.idle == 0 and after.pages.left == LIMIT
    for number, wrong in enumerate(("int4", 8, ["int8"])):
        path = tmp_path / str(number)
        rewritten(tmp_path / "int8", path, lambda described: {**described, "cache_dtype": wrong})  # noqa: B023
        with pytest.raises(ModelError, match="has the cache dtype"):
            Memory(model, cache_dtype="int8").restore(path)


def test_row_295_a_scale_that_is_no_number_is_damage(model: Llama, tmp_path: Path) -> None:
    memory, path = Memory(model, cache_dtype="int8"), tmp_path / "c"
    memory.run(FIRST)
    memory.pages.keys[0][memory.tree.pages[0], 0, 3, -1] = 0x7F  # the upper byte of a bfloat16
    memory.pages.keys[0][memory.tree.pages[0], 0, 3, -2] = -1
    memory.save(path)
    with pytest.raises(ModelError, match="NaN"):
        Memory(model, cache_dtype="int8").restore(path)


def test_only_its_owner_may_read_the_file(saved: tuple[Path, Memory]) -> None:
    path, memory = saved
    path.chmod(0o644)
    memory.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_nothing_is_written_that_no_text_says(model: Llama, tmp_path: Path) -> None:
    """What was in a page before, or stands behind what is kept, is nobody's."""
    memory = Memory(model)
    for part in (memory.pages.keys, memory.pages.values):
        for layer in part:
            layer.fill_(77.0)
    memory.run(text(1, last=20))
    memory.save(tmp_path / "c")
    file = SafetensorsFile(tmp_path / "c")
    for name in ("layers.0.keys", "layers.0.values"):
        assert not (file.read(name) == 77.0).any()


@pytest.mark.parametrize(
    "before", [[FIRST], [SECOND, text(9, 9)], [text(1, last=9)], [text(1, 60, 3)]]
)
def test_what_a_tree_has_already_stays(
    saved: tuple[Path, Memory], model: Llama, before: list[list[int]]
) -> None:
    path, _ = saved
    after, alone = Memory(model), Memory(model)
    expected = [alone.run([*ids, 5]) for ids in (*before, FIRST, SECOND)]
    for ids in before:
        after.run(ids)
    after.restore(path)
    after.restore(path)  # twice is once
    for ids, logits in zip((*before, FIRST, SECOND), expected, strict=True):
        row = Row()
        after.tree.begin(row, ids)
        assert row.length == len(ids)
        after.pages.give_back(row.pages)
        torch.testing.assert_close(after.run([*ids, 5]), logits, atol=1e-5, rtol=0)
    assert after.pages.left == LIMIT and after.pages.used_bytes == 0


@pytest.mark.parametrize("limit", range(1, 8))
def test_what_was_used_last_comes_first_where_there_is_little_memory(
    saved: tuple[Path, Memory], model: Llama, limit: int
) -> None:
    path, _ = saved
    after = Memory(model, limit)
    after.restore(path)
    assert after.pages.left == limit
    # All of SECOND comes first: two pages, and a part of a third.
    assert after.tree.known(SECOND) == min(limit, 2) * PAGE
    assert after.tree.known(FIRST) == min(1 + max(0, limit - 3), 3) * PAGE


def test_what_rows_have_is_not_taken(saved: tuple[Path, Memory], model: Llama) -> None:
    path, _ = saved
    after = Memory(model)
    mine = after.pages.take(LIMIT - 2)
    kept = after.run(text(200))
    after.restore(path)
    assert after.tree.known(SECOND) == PAGE
    torch.testing.assert_close(after.run(text(200)), kept, atol=1e-5, rtol=0)
    after.pages.give_back(mine)
    assert after.pages.left == LIMIT


def test_the_order_of_use_is_kept(model: Llama, tmp_path: Path) -> None:
    memory, path = Memory(model), tmp_path / "c"
    texts = [text(i) for i in (10, 20, 30, 40)]
    for ids in (*texts, texts[0]):
        memory.run(ids)
    memory.save(path)
    after = Memory(model, 4)
    after.restore(path)
    after.pages.take(2)
    assert [after.tree.known(ids) for ids in texts] == [PAGE, 0, 0, PAGE]


PICTURE = [(b"\x00\xffhash", n) for n in range(PAGE)]


@pytest.mark.parametrize(
    ("keys", "held"),
    [
        (PICTURE, PAGE),
        ([None, True, -5, 2**62, "日本\n\0", b"", (), ("a", (b"b", (None, 0)))] * 4, PAGE),
        ([1] * 9 + [2.5] * 23, 9),
        ([1] * 20 + [frozenset([1])] + [1] * 11, 20),
        ([1] * 21 + ["\ud800"] + [1] * 10, 21),
        ([1] * 22 + [2**63] + [1] * 9, 22),
        ([object()] + [1] * 31, 0),
    ],
)
def test_keys_come_back_exactly_or_not_at_all(
    model: Llama, tmp_path: Path, keys: list[PromptKey], held: int
) -> None:
    memory, after = Memory(model), Memory(model)
    whole = [*keys, *range(PAGE)]
    memory.run([1] * len(whole), whole)
    memory.save(tmp_path / "c")
    after.restore(tmp_path / "c")
    row = Row()
    after.tree.begin(row, whole)
    assert row.length == (2 * PAGE if held == PAGE else held)
    kept = [key for page in after.tree.kept() for key in page.keys]
    assert kept == whole[: row.length]
    assert [type(key) for key in kept] == [type(key) for key in whole[: row.length]]


def test_of_too_many_keys_the_last_used_are_written(
    model: Llama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lolama_core.runtime.saved_prefixes.MAX_JSON_BYTES", 2**20 + 300)
    memory, after = Memory(model), Memory(model)
    for i in (10, 20, 30):
        memory.run(text(i))
    memory.save(tmp_path / "c")
    after.restore(tmp_path / "c")
    assert [after.tree.known(text(i)) for i in (10, 20, 30)] == [0, PAGE, PAGE]


def test_a_file_is_read_tensor_by_tensor(
    tiny_llama: Callable[..., Llama], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the pages it takes as much memory as one layer, whatever its size."""
    memory, path = Memory(tiny_llama(num_layers=6)), tmp_path / "c"
    memory.run(text(1))
    memory.save(path)
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    read, most = SafetensorsFile.read, 0

    def watched(self: SafetensorsFile, key: str) -> torch.Tensor:
        nonlocal most
        tensor = read(self, key)
        alive.add(tensor)
        most = max(most, len(alive))
        return tensor

    monkeypatch.setattr(SafetensorsFile, "read", watched)
    assert memory.restore(path) == PAGE
    assert most == 2


def test_an_empty_tree_is_saved_and_restored(model: Llama, tmp_path: Path) -> None:
    Memory(model).save(tmp_path / "c")
    assert Memory(model).restore(tmp_path / "c") == 0


def others(make: Callable[..., Llama]) -> Iterator[tuple[str, Llama]]:
    yield "other weights", make(seed=1, **SIZES)
    yield "other sizes", make(**{**SIZES, "num_layers": 2})
    yield "other dtype", make(**SIZES).bfloat16()
    yield "other rope", make(**SIZES, rope_base=20000.0)
    yield "other window", make(**SIZES, sliding_window=16)
    yield "other eps", make(**SIZES, eps=1e-6)
    changed = make(**SIZES)
    changed.get_parameter("layers.0.attention.k_proj.weight")[5, 3] += 0.01
    yield "one number of a weight", changed
    changed = make(**SIZES)
    weight = changed.get_parameter("layers.0.feed_forward.w_up.weight")
    weight.data = weight.data[torch.tensor([1, 0, *range(2, len(weight))])]
    yield "two rows in each other's place", changed
    changed = make(**SIZES)
    vars(changed.get_submodule("layers.0.attention_norm"))["eps"] = 0.1
    yield "a number of a module", changed


def test_row_280_another_model_is_refused(
    saved: tuple[Path, Memory], tiny_llama: Callable[..., Llama]
) -> None:
    path, _ = saved
    for name, other in others(tiny_llama):
        memory = Memory(other)
        with pytest.raises(UsageError, match="is of another model") as raised:
            memory.restore(path)
        assert str(path) in str(raised.value) and "remove the file" in str(raised.value), name
        assert memory.pages.idle == 0 and memory.pages.left == LIMIT
    # The same one, loaded anew, and back in the dtype that it had.
    assert Memory(tiny_llama(**SIZES)).restore(path) > 0
    assert Memory(tiny_llama(**SIZES).double().float()).restore(path) > 0


def test_row_280_a_model_that_nobody_can_tell_from_another_is_refused(
    saved: tuple[Path, Memory], tiny_llama: Callable[..., Llama]
) -> None:
    path, _ = saved
    hooked = tiny_llama(**SIZES)
    hooked.layers[0].register_forward_hook(lambda *_: None)
    replaced = tiny_llama(**SIZES)
    replaced.norm.forward = lambda x: x  # type: ignore[method-assign]
    for model, place in ((hooked, "layers.0"), (replaced, "norm")):
        memory = Memory(model)
        memory.run(FIRST)
        for act in (memory.save, memory.restore):
            with pytest.raises(UsageError, match=f"cannot be told from another one: {place} has"):
                act(path)


def test_row_281_a_file_that_is_none_is_refused(
    model: Llama, tmp_path: Path, saved: tuple[Path, Memory]
) -> None:
    def weights(path: Path) -> None:
        with open(path, "x+b", buffering=0) as file:
            writer = SafetensorsWriter(file)
            writer.add("norm.weight", torch.ones(4))
            writer.finish()

    makers: dict[str, Callable[[Path], object]] = {
        "does not exist": lambda path: None,
        "not a regular file": Path.mkdir,
        "is empty": Path.touch,
        "web page": lambda path: path.write_text("<!doctype html>"),
        "is no prompt cache": weights,
    }
    for number, (reason, make) in enumerate(makers.items()):
        path = tmp_path / str(number)
        make(path)
        with pytest.raises(ModelError, match=reason) as raised:
            Memory(model).restore(path)
        assert "remove the file to begin anew" in str(raised.value)


def rewritten(path: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The same file with something else in ``texts``, and right digests."""
    file = SafetensorsFile(path)
    described = json.loads(bytes(file.read("texts").tolist()))
    content = json.dumps(change(described) or described).encode()
    tensors = {name: file.read(name) for name in file.header()}
    tensors["texts"] = torch.tensor(list(content), dtype=torch.uint8)
    tensors["digest"] = torch.tensor(list(hashlib.sha256(content).digest()), dtype=torch.uint8)
    with open(target, "x+b", buffering=0) as out:
        writer = SafetensorsWriter(out)
        for name, tensor in tensors.items():
            writer.add(name, tensor)
        writer.finish()


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "schema": lambda d: d.update(schema="lolama.prompt_cache/2"),
    "no schema": lambda d: d.pop("schema"),
    "a list": lambda d: [1],
    "no pages": lambda d: d.pop("pages"),
    "fewer pages": lambda d: d["pages"].pop(),
    "more pages": lambda d: d["pages"].append([None, [1]]),
    "a page that follows itself": lambda d: d["pages"][1].__setitem__(0, 1),
    "a page that follows a later one": lambda d: d["pages"][0].__setitem__(0, 1),
    "a page that follows a part": lambda d: d["pages"][-1].__setitem__(0, 2),
    "a page that follows -1": lambda d: d["pages"][1].__setitem__(0, -1),
    "a page that follows true": lambda d: d["pages"][2].__setitem__(0, True),
    "a page without keys": lambda d: d["pages"][0].__setitem__(1, []),
    "a page of 33 keys": lambda d: d["pages"][0][1].append(1),
    "a page that is a number": lambda d: d["pages"].__setitem__(0, 1),
    "a page of three": lambda d: d["pages"][0].append(1),
    "a fraction": lambda d: d["pages"][0][1].__setitem__(0, 1.5),
    "an object": lambda d: d["pages"][0][1].__setitem__(0, {"bytes": "00", "x": 1}),
    "no bytes": lambda d: d["pages"][0][1].__setitem__(0, {"bytes": "0"}),
    "bytes of a number": lambda d: d["pages"][0][1].__setitem__(0, {"bytes": 5}),
    "no sums": lambda d: d.pop("sums"),
    "sums of others": lambda d: d["sums"].popitem(),
    "a wrong sum": lambda d: d["sums"].update({"layers.0.keys": "00"}),
    "a sum that is no text": lambda d: d["sums"].update({"layers.0.values": [{}]}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_row_281_texts_that_make_no_sense_are_refused(
    saved: tuple[Path, Memory], model: Llama, what: str
) -> None:
    path, _ = saved
    target = path.with_name("changed")
    rewritten(path, target, CHANGES[what])
    memory = Memory(model)
    with pytest.raises(ModelError) as raised:
        memory.restore(target)
    assert str(raised.value).isprintable()
    assert memory.pages.idle == 0 and memory.pages.left == LIMIT


def test_row_281_a_damaged_file_is_refused_and_nothing_is_taken(
    saved: tuple[Path, Memory], model: Llama
) -> None:
    """Whatever byte is changed, cut out or put in: what is accepted says the same."""
    path, before = saved
    data, chance = path.read_bytes(), random.Random(5)
    header = 8 + int.from_bytes(data[:8], "little")
    expected = before.run([*FIRST, 5])
    refused = 0
    for number in range(400):
        damaged = bytearray(data)
        # Most of the header is spaces, and most of the file are keys and values.
        part = chance.choice([400, header, len(data), -3000])
        place = chance.randrange(part) if part > 0 else len(data) - chance.randrange(-part)
        match number % 5:
            case 0:
                damaged[place % len(data)] ^= 1 << chance.randrange(8)
            case 1:
                del damaged[place:]
            case 2:
                del damaged[place : place + chance.randint(1, 9)]
            case 3:
                damaged[place:place] = chance.randbytes(chance.randint(1, 9))
            case _:
                damaged[place : place + 8] = chance.randbytes(8)
        path.write_bytes(damaged)
        memory, message = Memory(model), ""
        try:
            memory.restore(path)
        except LolamaError as error:
            message = str(error)
        assert message.isprintable(), number
        if message:
            refused += 1
            assert (memory.pages.idle, memory.pages.left) == (0, LIMIT), number
        else:
            assert torch.equal(memory.run([*FIRST, 5]), expected), number
    assert refused > 300


def test_row_281_values_that_are_not_finite_are_refused(
    saved: tuple[Path, Memory], model: Llama, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = saved
    before.pages.values[0][:] = float("nan")
    before.save(path)
    with pytest.raises(ModelError, match="NaN"):
        Memory(model).restore(path)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, ResourceError), (errno.EACCES, UsageError)]
)
def test_row_282_a_failed_write_leaves_the_old_file(
    saved: tuple[Path, Memory],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[LolamaError],
) -> None:
    path, memory = saved
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    memory.run(text(300))
    with pytest.raises(kind, match="cannot be written") as raised:
        memory.save(path)
    assert str(path) in str(raised.value)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("place", [".", "/dev/null", "missing/c"])
def test_row_282_a_place_for_no_file_is_refused(saved: tuple[Path, Memory], place: str) -> None:
    path, memory = saved
    with pytest.raises(UsageError) as raised:
        memory.save(path.parent / place)
    assert str(raised.value).isprintable()
    assert os.path.exists("/dev/null") and not os.path.isfile("/dev/null")
