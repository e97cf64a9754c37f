from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops
from tokenizers import Tokenizer as NativeTokenizer
from training.vision.batches import IGNORE, make_batch
from training.vision.build import DESTINATION
from training.vision.features import Maker
from training.vision.last_round import Optimizer, last_round, train_on
from training.vision.model import VISION, Trainee, fresh_model, load_weights
from training.vision.muon import Muon, orthogonal
from training.vision.questions import MAKERS, NUMBERS, Exchange, ask
from training.vision.reader import KINDS, Reader, labels_of
from training.vision.recipe import LastRecipe, Recipe
from training.vision.scene import MOST, PLACES, Scene, Thing, draw, is_held_out, scene_of
from training.vision.tokenizer import IMAGE, DialogueEncoder
from training.vision.train import gradients, loss_of, make_optimizers, train

from lolama_core.text.tokenizer import Tokenizer
from lolama_vision import CLIPImageProcessor

SEE = Recipe(steps=2, pictures=4, questions=0, most=7, seed="see")
SPEAK = Recipe(
    steps=4, pictures=4, questions=3, empty=0.5, finding=2, places=True, position_scale=2.0
)
LAST = LastRecipe(steps=2, pictures=3, dialogues=4, warmup=1)


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
    """The middle of its place has its color, and places without one have the background's."""
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
    """In the middle it would be read instead of the picture."""
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
    batch = make_batch(encoder, CLIPImageProcessor(VISION), SPEAK, 0)
    image = encoder.ids[IMAGE]
    for row, length, targets in zip(batch.ids, batch.lengths, batch.targets, strict=True):
        ids = row[:length].tolist()
        place = ids.index(image)
        merged = ids[:place] + [image] * VISION.features_per_tile + ids[place + 1 :]
        for position, target in enumerate(targets.tolist()):
            assert target in (IGNORE, *merged[position + 1 : position + 2])
    assert torch.equal(
        batch.pixel_values, make_batch(encoder, CLIPImageProcessor(VISION), SPEAK, 0).pixel_values
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


@pytest.mark.parametrize("recipe", [SEE, SPEAK])
def test_threads_give_the_gradient_of_the_whole_batch(
    encoder: DialogueEncoder, recipe: Recipe
) -> None:
    trainee = Trainee(fresh_model(encoder.ids[IMAGE]))
    batch = make_batch(encoder, CLIPImageProcessor(VISION), recipe, 1)
    with ThreadPoolExecutor(2) as pool:
        loss = gradients(trainee, batch, recipe, pool)
    whole = loss_of(trainee, batch, recipe, batch)
    trained = [parameter for _, parameter in trainee.trained(recipe)]
    expected = torch.autograd.grad(whole, trained)
    assert loss == pytest.approx(whole.item(), rel=1e-5)
    for parameter, theirs in zip(trained, expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, theirs, atol=1e-5, rtol=1e-3)


def test_the_reader_is_asked_what_lies_where() -> None:
    scene: Scene = (Thing(4, "large", "red", "star"), Thing(8, "small", "blue", "circle"))
    labels = labels_of(scene, 6).view(6, 6, len(KINDS))
    names = [kind[int(n) - 1] for kind, n in zip(KINDS, labels[3, 2], strict=True)]
    assert names == ["star", "red", "large", "in the centre"]
    assert labels[0, 5].tolist() == [0, 0, 0, 3]
    assert (labels[..., 0] > 0).sum() == 8
    reader = Reader(16)
    features = torch.randn(1, 36, 16)
    flat = labels.view(1, 36, -1)
    without, everything = (reader.loss(features, flat, places=p) for p in (False, True))
    of_places = torch.nn.functional.cross_entropy(
        reader(features)[-1][0], flat[0, :, -1], reduction="sum"
    )
    torch.testing.assert_close(everything - without, of_places)


def test_questions_that_need_a_thing_to_be_found_can_be_asked_more_often() -> None:
    def share(finding: int) -> float:
        kinds = [
            exchange.kind
            for index, scene in enumerate(scenes(60))
            for exchange in ask(scene, random.Random(index), 7, finding=finding)
        ]
        return sum(kind in ("where", "relation") for kind in kinds) / len(kinds)

    assert share(6) > 1.5 * share(0)


def test_pieces_give_what_one_run_gives(
    native: NativeTokenizer,
    encoder: DialogueEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, rounds = encoder.ids[IMAGE], (SEE, SPEAK)
    whole = Trainee(fresh_model(image))
    lines: list[str] = []
    assert train(whole, native, rounds, tmp_path / "whole", report=lines.append)
    assert [line.split("  ")[:2] for line in lines] == [
        ["round 1", "step 2/2"],
        ["round 2", "step 4/4"],
    ]
    ticks = itertools.count()
    monkeypatch.setattr("training.vision.train.time.monotonic", lambda: next(ticks))
    done = False
    pieces: list[Trainee] = []
    while not done and len(pieces) < 20:
        # Other weights each time: it goes on from what the state holds.
        pieces.append(Trainee(fresh_model(image, seed=len(pieces))))
        done = train(
            pieces[-1], native, rounds, tmp_path / "pieces", seconds=4, report=lines.append
        )
    assert done and len(pieces) > 1
    for one, other in zip(whole.parameters(), pieces[-1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.fixture(scope="module")
def maker() -> Maker:
    return Maker(DESTINATION, LAST)


def test_rows_hold_what_the_merge_gives(maker: Maker, encoder: DialogueEncoder) -> None:
    """Put back together, a row is a dialogue about its picture: the whole model sees the same."""
    model = fresh_model(encoder.ids[IMAGE]).eval()
    load_weights(model, DESTINATION)
    features = torch.from_numpy(maker.features(range(LAST.pictures))).float()
    rows = maker.rows(0)
    patches = VISION.features_per_tile
    for row, picture in enumerate(rows.pictures.tolist()):
        [places] = (rows.features[row] >= 0).nonzero()
        assert places.tolist() == list(range(places[0], places[0] + patches))
        assert places[0] in (1, 2)  # after <|bos|>, or <|bos|><|user|>
        merged = rows.ids[row].tolist()
        ids = [*merged[: places[0]], encoder.ids[IMAGE], *merged[places[-1] + 1 :]]
        scene = scene_of(random.Random(f"find {picture}"), held_out=False)
        pixels = CLIPImageProcessor(VISION).preprocess(draw(scene, random.Random(f"0 {picture}")))
        prompt = model.embed_prompt(torch.tensor([ids]), [len(ids)], **pixels)
        shown = prompt.embeds[0, places[0] : places[-1] + 1]
        torch.testing.assert_close(shown, features[picture], atol=1e-2, rtol=1e-2)
        for position in (rows.targets[row] != IGNORE).nonzero()[0].tolist():
            assert rows.targets[row][position] == merged[position + 1]


def test_the_last_round_moves_parameters_as_the_optimizers_before_do(
    encoder: DialogueEncoder,
) -> None:
    recipe = Recipe(steps=1, pictures=1, questions=1, peak_rate=1e-2)
    one, other = (Trainee(fresh_model(encoder.ids[IMAGE])) for _ in range(2))
    optimizers = make_optimizers(one, recipe)
    optimizer = Optimizer(other.trained(recipe))
    optimizer.rate.fill_(1e-2)
    for _ in range(3):
        gradients = [torch.randn_like(parameter) for parameter in one.parameters()]
        for parameter, gradient in zip(one.parameters(), gradients, strict=True):
            parameter.grad = gradient
        for theirs in optimizers:
            theirs.step()
        optimizer.step(dict(zip(other.parameters(), gradients, strict=True)))
    for parameter, expected in zip(other.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
        ),
    ],
)
def test_the_last_round_trains_the_language_model_alone(
    maker: Maker, encoder: DialogueEncoder, device: str
) -> None:
    model, before = (fresh_model(encoder.ids[IMAGE]) for _ in range(2))
    features = torch.from_numpy(maker.features(range(LAST.pictures)))
    lines: list[str] = []
    batches = map(maker.rows, range(LAST.steps))
    train_on(model, features, batches, LAST, device=torch.device(device), report=lines.append)
    for (name, parameter), old in zip(model.named_parameters(), before.parameters(), strict=True):
        assert parameter.isfinite().all()
        assert torch.equal(parameter, old) is not name.startswith("language_model."), name
    assert [line.split("  ")[0] for line in lines] == ["step 1/2", "step 2/2"]
    assert all(0 < float(line.split()[3]) < 20 for line in lines)


def test_other_processes_make_the_same_rows(encoder: DialogueEncoder, tmp_path: Path) -> None:
    one, other = (fresh_model(encoder.ids[IMAGE]) for _ in range(2))
    maker = Maker(DESTINATION, LAST)
    features = torch.from_numpy(maker.features(range(LAST.pictures)))
    device, lines = torch.device("cpu"), list[str]()
    train_on(one, features, map(maker.rows, range(2)), LAST, device=device, report=lines.append)
    last_round(other, DESTINATION, LAST, device=device, workers=1, report=lines.append)
    for parameter, expected in zip(other.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected)


def test_the_last_rate_falls_by_steps_or_by_time() -> None:
    recipe = LastRecipe(steps=1000, pictures=1, dialogues=1, seconds=10.0)
    assert [recipe.rate(step, recipe.done(step, 0)) for step in (49, 99, 500, 750)] == [
        pytest.approx(share * recipe.peak_rate) for share in (0.5, 1.0, 1.0, 0.5)
    ]
    assert recipe.rate(500, recipe.done(500, 7.5)) == pytest.approx(recipe.peak_rate / 2)
    assert recipe.done(3, 10.0) == 1
