"""Measure the built-in model `demo-vision` on scenes that it was not trained on:

    python -m training.vision.evaluate

Every picture goes the whole way: drawn, written to a PNG file, read, prepared, encoded, merged, answered
greedily. Prints and writes `results.json`: the share of answers that are exactly right, by kind of question
and by number of shapes; the same with a blank picture in the place of the right one, which is what can be
guessed; and what each attribute was taken for.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import random
import re
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, cast

import PIL
import torch
from PIL import Image

from lolama_core import (
    FileCheckpoint,
    GenerationConfig,
    LlamaFamily,
    TextGenerator,
    Tokenizer,
    load_model,
    load_tokenizer,
    open_checkpoint,
)
from lolama_core.protocols import CausalLM, ModelFamily
from lolama_vision import CLIPImageProcessor, LlavaFamily, VLMConfig, __version__, read_picture

from .build import DESTINATION
from .questions import MAKERS, Exchange
from .scene import COLOURS, PLACES, SHAPES, SIZES, Scene, draw, scene_of

RESULTS = Path(__file__).with_name("results.json")
ATTRIBUTES = {"size": SIZES, "colour": tuple(COLOURS), "shape": SHAPES, "place": PLACES}
_THING = re.compile(rf"an? (small|large) (\w+) (\w+) ({'|'.join(sorted(PLACES, key=len)[::-1])})")
_AT_ONCE = 32


def held_out(count: int, seed: int) -> list[tuple[Scene, Image.Image, list[Exchange]]]:
    """Scenes that no training has seen, their pictures, and a question of every kind that applies."""
    made = []
    for index in range(count):
        rng = random.Random(f"evaluate {seed} {index}")
        scene = scene_of(rng, held_out=True)
        file = io.BytesIO()
        draw(scene, rng).save(file, "PNG")
        asked = [exchange for maker in MAKERS if (exchange := maker(scene, rng)) is not None]
        made.append((scene, read_picture(file.getvalue()).image, asked))
    return made


def answers(
    model: CausalLM,
    tokenizer: Tokenizer,
    processor: CLIPImageProcessor,
    asked: Sequence[tuple[Image.Image, str]],
    config: GenerationConfig,
) -> list[str]:
    """The model's answer to each question about a picture."""
    generator = TextGenerator(model, tokenizer)
    texts: list[str] = []
    for start in range(0, len(asked), _AT_ONCE):
        part = asked[start : start + _AT_ONCE]
        prompts = [
            tokenizer.render_chat(
                [
                    {
                        "role": "user",
                        "content": [{"type": "image"}, {"type": "text", "text": question}],
                    }
                ]
            )
            for _, question in part
        ]
        inputs = processor.preprocess([picture for picture, _ in part])
        texts += [
            result.text or ""
            for result in generator.generate_batch(
                prompts, config, **cast("dict[str, Any]", inputs)
            )
        ]
    return texts


def confusions(scene: Scene, text: str, table: dict[str, Counter[tuple[str, str]]]) -> None:
    """Count what each attribute was taken for, in a description with the right number of things."""
    found = _THING.findall(text[:1].lower() + text[1:])
    if len(found) != len(scene):
        table["number"][str(len(scene)), str(len(found))] += 1
        return
    for thing, (size, colour, shape, place) in zip(scene, found, strict=True):
        for attribute, true, seen in (
            ("size", thing.size, size),
            ("colour", thing.colour, colour),
            ("shape", thing.shape, shape),
            ("place", thing.where, place),
        ):
            table[attribute][true, seen] += 1


def share(right: Counter[str], asked: Counter[str]) -> dict[str, float]:
    return {kind: round(right[kind] / asked[kind], 4) for kind in sorted(asked)}


def measure(
    model: CausalLM,
    tokenizer: Tokenizer,
    processor: CLIPImageProcessor,
    scenes: Sequence[tuple[Scene, Image.Image, list[Exchange]]],
    config: GenerationConfig,
    *,
    blank: bool = False,
) -> dict[str, Any]:
    """Shares of exactly right answers, and the confusions of descriptions."""
    questions = [(scene, picture, e) for scene, picture, asked in scenes for e in asked]
    nothing = Image.new("RGB", (160, 160), "white")
    shown = [(nothing if blank else picture, e.question) for _, picture, e in questions]
    given = answers(model, tokenizer, processor, shown, config)
    right, asked, right_by_count, by_count = (Counter[str]() for _ in range(4))
    table: dict[str, Counter[tuple[str, str]]] = {
        name: Counter() for name in ("number", *ATTRIBUTES)
    }
    wrong: list[str] = []
    for (scene, _, exchange), text in zip(questions, given, strict=True):
        good = text == exchange.answer
        asked[exchange.kind] += 1
        right[exchange.kind] += good
        by_count[str(len(scene))] += 1
        right_by_count[str(len(scene))] += good
        if exchange.kind == "describe":
            confusions(scene, text, table)
        if not good:
            wrong.append(f"{exchange.question} {exchange.answer} -> {text}")
    result: dict[str, Any] = {
        "questions": len(questions),
        "right": round(sum(right.values()) / len(questions), 4),
        "by kind": share(right, asked),
        "by number of shapes": share(right_by_count, by_count),
    }
    if not blank:
        result["confusion"] = {
            attribute: {
                f"{true} taken for {seen}": number
                for (true, seen), number in counts.most_common()
                if true != seen
            }
            for attribute, counts in table.items()
        }
        result["compared"] = {name: sum(table[name].values()) for name in ATTRIBUTES}
        result["some wrong answers"] = wrong[:20]
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the built-in model `demo-vision`.")
    parser.add_argument("--model", type=Path, default=DESTINATION, help="checkpoint directory")
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    files = open_checkpoint(options.model)
    families: dict[str, ModelFamily] = {"llama": LlamaFamily(), "llava": LlavaFamily()}
    model = load_model(files, families, device="cpu")
    tokenizer = load_tokenizer(files)
    vision = VLMConfig.from_json(FileCheckpoint(files).config["model"]).vision_config
    processor = CLIPImageProcessor(vision)
    scenes = held_out(options.scenes, options.seed)
    greedy = GenerationConfig.greedy(max_new_tokens=120)
    usual = GenerationConfig(max_new_tokens=120, seed=options.seed)
    results: dict[str, Any] = {
        "date": date.today().isoformat(),
        "seed": options.seed,
        "versions": {
            "lolama-vision": __version__,
            "torch": torch.__version__,
            "pillow": PIL.__version__,
            "python": platform.python_version(),
        },
        "machine": f"{platform.machine()} CPU, {str(model.dtype).removeprefix('torch.')} weights",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "held-out scenes": len(scenes),
        "greedy": measure(model, tokenizer, processor, scenes, greedy),
        "with a blank picture": measure(model, tokenizer, processor, scenes, greedy, blank=True),
        "with the command's defaults": measure(model, tokenizer, processor, scenes, usual),
    }
    for kept in ("confusion", "compared", "some wrong answers"):
        del results["with the command's defaults"][kept]
    text = json.dumps(results, indent=2)
    options.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
