from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops
from tokenizers import Tokenizer as NativeTokenizer
from training.vision.build import DESTINATION
from training.vision.muon import Muon, orthogonal
from training.vision.questions import MAKERS, NUMBERS, Exchange, ask
from training.vision.scene import MOST, PLACES, Scene, draw, is_held_out, scene_of
from training.vision.tokenizer import IMAGE, DialogueEncoder
from training.vision.train import (
    IGNORE,
    VISION,
    Recipe,
    fresh_model,
    gradients,
    loss_of,
    make_batch,
    train,
)

from lolama_core.tokenizer import Tokenizer
from lolama_vision import CLIPImageProcessor

SMALL = Recipe(steps=6, pictures=4, questions=3, empty_from=3, empty=0.5)


def scenes(count: int, held_out: bool = False) -> list[Scene]:
    return [scene_of(random.Random(f"test {i}"), held_out=held_out) for i in range(count)]


def test_scenes_are_what_they_are_said_to_be() -> None:
    for scene in scenes(300):
        assert 1 <= len(scene) <= MOST
        assert len({thing.place for thing in scene}) == len(scene)
        assert len({thing.name for thing in scene}) == len(scene)
        assert [thing.place for thing in scene] == sorted(thing.place for thing in scene)


def test_what_is_held_out_is_never_trained_on() -> None:
    train_on, kept = set(scenes(2000)), set(scenes(300, held_out=True))
    assert not train_on & kept
    assert all(map(is_held_out, kept))


def test_a_thing_is_drawn_where_it_is() -> None:
    """The middle of its place has its colour, and places without one have the background's."""
    for index, scene in enumerate(scenes(60)):
        picture = draw(scene, random.Random(index)).resize((96, 96))
        background = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
        ink = ImageChops.difference(picture, background).convert("L")
        taken = {thing.place for thing in scene}
        for place in range(len(PLACES)):
            box = (place % 3 * 32, place // 3 * 32, place % 3 * 32 + 32, place // 3 * 32 + 32)
            inked = sum(ink.crop(box).histogram()[20:])
            assert (inked > 50) is (place in taken), (scene, place)


def answers_to(scene: Scene, maker_index: int, count: int = 30) -> list[Exchange]:
    maker = MAKERS[maker_index]
    found = [maker(scene, random.Random(seed)) for seed in range(count)]
    return [exchange for exchange in found if exchange is not None]


def test_answers_agree_with_the_scene() -> None:
    """Judged by a second reading of the question, from its words alone."""
    for scene in scenes(40):
        for exchange in (e for index in range(len(MAKERS)) for e in answers_to(scene, index, 6)):
            words = exchange.question.rstrip("?").split()
            if exchange.kind == "count shapes":
                number = sum(f"{thing.shape}s" in words for thing in scene)
                assert exchange.answer.split()[2] == NUMBERS[number]
            elif exchange.kind == "count all":
                assert exchange.answer.split()[2] == NUMBERS[len(scene)]
            elif exchange.kind == "is there":
                there = any(thing.name in exchange.question for thing in scene)
                assert exchange.answer.startswith("Yes" if there else "No")
            elif exchange.kind == "describe":
                assert exchange.answer.count(" at ") + exchange.answer.count(" on ") + (
                    exchange.answer.count(" in ")
                ) == len(scene)
                assert all(thing.full_name in exchange.answer for thing in scene)
            elif exchange.kind == "where":
                [thing] = [thing for thing in scene if thing.name in exchange.question]
                assert exchange.answer.endswith(f"is {thing.where}.")


@pytest.mark.parametrize("described_first", [0.0, 1.0])
def test_a_description_comes_first_or_last(described_first: float) -> None:
    """In between it would be read instead of the picture."""
    for index, scene in enumerate(scenes(60)):
        asked = ask(scene, random.Random(index), 6, described_first=described_first)
        places = [n for n, exchange in enumerate(asked) if exchange.kind == "describe"]
        assert len({exchange.question for exchange in asked}) == len(asked) == 6
        assert places == [0] if described_first else places in ([], [5])


def test_nothing_can_be_asked_about_too() -> None:
    kinds = {e.kind: e.answer for seed in range(20) for e in ask((), random.Random(seed), 8)}
    assert kinds["describe"] == "There is nothing in the picture."
    assert kinds["count all"] == "There are no shapes."
    assert all(answer.startswith(("There", "No")) for answer in kinds.values())


@pytest.fixture(scope="module")
def native() -> NativeTokenizer:
    return NativeTokenizer.from_file(str(DESTINATION / "tokenizer.json"))


@pytest.fixture(scope="module")
def encoder(native: NativeTokenizer) -> DialogueEncoder:
    return DialogueEncoder(native)


def test_training_encodes_a_dialogue_as_the_chat_template_renders_it(
    encoder: DialogueEncoder,
) -> None:
    shipped = Tokenizer.from_file(
        DESTINATION / "tokenizer.json",
        chat_template=(DESTINATION / "chat_template.jinja").read_text(),
        bos_token="<|bos|>",
        eos_token="<|eos|>",
    )
    for index, scene in enumerate(scenes(30)):
        exchanges = ask(scene, random.Random(index), 3)
        ids, _ = encoder.encode(exchanges)
        messages: list[dict[str, object]] = []
        for number, exchange in enumerate(exchanges):
            text = {"type": "text", "text": exchange.question}
            shown = [{"type": "image"}, text] if number == 0 else [text]
            messages += [{"role": "user", "content": shown}]
            messages += [{"role": "assistant", "content": exchange.answer}]
        assert shipped.render_chat(messages, add_generation_prompt=False) == ids  # type: ignore[arg-type]


def test_only_answers_count(encoder: DialogueEncoder) -> None:
    exchanges = [Exchange("x", "How many shapes are there?", "There is one shape.")]
    for plain in (False, True):
        ids, ours = encoder.encode(exchanges, plain=plain)
        counted = [i for i, mine in zip(ids, ours, strict=True) if mine]
        expected = "<|assistant|>" * plain + "There is one shape.<|eos|>"
        assert encoder.tokenizer.decode(counted, skip_special_tokens=False) == expected


def test_targets_are_what_follows(encoder: DialogueEncoder) -> None:
    batch = make_batch(encoder, CLIPImageProcessor(VISION), SMALL, 0)
    image = encoder.ids[IMAGE]
    for row, length, targets in zip(batch.ids, batch.lengths, batch.targets, strict=True):
        ids = row[:length].tolist()
        place = ids.index(image)
        merged = ids[:place] + [image] * VISION.features_per_tile + ids[place + 1 :]
        for position, target in enumerate(targets.tolist()):
            assert target in (IGNORE, *merged[position + 1 : position + 2])
    assert torch.equal(
        batch.pixel_values, make_batch(encoder, CLIPImageProcessor(VISION), SMALL, 0).pixel_values
    )


def test_orthogonal() -> None:
    for shape in ((8, 20), (20, 8), (16, 16)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.max() < 1.4
        assert values.mean() > 0.6
    weight = torch.nn.Parameter(torch.zeros(4, 6))
    weight.grad = torch.randn(4, 6)
    Muon([weight], lr=0.1).step()
    assert (weight * weight.grad).sum() < 0


def test_threads_give_the_gradient_of_the_whole_batch(encoder: DialogueEncoder) -> None:
    model = fresh_model(encoder.ids[IMAGE])
    batch = make_batch(encoder, CLIPImageProcessor(VISION), SMALL, 1)
    with ThreadPoolExecutor(2) as pool:
        loss = gradients(model, batch, pool)
    whole = loss_of(model, batch) / (batch.targets != IGNORE).sum()
    expected = torch.autograd.grad(whole, list(model.parameters()))
    assert loss == pytest.approx(whole.item(), rel=1e-5)
    for parameter, theirs in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, theirs, atol=1e-5, rtol=1e-3)


def test_pieces_give_what_one_run_gives(
    native: NativeTokenizer,
    encoder: DialogueEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = encoder.ids[IMAGE]
    whole = fresh_model(image)
    lines: list[str] = []
    assert train(whole, native, SMALL, tmp_path / "whole", report=lines.append)
    assert lines[-1].startswith("step 6/6")
    ticks = itertools.count()
    monkeypatch.setattr("training.vision.train.time.monotonic", lambda: next(ticks))
    model = whole
    for piece in range(2):  # of three steps: the clock is looked at once a step
        model = fresh_model(image, seed=piece)  # what it goes on from comes out of the state
        done = train(model, native, SMALL, tmp_path / "pieces", seconds=4, report=lines.append)
        assert done is (piece == 1)
    for one, other in zip(whole.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
