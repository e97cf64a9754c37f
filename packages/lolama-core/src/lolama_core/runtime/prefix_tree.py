"""Texts that were run before, as a tree of their pages: what begins like one of them is not run again."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lolama_core.protocols.types import PromptKey
from lolama_core.runtime.paged_cache import Row
from lolama_core.runtime.pages import PAGE, NoPages, Pages

_LEAST_SHARED = 8
"""The least positions that two texts have in common to share them: most texts begin with the same token."""


@dataclass(eq=False)
class _Node:
    """A page of a text, below the page before it.

    Attributes:
        keys: Those of its positions, at most PAGE; with fewer nothing follows.
        page: Where their keys and values are.
        parent: The page before it; None for the root, which is no page.
        children: First key → the pages that may follow and begin with it.
        used: When a text was last found or kept that goes through it.
    """

    keys: tuple[PromptKey, ...]
    page: int
    parent: _Node | None
    children: dict[PromptKey, list[_Node]] = field(default_factory=dict)
    used: int = 0

    def best(self, keys: Sequence[PromptKey]) -> tuple[_Node | None, int]:
        """The page below that has most of these keys in common, and how many."""
        found: tuple[_Node | None, int] = (None, 0)
        for child in self.children.get(keys[0], ()) if keys else ():
            shared = count_shared(child.keys, keys)
            if shared > found[1]:
                found = child, shared
        return found


@dataclass(frozen=True)
class KeptPage:
    """A page of a text that a `PrefixTree` keeps, in a list of them.

    Attributes:
        parent: The place of the page before it, in the same list; None for the first page of a text.
        keys: Those of its positions, at most PAGE; with fewer nothing follows.
        page: Where their keys and values are.
    """

    parent: int | None
    keys: tuple[PromptKey, ...]
    page: int


class PrefixTree:
    """Shares the pages of texts with rows that begin like them, and keeps them while nobody needs the memory.

    Texts are compared by `Prompt.keys`. They part anywhere: of the page in which they do, a row gets a copy.

    Args:
        pages: The memory of the rows. It asks the tree for pages when it has none left.
    """

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._root = _Node((), -1, None)
        self._clock = 0
        # In a circle of objects the memory would stay until Python looks for circles.
        itself = weakref.ref(self)

        def reclaim(count: int) -> None:
            if (tree := itself()) is not None:
                tree._reclaim(count)

        pages.reclaim = reclaim

    @property
    def texts(self) -> int:
        """How many texts are kept that are not the beginning of another."""
        return sum(not node.children for node in self._nodes())

    @property
    def pages(self) -> list[int]:
        """The pages that it keeps."""
        return [node.page for node in self._nodes()]

    def known(self, keys: Sequence[PromptKey]) -> int:
        """How many positions of a text are known. Only whole pages count."""
        return sum(shared for _, shared in self._path(keys) if shared == PAGE)

    def busy(self, keys: Sequence[PromptKey]) -> int:
        """Whole pages of a text that are known and not idle: who shares them takes nothing that is left."""
        path = [*self._path(keys)]
        return sum(shared == PAGE and not self._pages.is_idle(node.page) for node, shared in path)

    def begin(self, row: Row, keys: Sequence[PromptKey]) -> None:
        """Give an empty row what is known of a text.

        Args:
            row: It shares pages from now on, has a copy of one if the text parts within it, and counts them.
                If no page is left for the copy, it goes without.
            keys: The keys of its positions. A model has to run the last for its logits, so leave it out.
        """
        assert not row.pages
        for node, shared in self._path(keys):
            # A page that is copied is shared, too, or it might be taken for its own copy.
            self._pages.share([node.page])
            page = node.page
            if shared < PAGE:
                try:
                    page = self._pages.copy(page, row.pages[-1] if row.pages else None)
                except NoPages:
                    # The only page that is left may be the one to copy. The row can have it, to run all anew.
                    return
                finally:
                    self._pages.give_back([node.page])
            row.pages.append(page)
            row.length += shared

    def keep(self, row: Row, keys: Sequence[PromptKey]) -> None:
        """Remember what a row holds.

        Args:
            row: Its pages stay its own, too. It may write on behind what it holds.
            keys: The keys of its positions. Those behind them, if there are any, are left out.
        """
        node = self._root
        self._clock += 1
        for first in range(0, min(row.length, len(keys)), PAGE):
            own = tuple(keys[first : min(first + PAGE, row.length)])
            node = self._keep_below(node, own, row.pages[first // PAGE])
            node.used = self._clock

    def _keep_below(self, node: _Node, own: tuple[PromptKey, ...], page: int) -> _Node:
        """A page with these keys below another; ``page`` unless there is one already."""
        child, shared = node.best(own)
        if child is None or shared < len(own):
            # A beginning of this page that was kept by itself says nothing more.
            if child is not None and shared == len(child.keys):
                self._drop(child)
            self._pages.keep(page)
            child = _Node(own, page, node)
            node.children.setdefault(own[0], []).append(child)
        return child

    def kept(self) -> list[KeptPage]:
        """All that is kept: what was used last comes first, and each page behind the one that it follows."""
        nodes = sorted(self._nodes(), key=lambda node: -node.used)
        places: dict[_Node | None, int] = {node: place for place, node in enumerate(nodes)}
        return [KeptPage(places.get(node.parent), node.keys, node.page) for node in nodes]

    def add(self, kept: Sequence[KeptPage]) -> None:
        """Keep pages in the order of `kept`, as if they had been used just now.

        Args:
            kept: Somebody has these pages, and need not have them any longer. Of those whose keys are here
                already the tree's own are kept.
        """
        nodes: list[_Node] = []
        for place, one in enumerate(kept):
            above = self._root if one.parent is None else nodes[one.parent]
            nodes.append(self._keep_below(above, one.keys, one.page))
            nodes[-1].used = self._clock + len(kept) - place
        self._clock += len(kept)

    def _path(self, keys: Sequence[PromptKey]) -> Iterator[tuple[_Node, int]]:
        """The pages of the longest known beginning, each with how many of its positions are the same.

        All are, but perhaps those of the last page.
        """
        node, place = self._root, 0
        self._clock += 1
        while True:
            child, shared = node.best(keys[place : place + PAGE])
            if child is None:
                return
            child.used = self._clock
            if place + shared >= _LEAST_SHARED:
                yield child, shared
            if shared < PAGE:
                return
            node, place = child, place + PAGE

    def _reclaim(self, count: int) -> None:
        """Give back ``count`` idle pages, or a sixteenth of them if that is more.

        Those go first that were not used for the longest time, and pages that follow before those that they
        follow. Of a page that goes, no page that rows still have can be found any more.
        """
        count = max(count, self._pages.idle // 16)
        # No page was used later than one that it follows, and of those used at once the last comes first.
        idle = [node for node in [*self._nodes()][::-1] if self._pages.is_idle(node.page)]
        assert len(idle) >= count, "more pages are asked for than are idle"
        for node in sorted(idle, key=lambda node: node.used)[:count]:
            self._drop(node)

    def clear(self) -> None:
        """Forget everything."""
        for node in [*self._nodes()]:
            self._pages.forget(node.page)
        self._root.children.clear()

    def _drop(self, node: _Node) -> None:
        """Forget a page, and what follows it."""
        assert node.parent is not None
        siblings = node.parent.children[node.keys[0]]
        siblings.remove(node)
        if not siblings:
            del node.parent.children[node.keys[0]]
        for each in [node, *self._nodes(node)]:
            self._pages.forget(each.page)

    def _nodes(self, top: _Node | None = None) -> Iterator[_Node]:
        """Every page, or every page below another, each before those that follow it."""
        pending = [top or self._root]
        while pending:
            node = pending.pop()
            for group in node.children.values():
                yield from group
                pending += group


def count_shared(one: Sequence[PromptKey], other: Sequence[PromptKey]) -> int:
    """How many keys two texts have in common before they part."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
