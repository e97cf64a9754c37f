"""Rows that begin alike share pages, whatever is kept, shared, copied and given up."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lolama_core import KVCache, Llama, LlamaConfig
from lolama_core.runtime.paged_cache import PagedCache, Row
from lolama_core.runtime.pages import PAGE, NoPages, Pages
from lolama_core.runtime.prefix_tree import PrefixTree
from lolama_core.runtime.saved_prefixes import restore_prefixes, save_prefixes

LIMIT = 14
SIZES = {"vocab_size": 3, "d_model": 2, "num_heads": 1, "num_layers": 1, "hidden_dim": 2}
MODEL = Llama(LlamaConfig(**SIZES))  # type: ignore[arg-type]


def make_pages(limit: int = LIMIT) -> Pages:
    like = KVCache(num_layers=1, batch_size=1, num_kv_heads=1, capacity=1, head_dim=2)
    return Pages(like, limit, first=3)


def number(keys: list[int]) -> float:
    """What a model makes of a position depends on all before it, too."""
    return float(hash(tuple(keys)) % 1_000_003)


@dataclass(eq=False)
class Text:
    keys: list[int]
    row: Row = field(default_factory=Row)


def write(pages: Pages, text: Text) -> None:
    """Run all of its positions that are not known, as far as there is memory."""
    cache = PagedCache(pages, [text.row])
    first, count = text.row.length, len(text.keys) - text.row.length
    slots = cache.reserve([count], count)
    numbers = [number(text.keys[: place + 1]) for place in range(first, first + count)]
    new = torch.tensor(numbers)[None, None, :, None].expand(1, 1, count, 2)
    cache.update(0, new, -new, slots)
    cache.advance([count])


def assert_holds(pages: Pages, text: Text) -> None:
    own = pages.keys[0][text.row.pages].transpose(0, 1).flatten(1, 2)[0, : text.row.length, 0]
    expected = [number(text.keys[: place + 1]) for place in range(text.row.length)]
    assert own.tolist() == expected


# Texts of blocks of a page each, and a part of one: they part at the ends of pages and within them.
TEXTS = st.builds(
    lambda blocks, more, last: [i for block in blocks for i in [block] * PAGE] + [more] * last,
    st.lists(st.integers(0, 1), max_size=4),
    st.integers(0, 1),
    st.integers(1, PAGE),
)


class TreeAgainstContents(RuleBasedStateMachine):
    """Every row holds what its own text says, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = make_pages()
        self.tree = PrefixTree(self.pages)
        self.texts: list[Text] = []
        handle, name = tempfile.mkstemp()
        os.close(handle)
        self.path = Path(name)

    @rule(keys=TEXTS)
    def start(self, keys: list[int]) -> None:
        text = Text(keys)
        try:
            self.tree.begin(text.row, keys[:-1])
            assert text.row.length <= len(keys) - 1
            assert_holds(self.pages, text)
            write(self.pages, text)
        except NoPages:
            self.pages.give_back(text.row.pages)
            return
        self.texts.append(text)

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), more=st.lists(st.integers(0, 2), min_size=1, max_size=40))
    def grow(self, data: st.DataObject, more: list[int]) -> None:
        text = data.draw(st.sampled_from(self.texts))
        before = len(text.keys)
        text.keys += more
        try:
            write(self.pages, text)
        except NoPages:
            del text.keys[before:]

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        text = data.draw(st.sampled_from(self.texts))
        self.tree.keep(text.row, text.keys)
        assert self.tree.known(text.keys) == text.row.length // PAGE * PAGE

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), keep=st.booleans())
    def end(self, data: st.DataObject, keep: bool) -> None:
        text = data.draw(st.sampled_from(self.texts))
        self.texts.remove(text)
        if keep:
            self.tree.keep(text.row, text.keys)
        self.pages.give_back(text.row.pages)
        if keep:  # nothing was asked for since
            again = Text(text.keys)
            self.tree.begin(again.row, again.keys)
            # With one page left that may be the one to copy, and then there is no copy.
            assert text.row.length - again.row.length < (8 if self.pages.left > 1 else PAGE)
            assert_holds(self.pages, again)
            self.pages.give_back(again.row.pages)

    @rule()
    def clear(self) -> None:
        self.tree.clear()
        assert self.pages.idle == 0

    @rule()
    def save_and_restore(self) -> None:
        """Another process finds what this one knows, and so does this one once it has forgotten all."""
        save_prefixes(self.tree, self.pages, self.path, MODEL)
        pages = make_pages()
        other = PrefixTree(pages)
        restore_prefixes(other, pages, self.path, MODEL)
        assert [(one.parent, one.keys) for one in other.kept()] == [
            (one.parent, one.keys) for one in self.tree.kept()
        ]
        for text in self.texts:
            assert other.known(text.keys) == self.tree.known(text.keys)
            found = Text(text.keys)
            other.begin(found.row, found.keys)
            assert_holds(pages, found)
            pages.give_back(found.row.pages)
        assert pages.left == LIMIT
        self.tree.clear()
        restore_prefixes(self.tree, self.pages, self.path, MODEL)

    def teardown(self) -> None:
        self.path.unlink(missing_ok=True)

    @invariant()
    def rows_hold_their_texts(self) -> None:
        for text in self.texts:
            assert_holds(self.pages, text)

    @invariant()
    def pages_are_had_or_left(self) -> None:
        had = {page for text in self.texts for page in text.row.pages}
        assert self.pages.left == LIMIT - len(had)
        assert self.pages.used_bytes == len(had) * self.pages.page_bytes


TreeAgainstContents.TestCase.settings = settings(max_examples=30, deadline=None)
TestTreeAgainstContents = TreeAgainstContents.TestCase


def test_a_text_that_begins_alike_shares_pages_and_copies_one() -> None:
    pages = make_pages()
    tree, first = PrefixTree(pages), Text([1] * PAGE + [2] * PAGE + [3] * 9)
    write(pages, first)
    tree.keep(first.row, first.keys)
    second = Text([1] * PAGE + [2] * 20 + [4] * 5)
    tree.begin(second.row, second.keys[:-1])
    assert second.row.length == PAGE + 20
    assert second.row.pages[0] == first.row.pages[0]
    assert second.row.pages[1] not in first.row.pages
    assert_holds(pages, second)


def test_a_row_may_write_on_in_a_page_that_is_kept() -> None:
    pages = make_pages()
    tree, text = PrefixTree(pages), Text([1] * PAGE + [2] * 9)
    write(pages, text)
    tree.keep(text.row, text.keys)
    text.keys += [3] * 9
    write(pages, text)
    again = Text(text.keys)
    tree.begin(again.row, again.keys)
    assert again.row.length == PAGE + 9
    assert_holds(pages, again)
    tree.keep(text.row, text.keys)
    again = Text(text.keys)
    tree.begin(again.row, again.keys)
    assert again.row.length == PAGE + 18
    assert_holds(pages, again)


def test_a_few_positions_are_not_worth_a_copy() -> None:
    pages = make_pages()
    tree, text = PrefixTree(pages), Text([1] * PAGE)
    write(pages, text)
    tree.keep(text.row, text.keys)
    for shared, length in ((7, 0), (8, 8)):
        row = Row()
        tree.begin(row, [1] * shared + [2] * 9)
        assert (row.length, len(row.pages)) == (length, length > 0)


def test_what_was_not_used_for_the_longest_time_goes_first() -> None:
    pages = make_pages(limit=4)
    tree = PrefixTree(pages)
    for i in range(4):
        text = Text([i] * PAGE)
        write(pages, text)
        tree.keep(text.row, text.keys)
        pages.give_back(text.row.pages)
    assert (pages.idle, pages.left, pages.used_bytes) == (4, 4, 0)
    assert tree.known([0] * PAGE) == PAGE  # and so it was used
    taken = pages.take(2)
    assert [tree.known([i] * PAGE) for i in range(4)] == [PAGE, 0, 0, PAGE]
    pages.take(2)
    with pytest.raises(NoPages):
        pages.take(1)
    pages.give_back(taken)
    assert pages.left == 2


def test_pages_that_rows_have_are_not_reclaimed() -> None:
    pages = make_pages(limit=3)
    tree, text = PrefixTree(pages), Text([1] * PAGE * 2)
    write(pages, text)
    tree.keep(text.row, text.keys)
    assert (pages.idle, pages.left) == (0, 1)
    pages.take(1)
    with pytest.raises(NoPages):
        pages.take(1)
    assert_holds(pages, text)
