"""What somebody else has set for the whole process, beside pictures, int8, and folders of the Hub.

lolama-core's own tests go through every entrance of generation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.test_parity import save, write_tokenizer

from lolama import GenerationConfig, TextGenerator, load_model, load_tokenizer
from lolama.data import load_llava_model
from lolama.model import quantize_model_int8
from lolama.vision import CLIPImageProcessor
from lolama_quant import measure_quality

GREEDY = GenerationConfig.greedy(max_new_tokens=8)
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "4.png"


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES: dict[str, Any] = {
    "with_device": lambda: torch.device("meta"),
    "default_device": default_device,
    "default_dtype": default_dtype,
    "inference_mode": torch.inference_mode,
    "deterministic": deterministic,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest) -> AbstractContextManager[None]:
    made: AbstractContextManager[None] = STATES[request.param]()
    return made


def seen() -> tuple[torch.Tensor, object]:
    """The pixels of a picture, and what the built-in model says of it."""
    model, tokenizer = load_llava_model("demo-vision", device="cpu"), load_tokenizer("demo-vision")
    processor = CLIPImageProcessor.from_config(model._vlm_config.vision_config)
    inputs = processor.preprocess(Image.open(PICTURE))
    assert processor.preprocess([])["pixel_values"].dtype == torch.float32
    generator = TextGenerator(model, tokenizer)
    text = generator.generate("<image>\nWhat is in the picture?", GREEDY, **inputs).text
    return inputs["pixel_values"], text


def quantized() -> dict[str, object]:
    model, tokenizer = load_model("demo", device="cpu"), load_tokenizer("demo")
    dense = load_model("demo", device="cpu")
    report = quantize_model_int8(model)
    generator = TextGenerator(model, tokenizer)
    quality = measure_quality(
        dense, model, tokenizer, ["Once upon a time there was a little girl."]
    )
    return {
        "bytes": (report.bytes_before, report.bytes_after),
        "long": generator.generate(list(range(5, 45)), GREEDY).ids,
        "batch": [row.ids for row in generator.generate_batch(["Once", "One day"], GREEDY)],
        "quality": round(quality.perplexity, 2),
    }


def test_row_122_pictures(state: AbstractContextManager[None]) -> None:
    pixels, text = seen()
    with state:
        found, told = seen()
    assert found.dtype == torch.float32 and not found.is_inference()
    assert torch.equal(found, pixels)
    assert told == text


def test_row_122_quantizing(state: AbstractContextManager[None]) -> None:
    expected = quantized()
    with state:
        assert quantized() == expected


def test_row_122_what_was_quantized_there_is_of_the_ordinary_kind(
    state: AbstractContextManager[None],
) -> None:
    with state:
        model: Any = load_model("demo", device="cpu")
        quantize_model_int8(model)
    assert not any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))


def test_row_122_a_folder_of_the_hub(state: AbstractContextManager[None], tmp_path: Path) -> None:
    """The folder holds safetensors, or a ``.bin`` file that is converted there."""
    theirs = save("qwen2", tmp_path / "safetensors")
    write_tokenizer(tmp_path / "safetensors")
    expected = TextGenerator(load_model(tmp_path / "safetensors", device="cpu")).score([5, 6, 7])
    theirs.save_pretrained(tmp_path / "bin")
    (tmp_path / "bin" / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    write_tokenizer(tmp_path / "bin")
    with state:
        for name in ("safetensors", "bin"):
            model = load_model(tmp_path / name, device="cpu")
            torch.testing.assert_close(TextGenerator(model).score([5, 6, 7]), expected)


def test_row_123_int8_and_pictures_in_float64() -> None:
    """Made float64 they work, and say what they said."""
    model: Any = load_model("demo", device="cpu")
    quantize_model_int8(model)
    prompt = list(range(5, 45))
    before = TextGenerator(model).score(prompt)
    model.double()
    generator = TextGenerator(model)
    torch.testing.assert_close(generator.score(prompt), before, atol=0.2, rtol=0.1)
    assert len(generator.generate(prompt, GREEDY, ignore_eos=True).ids) == 8
    rows = generator.generate_batch([prompt, prompt[:3]], GREEDY, ignore_eos=True)
    assert [len(row.ids) for row in rows] == [8, 8]

    eye, tokenizer = load_llava_model("demo-vision", device="cpu"), load_tokenizer("demo-vision")
    processor = CLIPImageProcessor.from_config(eye._vlm_config.vision_config)
    inputs = processor.preprocess(Image.open(PICTURE))
    question = "<image>\nWhat is in the picture?"
    said = TextGenerator(eye, tokenizer).generate(question, GREEDY, **inputs).text
    eye.double()
    assert TextGenerator(eye, tokenizer).generate(question, GREEDY, **inputs).text == said
