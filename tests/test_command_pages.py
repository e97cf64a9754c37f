from __future__ import annotations

from tests.command_pages import DOCS, pages


def test_the_pages_are_those_of_the_code() -> None:
    made = pages()
    for path, text in made.items():
        assert path.read_text("utf-8") == text, "run python tests/command_pages.py"
    assert set((DOCS / "commands").iterdir()) == {path for path in made if path.parent != DOCS}


def test_every_command_has_a_page_with_examples_that_name_it() -> None:
    found = {path.stem: text for path, text in pages().items() if path.parent != DOCS}
    del found["README"]
    assert {"generate", "chat", "info", "bench", "eval", "config"} <= set(found)
    for name, text in found.items():
        examples = text.partition("## Examples")[2]
        assert f"\nlolama {name}" in examples
        assert "| option | | default |" in text
