"""Fresh pictures, what the built-in model says of them, and its measurement, put into docs/vision.md:

    python -m training.vision.gallery

The pictures are files of their own in docs/pictures/, of scenes that no training has seen, the first of their
seed: none is chosen. Everything between the page's marks is written here.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from lolama_core import (
    GenerationConfig,
    LlamaFamily,
    load_model,
    load_tokenizer,
    open_checkpoint,
)
from lolama_core.protocols import ModelFamily
from lolama_vision import CLIPImageProcessor, LLaVA, LlavaFamily, read_picture

from .build import DESTINATION, ROOT
from .evaluate import RESULTS, answers
from .questions import MAKERS, Exchange
from .scene import draw, scene_of

PAGE = ROOT / "docs/vision.md"
PICTURES = ROOT / "docs/pictures"
COUNT = 10


def fresh(index: int) -> tuple[Path, list[Exchange]]:
    """A new picture as a file, a description asked for and two other questions."""
    rng = random.Random(f"gallery {index}")
    scene = scene_of(rng, held_out=True)
    path = PICTURES / f"{index}.png"
    draw(scene, rng).save(path)
    asked = [e for maker in MAKERS[1:] if (e := maker(scene, rng)) is not None]
    description = MAKERS[0](scene, rng)
    assert description is not None
    return path, [description, *rng.sample(asked, 2)]


def gallery() -> str:
    """A table of pictures, questions and answers."""
    files = open_checkpoint(DESTINATION)
    families: dict[str, ModelFamily] = {"llama": LlamaFamily(), "llava": LlavaFamily()}
    model = load_model(files, families, device="cpu")
    assert isinstance(model, LLaVA)
    tokenizer = load_tokenizer(files)
    processor = CLIPImageProcessor(model.config.vision_config)
    PICTURES.mkdir(exist_ok=True)
    lines = ["| picture | question | answer |", "|---|---|---|"]
    for index in range(1, COUNT + 1):
        path, exchanges = fresh(index)
        picture = read_picture(path).image
        shown = [(picture, exchange.question) for exchange in exchanges]
        config = GenerationConfig.greedy(max_new_tokens=120)
        for number, (exchange, text) in enumerate(
            zip(exchanges, answers(model, tokenizer, processor, shown, config), strict=True)
        ):
            cell = f'<img src="pictures/{path.name}" width="96">' if number == 0 else ""
            note = "" if text == exchange.answer else f" **(wrong: {exchange.answer})**"
            lines.append(f"| {cell} | {exchange.question} | {text}{note} |")
    return "\n".join(lines)


def measured(results: dict[str, Any]) -> str:
    """Tables of `results.json`."""
    columns = ("greedy", "with a blank picture", "with the command's defaults")
    lines = [
        f"| {results['date']}, seed {results['seed']} | {' | '.join(columns)} |",
        "|---|---|---|---|",
    ]

    def row(name: str, values: list[float]) -> None:
        lines.append(f"| {name} | " + " | ".join(f"{100 * v:.1f} %" for v in values) + " |")

    row("**all**", [results[column]["right"] for column in columns])
    for kind in results["greedy"]["by kind"]:
        row(kind, [results[column]["by kind"][kind] for column in columns])
    for count in results["greedy"]["by number of shapes"]:
        values = [results[column]["by number of shapes"][count] for column in columns]
        row(f"with {count} shape{'' if count == '1' else 's'}", values)
    compared = results["greedy"]["compared"]
    lines += ["", "| attribute | compared | what it was taken for |", "|---|---|---|"]
    for attribute, mistakes in results["greedy"]["confusion"].items():
        said = "; ".join(f"{name}: {number}" for name, number in mistakes.items()) or "none wrong"
        lines.append(f"| {attribute} | {compared.get(attribute, '')} | {said} |")
    return "\n".join(lines)


def replaced(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between the marks of that name.

    Raises:
        ValueError: if the marks are not there.
    """
    pattern = re.compile(f"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"no marks for {name}")
    return pattern.sub(lambda match: match[1] + content + match[2], text)


def main() -> None:
    """Write the page."""
    text = PAGE.read_text(encoding="utf-8")
    text = replaced(text, "gallery", gallery())
    text = replaced(text, "measured", measured(json.loads(RESULTS.read_text())))
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
