"""A Chromium that is told what to do, and complains of everything that a page does wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def program() -> str:
    """The browser: what ``LOLAMA_CHROMIUM`` names, or one on the path."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    found = [os.environ.get("LOLAMA_CHROMIUM"), *map(shutil.which, names)]
    chosen = next((one for one in found if one), None)
    if chosen is None:
        raise SystemExit("no Chromium is here: install one, or name it by LOLAMA_CHROMIUM")
    return chosen


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium without a window."""
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu"]
        started = playwright.chromium.launch(executable_path=program(), args=options)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def page_of(started: Browser, address: str, path: str, size: str) -> Iterator[Page]:
    """A page at ``path``, of which no request goes elsewhere and nothing is refused or raised."""
    width, height = SIZES[size]
    page = started.new_page(viewport={"width": width, "height": height})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"raised {error}"))
    page.on("console", lambda said: wrong.append(said.text) if is_fault(said) else None)
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(address) else wrong.append(f"asked {asked.url}"),
    )
    page.goto(address + path)
    yield page
    page.close()
    assert not wrong, wrong


def is_fault(said: ConsoleMessage) -> bool:
    """Whether a line of the console is an error, other than of an answer that refuses something."""
    return said.type == "error" and not said.text.startswith("Failed to load resource")


def until(page: Page, holds: Callable[[], bool]) -> None:
    """Wait for what a page does. Playwright's own way evaluates texts, which the page's policy forbids."""
    for _ in range(600):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("half a minute was not enough")


def shot(page: Page, name: str, folder: Path) -> None:
    """A picture of the whole page."""
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)


def fits(page: Page) -> bool:
    """Whether nothing is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
