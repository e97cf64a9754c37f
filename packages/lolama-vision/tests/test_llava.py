"""LLaVA and its kin against transformers: tiny random models, float32."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from oracle import (
    IMAGE_TOKEN,
    SIDE,
    close,
    ours_of,
    ours_of_idefics3,
    pixels,
    random_picture,
    reference_idefics3,
    reference_llava,
    split,
)
from PIL import Image
from torch import Tensor

from lolama_core import (
    GenerationConfig,
    Llama,
    LlamaConfig,
    PrefixCache,
    TextGenerator,
    ablate,
    build_module,
    observe,
)
from lolama_core.model.family import LlamaFamily
from lolama_core.protocols import CausalLM, ModelFamily
from lolama_core.protocols.causal_module import CausalLMModule
from lolama_core.protocols.errors import NotAvailableError, UsageError
from lolama_core.protocols.types import JSON, ModelFiles, TokenizerFiles
from lolama_core.testing.checkpoint import tiny_config
from lolama_core.testing.model import CausalLMSuite, ModelFamilySuite
from lolama_vision import CLIPImageProcessor, LLaVA, LlavaFamily, VisionConfig
from lolama_vision.split import split_grid
from lolama_vision.tensor_bytes import bytes_of

FEATURES = (SIDE // 14) ** 2
SHAPES = ((40, 70), (100, 33), (56, 56), (23, 171))


def pictures(count: int) -> list[Image.Image]:
    rng = random.Random(f"pictures {count}")
    return [random_picture(rng, *SHAPES[index % len(SHAPES)]) for index in range(count)]


KINDS: dict[str, dict[str, Any]] = {
    "llava": {},
    "llava_next": {"kind": "LlavaNext"},
    "llava_mistral": {
        "text": "Mistral",
        "text_changes": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    },
    "llava_window": {"text": "Mistral", "text_changes": {"sliding_window": 24}},
    "llava_siglip": {"encoder": "Siglip", "text": "Qwen2"},
    "llava_next_siglip": {"kind": "LlavaNext", "encoder": "Siglip"},
    "llava_layers": {"vision_feature_layer": [-2, 1, -2]},
    "vipllava": {"kind": "VipLlava", "vision_feature_layer": [-2, -4, 1]},
    "onevision": {"kind": "LlavaOnevision", "encoder": "Siglip", "text": "Qwen2"},
    "onevision_scaled": {
        "kind": "LlavaOnevision",
        "encoder": "Siglip",
        "text": "Qwen2",
        "vision_aspect_ratio": "anyres_max_1",
    },
}


IDEFICS3: dict[str, dict[str, Any]] = {
    "idefics3": {},
    "smolvlm": {"kind": "SmolVLM", "scale": 4},
    # 19 patches a side, of which some have the position of their neighbor; nothing is joined.
    "idefics3_buckets": {"side": 19 * 14, "scale": 1},
}


@pytest.fixture(scope="module", params=[*KINDS, *IDEFICS3])
def pair(request: pytest.FixtureRequest) -> tuple[LLaVA, Any]:
    if request.param in IDEFICS3:
        theirs = reference_idefics3(**IDEFICS3[request.param])
        side = theirs.config.vision_config.image_size
        return ours_of_idefics3(theirs, split(4 * side if side == SIDE else side)), theirs
    theirs = reference_llava(**KINDS[request.param])
    return ours_of(theirs), theirs


def expand(row: Sequence[int], inputs: Any, config: VisionConfig) -> list[int]:
    """One image token a picture → one a position, as transformers' processors write it."""
    marks, places = config.preprocessing.marks, []
    if marks is None:
        places = [[IMAGE_TOKEN] * count for count in inputs["tokens_per_image"]]
    else:
        for size in inputs["image_sizes"]:
            *tiles, end = marks.between(*split_grid(size, config))
            tile = [IMAGE_TOKEN] * config.tokens_per_tile
            places.append([one for ahead in tiles for one in (*ahead, *tile)] + list(end))
    return [t for i in row for t in (places.pop(0) if i == IMAGE_TOKEN else [i])]


def their_logits(
    theirs: Any, row: list[int], shown: list[Image.Image], inputs: Any, config: VisionConfig
) -> Tensor:
    """(T', V) of one row."""
    given: dict[str, Any] = {}
    if shown:
        given["pixel_values"] = inputs["pixel_values"]
        if hasattr(theirs.model, "connector"):
            given["pixel_values"] = inputs["pixel_values"][None]
        if hasattr(theirs.model, "image_newline"):
            tiles = torch.split(inputs["pixel_values"], list(inputs["tiles_per_image"]))
            given["pixel_values"] = torch.nn.utils.rnn.pad_sequence(list(tiles), batch_first=True)
            given["image_sizes"] = torch.tensor(inputs["image_sizes"])
    ids = torch.tensor([expand(row, inputs, config)])
    with torch.inference_mode():
        logits: Tensor = theirs(input_ids=ids, **given).logits[0]
    return logits


ROWS = {0: [1, 5, 6, 7], 1: [1, 8, IMAGE_TOKEN, 9, 10], 2: [IMAGE_TOKEN, 4, 4, IMAGE_TOKEN, 11]}


@torch.inference_mode()
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("expanded", [False, True])
def test_logits_equal_transformers(pair: tuple[LLaVA, Any], count: int, expanded: bool) -> None:
    ours, theirs = pair
    shown = pictures(count)
    inputs = pixels(*shown, config=ours.config.vision_config)
    row = ROWS[count]
    expected = their_logits(theirs, row, shown, inputs, ours.config.vision_config)
    ids = expand(row, inputs, ours.config.vision_config) if expanded else row
    given = dict(inputs) if shown else {}
    close(ours(torch.tensor([ids]), **given)[0], expected)


@torch.inference_mode()
@pytest.mark.parametrize("expanded", [False, True])
def test_several_pictures_of_onevision_without_tiles(expanded: bool) -> None:
    """What transformers makes of several pictures of one conversation, beside one in tiles."""
    theirs = reference_llava(**KINDS["onevision"])
    ours = ours_of(theirs)
    config = ours.config.vision_config
    processor = CLIPImageProcessor.from_config(config, mode="pad")
    shown = pictures(2)
    inputs = processor.preprocess(shown)
    ids = torch.tensor([expand(ROWS[2], inputs, config)])
    expected = theirs(
        input_ids=ids,
        pixel_values=inputs["pixel_values"][:, None],
        image_sizes=torch.tensor(inputs["image_sizes"]),
        batch_num_images=torch.tensor([2]),
    ).logits[0]
    row = ids if expanded else torch.tensor([ROWS[2]])
    close(ours(row, **inputs)[0], expected)
    one = ours(torch.tensor([ROWS[1]]), **pixels(shown[0], config=config))
    assert one.shape[1] > len(ROWS[1]) + 17


@torch.inference_mode()
@pytest.mark.parametrize("expanded", [False, True])
def test_a_batch_of_unequal_counts(pair: tuple[LLaVA, Any], expanded: bool) -> None:
    ours, theirs = pair
    shown = pictures(3)
    config = ours.config.vision_config
    inputs = pixels(*shown, config=config)
    parts = {2: shown[:2], 0: [], 1: shown[2:]}  # rows in this order
    rows, expected = [], []
    for count, part in parts.items():
        own = pixels(*part, config=config)
        row = ROWS[count]
        expected.append(their_logits(theirs, row, part, own, config))
        rows.append(expand(row, own, config) if expanded else row)
    lengths = [len(row) for row in rows]
    ids = torch.zeros(3, max(lengths), dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    prompt = ours.embed_prompt(ids, lengths, **inputs)
    cache = ours.make_cache(3, max(prompt.lengths) + 1)
    last = ours.forward_embeds(prompt.embeds, cache, prompt.lengths)
    whole = ours(ids, lengths, **inputs)
    for index, logits in enumerate(expected):
        assert prompt.lengths[index] == len(logits) == len(prompt.keys[index])
        close(whole[index, : len(logits)], logits)
        close(last[index], logits[-1])


def test_generation_over_64_tokens_is_token_identical(pair: tuple[LLaVA, Any]) -> None:
    ours, theirs = pair
    shown = pictures(2)
    inputs = pixels(*shown, config=ours.config.vision_config)
    row = list(ROWS[2])
    settings = GenerationConfig.greedy(max_new_tokens=64, ignore_eos=True)
    generated = TextGenerator(ours).generate(row, settings, **inputs).ids
    for token in generated:  # without a cache: what every other way must equal
        best = int(their_logits(theirs, row, shown, inputs, ours.config.vision_config)[-1].argmax())
        assert token == best
        row.append(best)


def test_a_batch_generates_what_each_prompt_does_alone(pair: tuple[LLaVA, Any]) -> None:
    ours, _ = pair
    config = ours.config.vision_config
    shown = pictures(3)
    settings = GenerationConfig.greedy(max_new_tokens=8, ignore_eos=True)
    generator = TextGenerator(ours)
    together = generator.generate_batch(
        [ROWS[2], ROWS[0], ROWS[1]], settings, **pixels(*shown, config=config)
    )
    alone = [
        generator.generate(ROWS[2], settings, **pixels(*shown[:2], config=config)),
        generator.generate(ROWS[0], settings),
        generator.generate(ROWS[1], settings, **pixels(*shown[2:], config=config)),
    ]
    assert [result.ids for result in together] == [result.ids for result in alone]


@pytest.fixture
def llava() -> LLaVA:
    return ours_of(reference_llava())


class TestLLaVA(CausalLMSuite):
    @pytest.fixture
    def model(self, llava: LLaVA) -> CausalLM:
        return llava

    def ids(self, model: CausalLM, batch: int, length: int, seed: int = 0) -> Tensor:
        return super().ids(model, batch, length, seed) % IMAGE_TOKEN  # no image tokens


class TestLlavaFamily(ModelFamilySuite):
    @pytest.fixture
    def family(self) -> ModelFamily:
        return LlavaFamily()

    @pytest.fixture
    def config(self, llava: LLaVA) -> Mapping[str, JSON]:
        return llava.config.to_json()

    def build_text(self, config: Mapping[str, JSON]) -> CausalLMModule:
        return LlamaFamily().build(config, self.build_text)

    def test_is_found_by_its_name(self, family: ModelFamily, config: Mapping[str, JSON]) -> None:
        from importlib.metadata import entry_points

        (found,) = entry_points(group="lolama.families", name="llava")
        assert found.load() is LlavaFamily
        assert family.image_processor(config) is not None


class TestAroundAnyTextModel:
    def build(self, llava: LLaVA, family: JSON, *known: ModelFamily) -> CausalLMModule:
        model = llava.config.to_json()
        text = model["text_config"]
        assert isinstance(text, dict)
        model["text_config"] = {"family": family, **text}
        files = ModelFiles(
            name="m",
            config={**tiny_config(), "family": "llava", "model": model},
            tensors={},
            tokenizer=TokenizerFiles(),
        )
        families = {one.name: one for one in (LlavaFamily(), *known)}
        return build_module(files, families)

    def test_the_family_that_the_text_model_names_builds_it(self, llava: LLaVA) -> None:
        class Other(Llama):
            pass

        class OtherFamily(LlamaFamily):
            name = "other"

            def build(
                self,
                config: Mapping[str, JSON],
                build_text: Callable[[Mapping[str, JSON]], CausalLMModule],
            ) -> Llama:
                with torch.device("meta"):
                    return Other(LlamaConfig.from_json(config))

        for family, kind in (("other", Other), ("llama", Llama)):
            built = self.build(llava, family, OtherFamily())
            assert isinstance(built, LLaVA) and type(built.language_model) is kind

    @pytest.mark.parametrize("family", ["rwkv", None, 3, ["llama"]])
    def test_row_241_a_text_model_of_an_unknown_family_is_refused_by_name(
        self, llava: LLaVA, family: JSON
    ) -> None:
        expected = re.escape(f"m: no installed package provides the model family {family!r};")
        with pytest.raises(NotAvailableError, match=expected):
            self.build(llava, family)


class TestMemory:
    def test_the_language_model_answers_for_device_and_dtype(self, llava: LLaVA) -> None:
        llava.language_model.to(torch.bfloat16)
        assert llava.dtype == torch.bfloat16
        first = next(llava.parameters())
        assert first is next(llava.language_model.parameters())
        assert llava.device == first.device

    def encodings(self, llava: LLaVA, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        tiles: list[int] = []
        forward = llava.vision_tower.forward

        def counting(pixel_values: Tensor) -> Tensor:
            tiles.append(len(pixel_values))
            return forward(pixel_values)

        monkeypatch.setattr(llava.vision_tower, "forward", counting)
        return tiles

    @torch.inference_mode()
    def test_a_picture_is_encoded_once(self, llava: LLaVA, monkeypatch: pytest.MonkeyPatch) -> None:
        tiles = self.encodings(llava, monkeypatch)
        one, other = pictures(2)
        first = llava(torch.tensor([ROWS[1]]), **pixels(one))
        assert torch.equal(first, llava(torch.tensor([ROWS[1]]), **pixels(one.copy())))
        assert tiles == [1]
        llava(torch.tensor([ROWS[2]]), **pixels(one, other))
        assert tiles == [1, 1]  # the new one alone
        llava(torch.tensor([ROWS[2]]), **pixels(random_picture(random.Random(5), 9, 9), one))
        llava(torch.tensor([[IMAGE_TOKEN, IMAGE_TOKEN]]), **pixels(*[Image.new("RGB", (9, 9))] * 2))
        assert tiles == [1, 1, 1, 1]

    @torch.inference_mode()
    def test_row_319_a_picture_of_many_tiles_is_encoded_in_parts(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """17 tiles in two parts, with the features of each tile alone."""
        ours = ours_of_idefics3(reference_idefics3())
        config = ours.config.vision_config
        inputs = pixels(random_picture(random.Random(1), 90, 90), config=config)
        assert inputs["tiles_per_image"] == [17]
        tiles = self.encodings(ours, monkeypatch)
        together = ours(torch.tensor([ROWS[1]]), **inputs)
        assert tiles == [16, 1]
        monkeypatch.setattr("lolama_vision.llava._TILES_AT_ONCE", 1)
        ours.features.clear()
        close(ours(torch.tensor([ROWS[1]]), **inputs), together)
        assert tiles == [16, 1, *[1] * 17]

    @torch.inference_mode()
    def test_features_of_other_weights_are_not_used(
        self, llava: LLaVA, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tiles = self.encodings(llava, monkeypatch)
        inputs = pixels(*pictures(1))
        llava(torch.tensor([ROWS[1]]), **inputs)
        layer: Any = llava.vision_tower.layers[0].feed_forward
        layer.fc1 = torch.nn.Linear(32, 72)  # as a quantizer swaps it
        llava(torch.tensor([ROWS[1]]), **inputs)
        llava.double()
        llava(torch.tensor([ROWS[1]]), **inputs)
        assert tiles == [1, 1, 1]

    @torch.no_grad()
    def test_features_of_weights_that_were_written_to_are_not_used(
        self, llava: LLaVA, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As an optimizer does between two evaluations, or `load_state_dict`."""
        tiles = self.encodings(llava, monkeypatch)
        inputs = pixels(*pictures(1))
        for write in (
            lambda: llava.get_parameter("projector.linear_1.weight").mul_(2),
            lambda: llava.load_state_dict(llava.state_dict()),
        ):
            llava(torch.tensor([ROWS[1]]), **inputs)
            write()
        llava(torch.tensor([ROWS[1]]), **inputs)
        assert tiles == [1, 1, 1]

    def test_the_cache_of_features_is_bounded(self, llava: LLaVA) -> None:
        one, two, three = (torch.zeros(4, 8) for _ in range(3))
        llava.features.max_bytes = 2 * one.nbytes
        llava.features.put(1, one)
        llava.features.put(2, two)
        assert llava.features.get(1) is one
        llava.features.put(3, three)
        assert (llava.features.get(2), llava.features.get(1)) == (None, one)
        llava.features.put(4, torch.zeros(4, 800))
        assert llava.features.nbytes == 2 * one.nbytes

    @torch.inference_mode()
    def test_the_tower_is_on_the_device_only_while_it_encodes(
        self, llava: LLaVA, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stand-in takes the moves, so that no GPU is needed."""
        moves: list[str] = []
        monkeypatch.setattr(llava.vision_tower, "to", lambda device: moves.append(str(device)))
        with llava._tower_on(torch.device("cuda")):
            assert moves == ["cuda"]
        assert moves == ["cuda", "cpu"]

        def fail() -> None:
            with llava._tower_on(torch.device("cuda")):
                raise MemoryError

        with pytest.raises(MemoryError):
            fail()
        assert moves == ["cuda", "cpu", "cuda", "cpu"]

    def test_gradients_reach_the_tower(self, llava: LLaVA) -> None:
        llava.requires_grad_(True)
        loss = llava(torch.tensor([ROWS[1]]), **pixels(*pictures(1))).sum()
        loss.backward()  # type: ignore[no-untyped-call] # torch has no type for it
        assert llava.vision_tower.patch_embedding.weight.grad is not None
        assert llava.features.nbytes == 0


def test_prefixes_of_different_pictures_are_told_apart(llava: LLaVA) -> None:
    one, other = pictures(2)
    settings = GenerationConfig.greedy(max_new_tokens=6, ignore_eos=True)
    plain = TextGenerator(llava)
    reusing = TextGenerator(llava, prefix_cache=PrefixCache(1 << 24))
    prompt = [*[5] * 9, *ROWS[1]]
    for shown, cached in ((one, 0), (other, 9 + 2), (one, len(prompt) + FEATURES - 2)):
        result = reusing.generate(prompt, settings, **pixels(shown))
        assert result.ids == plain.generate(prompt, settings, **pixels(shown)).ids
        assert result.cached_tokens == cached


def test_row_284_the_first_picture_leaves_what_was_read_before() -> None:
    """The encoder says from then on what it was like. That makes no other model of it."""
    model = ours_of(reference_llava())
    generator = TextGenerator(model, prefix_cache=PrefixCache(1 << 24))
    text = list(range(1, 21))
    settings = GenerationConfig.greedy(max_new_tokens=1, ignore_eos=True)
    assert generator.generate(text, settings).cached_tokens == 0
    generator.generate(ROWS[1], settings, **pixels(*pictures(1)))
    assert generator.generate(text, settings).cached_tokens == 19


class TestRow76:
    """The number of image tokens against the number of pictures."""

    @pytest.mark.parametrize(
        ("row", "count", "words"),
        [
            ([1, 2], 1, "has 0 <image> for 1 picture"),
            ([IMAGE_TOKEN, 2, IMAGE_TOKEN], 1, "has 2 <image> for 1 picture"),
            ([IMAGE_TOKEN] * 15 + [3], 1, "has 15 <image> for 1 picture"),
            ([IMAGE_TOKEN] * 17, 1, "has 17 <image> for 1 picture"),
            ([1, IMAGE_TOKEN], 0, "has 1 <image> for 0 pictures"),
            ([IMAGE_TOKEN] * 8 + [1] + [IMAGE_TOKEN] * 24, 2, "not in runs as long as"),
        ],
    )
    def test_row_76_mismatches_are_refused(
        self, llava: LLaVA, row: list[int], count: int, words: str
    ) -> None:
        given = dict(pixels(*pictures(count))) if count else {}
        with pytest.raises(UsageError) as caught:
            llava.embed_prompt(torch.tensor([row]), [len(row)], **given)
        assert words in str(caught.value)

    def test_inputs_that_contradict_each_other(self, llava: LLaVA) -> None:
        ids, inputs = torch.tensor([ROWS[1]]), dict(pixels(*pictures(1)))
        for change in (
            {"pixel_values": torch.zeros(1, 3, 8, 8)},
            {"pixel_values": torch.zeros(3, SIDE, SIDE)},
            {"pixel_values": torch.zeros(2, 3, SIDE, SIDE)},
            {"tiles_per_image": [2]},
            {"tokens_per_image": [3]},
            {"no_such_input": 1},
        ):
            with pytest.raises(UsageError, match=next(iter(change))):
                llava.embed_prompt(ids, [5], **{**inputs, **change})

    def test_tiles_need_the_sizes(self) -> None:
        model = ours_of(reference_llava("LlavaNext"))
        inputs = pixels(*pictures(1), config=model.config.vision_config)
        with pytest.raises(UsageError, match="image_sizes: is missing"):
            model.embed_prompt(torch.tensor([ROWS[1]]), [5], pixel_values=inputs["pixel_values"])

    def test_pixels_alone_suffice_without_tiles(self, llava: LLaVA) -> None:
        inputs = pixels(*pictures(2))
        prompt = llava.embed_prompt(
            torch.tensor([ROWS[2]]), [5], pixel_values=inputs["pixel_values"]
        )
        assert prompt.lengths == (5 + 2 * (FEATURES - 1),)


def test_a_context_that_pictures_fill_is_refused() -> None:
    model = ours_of(reference_llava(text_changes={"max_position_embeddings": 20}))
    with pytest.raises(UsageError, match="has 36 tokens, more than the 20"):
        TextGenerator(model).generate([IMAGE_TOKEN] * 2 + [1] * 4, **pixels(*pictures(2)))


def test_row_104_bytes_are_those_of_the_values() -> None:
    values = torch.randn(2, 3)
    expected = struct.pack("<6f", *values.flatten().tolist())
    assert bytes_of(values) == bytes_of(torch._neg_view(-values)) == expected
    assert bytes_of(values.t().contiguous().t()) == expected


def test_a_model_with_pictures_is_observed_and_ablated_as_its_text_model_is() -> None:
    model = ours_of(reference_llava())
    given = pixels(*pictures(1))
    prompt = model.embed_prompt(torch.tensor([ROWS[1]]), [len(ROWS[1])], **given)
    expected = model.forward_embeds(prompt.embeds, logits="all")
    with observe(model) as seen:
        close(model.forward_embeds(prompt.embeds, logits="all"), expected)
    (found,) = seen.passes
    close(seen.logits_after(found, -1), expected)
    # What stands behind a picture looks at its positions.
    assert found.layers[0].attention.shape[-1] == FEATURES + len(ROWS[1]) - 1
    assert (found.layers[0].attention[0, :, -1, 2 : 2 + FEATURES] > 0).all()
    with ablate(model, layers=[0]):
        assert not torch.allclose(model.forward_embeds(prompt.embeds, logits="all"), expected)
