"""Bit for bit what transformers' PIL processors make of a picture."""

from __future__ import annotations

import random
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from oracle import (
    MARKS,
    PINPOINTS,
    SIDE,
    SIGLIP,
    random_picture,
    split,
    tiled,
    vision_config,
)
from PIL import Image

from lolama_core.protocols import ImageProcessor
from lolama_core.protocols.errors import ModelError, UsageError
from lolama_core.testing.image import ImageProcessorSuite
from lolama_vision import CLIPImageProcessor, Preprocessing, VisionConfig
from lolama_vision.flatten import flatten
from lolama_vision.picture_marks import PictureMarks
from lolama_vision.split import split_grid
from lolama_vision.tiles import count_tokens

MODES = ("RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "LAB")
SIZES = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}

_STATIC: ImageProcessor = CLIPImageProcessor(vision_config())  # checked by mypy


def odd_size(rng: random.Random) -> tuple[int, int]:
    longest = rng.choice((12, 60, 150, 400))
    return rng.randint(1, longest), rng.randint(1, longest)


def pictures(count: int, seed: str) -> list[Image.Image]:
    rng = random.Random(seed)
    made = []
    for index in range(count):
        width, height = odd_size(rng)
        while max(width, height) > 60 * min(width, height):
            width, height = odd_size(rng)
        made.append(random_picture(rng, width, height, MODES[index % len(MODES)]))
    return made


def reference(kind: str, **settings: Any) -> Any:
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    if kind == "tiles":
        return LlavaNextImageProcessorPil(image_grid_pinpoints=PINPOINTS, **SIZES, **settings)
    return LlavaImageProcessorPil(do_pad=kind == "pad", **{**SIZES, **settings})


def equal(ours: torch.Tensor, theirs: Any) -> bool:
    return torch.equal(ours, torch.from_numpy(np.ascontiguousarray(theirs)))


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("side", [SIDE, 57])
def test_crop_and_pad_are_bit_equal(mode: str, side: int) -> None:
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    theirs = reference(mode, **sizes)
    ours = CLIPImageProcessor(
        vision_config(image_size=side, preprocessing=Preprocessing(mode=mode))  # type: ignore[arg-type]
    )
    for picture in pictures(120, f"{mode} {side}"):
        expected = theirs.preprocess(picture.copy())["pixel_values"][0]
        inputs = ours.preprocess(picture)
        assert equal(inputs["pixel_values"][0], expected), (picture.size, picture.mode)
        assert inputs["image_sizes"] == [(picture.height, picture.width)]


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"size": {"shortest_edge": 80}}, {"shortest_edge": 80}),
        ({"size": {"shortest_edge": 40}}, {"shortest_edge": 40}),
        ({"size": {"height": 70, "width": 70}}, {"shortest_edge": 70, "stretch": True}),
        ({"resample": 2}, {"resample": 2}),
        (
            {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
            {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
        ),
        ({"rescale_factor": 0.01}, {"rescale_factor": 0.01}),
    ],
)
def test_settings_are_bit_equal(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    theirs = reference("crop", **settings)
    ours = CLIPImageProcessor(vision_config(preprocessing=Preprocessing(**changes)))
    for picture in pictures(20, repr(settings)):
        expected = theirs.preprocess(picture.copy())["pixel_values"][0]
        assert equal(ours.preprocess(picture)["pixel_values"][0], expected), picture.size


def test_siglip_is_bit_equal() -> None:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    theirs = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    half = (0.5, 0.5, 0.5)
    settings = Preprocessing(stretch=True, mean=half, std=half)
    ours = CLIPImageProcessor(vision_config(preprocessing=settings))
    for picture in pictures(120, "siglip"):
        expected = theirs.preprocess(picture.copy())["pixel_values"][0]
        assert equal(ours.preprocess(picture)["pixel_values"][0], expected), picture.size


def test_tiles_are_bit_equal() -> None:
    theirs = reference("tiles")
    ours = CLIPImageProcessor(vision_config(preprocessing=tiled()))
    for picture in pictures(120, "tiles"):
        expected = theirs.preprocess(picture.copy())["pixel_values"][0]
        inputs = ours.preprocess(picture)
        assert equal(inputs["pixel_values"], expected), (picture.size, picture.mode)
        assert inputs["tiles_per_image"] == [len(expected)]


def onevision() -> tuple[Any, Preprocessing]:
    """transformers' image processor, and the same settings here."""
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    half = (0.5, 0.5, 0.5)
    theirs = LlavaOnevisionImageProcessorPil(
        image_grid_pinpoints=PINPOINTS,
        size={"height": SIDE, "width": SIDE},
        image_mean=half,
        image_std=half,
    )
    settings = replace(tiled(max_tiles=2), stretch=True, mean=half, std=half)
    return theirs, settings


def test_tiles_of_onevision_are_bit_equal() -> None:
    theirs, settings = onevision()
    ours = CLIPImageProcessor(vision_config(preprocessing=settings))
    for picture in pictures(120, "onevision"):
        expected = theirs.preprocess(picture.copy())["pixel_values"][0]
        inputs = ours.preprocess(picture)
        assert equal(inputs["pixel_values"], expected), (picture.size, picture.mode)


def test_several_pictures_of_onevision_in_mode_pad_are_bit_equal() -> None:
    theirs, settings = onevision()
    config = vision_config(preprocessing=settings, **SIGLIP)
    ours = CLIPImageProcessor.from_config(config, mode="pad")
    shown = [picture.convert("RGB") for picture in pictures(60, "onevision pad")]
    expected = theirs.preprocess([[picture.copy() for picture in shown]])["pixel_values"]
    inputs = ours.preprocess(shown)
    for own, other, picture in zip(inputs["pixel_values"], expected, shown, strict=True):
        assert equal(own, other[0]), picture.size
    assert inputs["tiles_per_image"] == [1] * 60
    assert inputs["tokens_per_image"] == [17] * 60  # 4 × 4 patches and the end of a row


def test_gemma3_is_bit_equal() -> None:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    theirs = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    half = (0.5, 0.5, 0.5)
    settings = Preprocessing(shortest_edge=SIDE, stretch=True, mean=half, std=half, resample=2)
    ours = CLIPImageProcessor(vision_config(preprocessing=settings, downscale=2, **SIGLIP))
    for picture in pictures(120, "gemma3"):
        # Theirs converts no mode but palettes and the like by itself.
        expected = theirs.preprocess(flatten(picture), do_convert_rgb=True)["pixel_values"][0]
        inputs = ours.preprocess(picture)
        assert equal(inputs["pixel_values"][0], expected), (picture.size, picture.mode)
        assert inputs["tokens_per_image"] == [4]


@pytest.mark.parametrize("kind", ["idefics3", "smolvlm"])
@pytest.mark.parametrize("longest_edge", [4 * SIDE, 2 * SIDE + 9, SIDE, 20])
def test_tiles_of_idefics3_are_bit_equal(kind: str, longest_edge: int) -> None:
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    reads = {"idefics3": Idefics3ImageProcessorPil, "smolvlm": SmolVLMImageProcessorPil}
    theirs = reads[kind](size={"longest_edge": longest_edge}, max_image_size={"longest_edge": SIDE})
    config = vision_config(preprocessing=split(longest_edge), downscale=2, **SIGLIP)
    ours = CLIPImageProcessor(config)
    for picture in pictures(60, f"{kind} {longest_edge}"):
        expected = theirs.preprocess(picture.copy(), return_row_col_info=True)
        inputs = ours.preprocess(picture)
        assert equal(inputs["pixel_values"], expected["pixel_values"][0]), picture.size
        grid = split_grid((picture.height, picture.width), config)
        assert grid == (expected["rows"][0][0], expected["cols"][0][0])


@pytest.mark.parametrize("longest_edge", [512, 2048, 2047, 4096])
def test_the_thinnest_pictures_of_idefics3(longest_edge: int) -> None:
    """A row of pixels, and a column: as many tiles as the longer side fills, and one across."""
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    theirs = SmolVLMImageProcessorPil(
        size={"longest_edge": longest_edge}, max_image_size={"longest_edge": 512}
    )
    marks = PictureMarks(**{**asdict(MARKS), "tiles": [[[5]] * 8] * 8})
    settings = replace(split(longest_edge), marks=marks)
    config = vision_config(image_size=512, patch_size=16, preprocessing=settings, **SIGLIP)
    ours = CLIPImageProcessor(config)
    for size in ((1, 900), (900, 1), (1, 1), (333, 334)):
        picture = random_picture(random.Random(1), *size)
        expected = theirs.preprocess(picture.copy())["pixel_values"][0]
        inputs = ours.preprocess(picture)
        assert equal(inputs["pixel_values"], expected), size
        tiles = len(expected)
        assert inputs["tiles_per_image"] == [tiles]
        assert inputs["tokens_per_image"][0] > tiles * 32 * 32


def test_ids_around_tiles() -> None:
    """As transformers' processor spells them, a line break behind each row and two behind the last."""
    assert MARKS.between(2, 2) == [
        *((80, 20), (80, 21), (82, 80, 24), (80, 25)),
        *((83, 84, 80, 81), (80,)),
    ]
    assert MARKS.between(0, 0) == [(80, 81), (80,)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"longest_edge": None}, "longest_edge: is None, expected a value if mode is split"),
        ({"marks": None}, "marks: is None, expected a value if mode is split"),
        ({"mode": "crop"}, "expected a value if mode is split, else none"),
        ({"marks": {**asdict(MARKS), "around": [-1]}}, "marks around: is .*, expected at most 64"),
        ({"marks": {**asdict(MARKS), "tiles": [[[5]]]}}, "expected 4 rows of marks for 4 tiles"),
        ({"marks": {**asdict(MARKS), "tiles": 3}}, "marks tiles: is 3, expected a list of rows"),
        ({"marks": {**asdict(MARKS), "tiles": [3]}}, "marks tiles: .*, expected a list of rows"),
        ({"marks": {**asdict(MARKS), "whole": 3}}, "marks whole: is 3, expected at most 64"),
        ({"marks": 3}, "marks: is 3, expected an object"),
        ({"longest_edge": 9 * SIDE}, "longest_edge: is 504, expected what 64 tiles hold"),
        ({"longest_edge": 5000}, "longest_edge: is 5000, expected an integer from 1 to 4096"),
    ],
)
def test_a_split_that_makes_no_sense(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        vision_config(preprocessing={**asdict(split()), **changes}, **SIGLIP)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"downscale": 3}, "downscale: is 3, expected a divisor of 4 patches a side"),
        ({"downscale": 5}, "downscale: is 5, expected an integer from 1 to 4"),
        (
            {"downscale": 2, "class_token": True, "keep_class_token": True},
            "expected 1, since keep_class_token is true",
        ),
    ],
)
def test_a_downscale_that_makes_no_sense(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        vision_config(**{**SIGLIP, **changes})


def test_token_counts_of_onevision_equal_those_of_transformers() -> None:
    """The published sizes, and pictures of every shape."""
    sides = range(384, 2305, 384)
    pinpoints = tuple((height, width) for height in sides for width in sides)
    settings = Preprocessing(mode="tiles", pinpoints=pinpoints, max_tiles=9)
    config = VisionConfig(image_size=384, preprocessing=settings, **{**SIGLIP, "feature_layer": -1})
    theirs = onevision_processor([list(pair) for pair in pinpoints])
    rng = random.Random(3)
    sizes = [(rng.randint(1, 4000), rng.randint(1, 4000)) for _ in range(300)]
    sizes += [(384, 384), (2304, 2304), (1, 3000), (3000, 1), (1152, 1152), (1208, 1208)]
    expected = theirs._get_num_multimodal_tokens(image_sizes=[list(one) for one in sizes])
    counts = [count_tokens(one, config) for one in sizes]
    assert counts == expected["num_image_tokens"]
    assert max(counts) > 7000


def onevision_processor(pinpoints: list[list[int]]) -> Any:
    """transformers' processor, without a tokenizer."""
    from transformers.models.llava_onevision import processing_llava_onevision as onevision
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    processor = object.__new__(onevision.LlavaOnevisionProcessor)
    processor.image_processor = LlavaOnevisionImageProcessorPil(image_grid_pinpoints=pinpoints)
    processor.num_image_tokens = 729
    processor.vision_feature_select_strategy = "full"
    processor.vision_aspect_ratio = "anyres_max_9"
    processor._merge_kwargs = lambda **_: {"images_kwargs": {}}
    return processor


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((480, 640), 2340),
        ((336, 336), 1176),
        ((1080, 1920), 1948),
        ((1024, 768), 2352),
        ((200, 1000), 1598),
        ((37, 53), 1416),
    ],
)
def test_token_counts_of_llava_next(size: tuple[int, int], tokens: int) -> None:
    pinpoints = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
    config = VisionConfig(preprocessing=Preprocessing(mode="tiles", pinpoints=pinpoints))
    inputs = CLIPImageProcessor(config).preprocess(Image.new("RGB", size[::-1]))
    assert inputs["tokens_per_image"] == [tokens]


def test_token_counts_of_llava() -> None:
    inputs = CLIPImageProcessor(VisionConfig()).preprocess(Image.new("RGB", (30, 40)))
    assert inputs["tokens_per_image"] == [576]
    assert inputs["pixel_values"].shape == (1, 3, 336, 336)


def test_modes_of_a_call() -> None:
    config = vision_config()
    assert CLIPImageProcessor.from_config(config).config.preprocessing.mode == "crop"
    padding = CLIPImageProcessor.from_config(config, mode="pad")
    assert padding.config.preprocessing.mode == "pad"
    wide = Image.new("RGB", (100, 20), "white")
    corner = padding.preprocess(wide)["pixel_values"][0, :, 0, 0]
    middle = padding.preprocess(wide)["pixel_values"][0, :, SIDE // 2, SIDE // 2]
    assert corner.abs().max() < 1 / 255 / 0.26  # the mean color, rounded down to a shade
    assert middle.min() > 1.5
    with pytest.raises(UsageError, match=r"^mode: pad: this model takes .* tiles only"):
        CLIPImageProcessor.from_config(vision_config(preprocessing=tiled()), mode="pad")
    with pytest.raises(UsageError, match=r"^mode: crop: this model takes .* split only"):
        CLIPImageProcessor.from_config(vision_config(preprocessing=split()), mode="crop")


def test_row_71_the_smallest_and_the_thinnest() -> None:
    for preprocessing in (Preprocessing(), Preprocessing(mode="pad"), tiled()):
        processor = CLIPImageProcessor(vision_config(preprocessing=preprocessing))
        inputs = processor.preprocess(Image.new("RGB", (1, 1), "red"))
        assert inputs["pixel_values"].isfinite().all()
        thin = Image.new("RGB", (1, 60000), "red")
        if preprocessing.mode == "tiles":
            assert processor.preprocess(thin)["pixel_values"].isfinite().all()
    for mode in ("crop", "pad"):
        config = VisionConfig(preprocessing=Preprocessing(mode=mode))
        with pytest.raises(ModelError, match="1 × 60000 pixels, too long and thin"):
            CLIPImageProcessor(config).preprocess(Image.new("RGB", (1, 60000)))


class TestCLIPImageProcessor(ImageProcessorSuite):
    @pytest.fixture
    def processor(self) -> ImageProcessor:
        return CLIPImageProcessor(vision_config())


class TestSplit(ImageProcessorSuite):
    @pytest.fixture
    def processor(self) -> ImageProcessor:
        return CLIPImageProcessor(vision_config(preprocessing=split(), **SIGLIP))


class TestTiles(ImageProcessorSuite):
    @pytest.fixture
    def processor(self) -> ImageProcessor:
        return CLIPImageProcessor(vision_config(preprocessing=tiled()))
