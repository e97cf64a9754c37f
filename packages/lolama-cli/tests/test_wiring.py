"""The Python face: names → models, and the imports that users were promised."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from drawings import circle
from known_model import write_hugging_face
from warm_program import run

import lolama
import lolama.data
import lolama.vision
from lolama import TextGenerator, load_model, load_tokenizer, names, wiring
from lolama.convert import convert
from lolama_core.protocols.errors import ModelError, NotAvailableError, UsageError


def test_the_first_example_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    from lolama import TextGenerator, load_model, load_tokenizer

    model = load_model("demo")
    tokenizer = load_tokenizer("demo")
    generator = TextGenerator(model)

    # Tokenize and move to model device
    input_ids = tokenizer.encode("The meaning of life is", return_tensors="pt")
    input_ids = input_ids.to(next(model.parameters()).device)

    # Stream tokens as they're generated
    for token_id in generator.generate_stream(input_ids, max_new_tokens=20):
        print(tokenizer.decode([token_id]), end="", flush=True)

    assert capsys.readouterr().out


def test_the_vision_example_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word for word, with the built-in model in the place of the alias."""
    circle().save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)

    from PIL import Image

    from lolama.data import load_llava_model, load_tokenizer
    from lolama.model import TextGenerator
    from lolama.vision import CLIPImageProcessor

    # Load model and tokenizer
    model = load_llava_model("demo-vision")
    tokenizer = load_tokenizer("demo-vision")
    generator = TextGenerator(model)

    # Process image
    processor = CLIPImageProcessor.from_config(model._vlm_config.vision_config)
    image = Image.open("photo.jpg")
    pixel_values = processor.preprocess(image)["pixel_values"]
    pixel_values = pixel_values.to(model.device, dtype=model.dtype)

    # Build prompt with <image> placeholder
    prompt = "<image>\nDescribe this image in detail."
    input_ids = tokenizer.encode(prompt, return_tensors="pt").to(model.device)

    # Generate
    for token_id in generator.generate_stream(
        input_ids, pixel_values=pixel_values, max_new_tokens=256
    ):
        print(tokenizer.decode([token_id]), end="", flush=True)

    assert capsys.readouterr().out == "A large red circle in the centre."


def test_names_are_imported_when_they_are_used() -> None:
    program = (
        "import lolama, sys; assert 'torch' not in sys.modules; print(*sorted(lolama.__all__))"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert shown == sorted(shown)
    assert {"load_model", "load_tokenizer", "TextGenerator", "Llama", "LlamaConfig"} <= set(shown)
    for name in shown:
        assert getattr(lolama, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        lolama.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_a_lolama_checkpoint_a_hugging_face_folder_and_a_path_object(
    base: Path, tmp_path: Path
) -> None:
    folder = write_hugging_face(tmp_path / "published")
    for name in (str(base), base, folder):
        files = names.resolve(name)
        assert (files.name, files.family) == (str(name), "llama")
        assert names.context_length(files) == 4096
        assert not files.immutable
    assert names.resolve("demo").immutable


def test_built_in_comes_before_a_directory_of_that_name(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").symlink_to(base)
    monkeypatch.chdir(tmp_path)
    assert names.resolve("demo").config["model"]["d_model"] != 288
    assert names.resolve("./demo").config["model"]["d_model"] == 288


def test_a_damaged_checkpoint_is_named(base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json"):
        names.resolve(tmp_path)


@pytest.mark.parametrize("name", ["\0", "x" * 5000, "a b/c", "../etc/x", "~nobody/x", ""])
def test_names_that_mean_nothing(name: str) -> None:
    with pytest.raises(UsageError):
        names.resolve(name)


def test_what_is_not_there_yet_says_so(base: Path) -> None:
    with pytest.raises(UsageError, match="text model"):
        lolama.data.load_llava_model(base)
    with pytest.raises(AttributeError):
        lolama.vision.anything  # noqa: B018


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**kwargs: str) -> Iterator[object]:
        return iter(())

    monkeypatch.setattr("lolama_core.plugins.entry_points", none)
    with pytest.raises(
        NotAvailableError, match="source 'huggingface'; run `pip install lolama-hub`"
    ):
        names.resolve("tinyllama")


@pytest.fixture
def wordless(published: Path, tmp_path: Path) -> Path:
    """What transformers' ``model.save_pretrained`` writes: no tokenizer."""
    folder = Path(shutil.copytree(published, tmp_path / "wordless"))
    for path in folder.glob("*token*"):
        path.unlink()
    return folder


def test_row_128_weights_without_a_tokenizer(
    published: Path, wordless: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    ids = torch.tensor([load_tokenizer(published).encode("xyz")])

    def logits(folder: Path, *, quantize: bool = False) -> torch.Tensor:
        model = load_model(folder, quantize=quantize)
        return model.forward_embeds(model.embed(ids), logits="all")

    expected = logits(published)
    assert torch.equal(logits(wordless), expected)
    assert logits(wordless, quantize=True).shape == expected.shape
    convert(wordless, tmp_path / "copy")
    assert torch.equal(logits(tmp_path / "copy"), expected)
    generated = TextGenerator(load_model(wordless)).generate(ids, max_new_tokens=3, temperature=0)
    assert load_tokenizer(published).decode(generated.ids) == "abc"
    for folder in (wordless, tmp_path / "copy"):
        with pytest.raises(ModelError, match=r"has no tokenizer: neither tokenizer\.json nor"):
            load_tokenizer(folder)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("generate", "-m"), 3), (("chat", "-m"), 3), (("bench", "-m"), 3), (("info",), 0)],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_row_128_commands_say_that_there_is_no_tokenizer(
    wordless: Path, arguments: tuple[str, ...], code: int
) -> None:
    outcome = run(*arguments, wordless, stdin=b"z\n")
    if code:
        outcome.refused(code, "has no tokenizer: neither tokenizer.json nor tokenizer.model")
    else:
        assert outcome.code == 0


@pytest.mark.parametrize("model", ["demo", "demo-vision"])
@pytest.mark.parametrize(
    ("value", "found"), [(None, "is missing"), (-1, "is -1, expected"), ("a", "is 'a', expected")]
)
def test_row_214_a_field_is_named_with_its_file(
    tmp_path: Path, model: str, value: object, found: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(names.builtin_models()[model], folder)
    config = json.loads((folder / "config.json").read_text())
    inside = "text_config." if model == "demo-vision" else ""
    block = config["model"]["text_config"] if inside else config["model"]
    del block["num_layers"]
    if value is not None:
        block["num_layers"] = value
    (folder / "config.json").write_text(json.dumps(config))
    expected = f"{folder}/config.json: model.{inside}num_layers {found}"
    for use in (wiring.load_model, lambda name: wiring.check(names.resolve(name))):
        with pytest.raises(ModelError) as caught:
            use(str(folder))
        assert str(caught.value).startswith(expected)


def test_row_214_a_number_is_shown_as_a_number(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(names.builtin_models()["demo"], folder)
    config = json.loads((folder / "config.json").read_text())
    for value, shown in ((-1, "-1"), ("-1", "'-1'"), (True, "true")):
        (folder / "config.json").write_text(json.dumps({**config, "tokenizer": value}))
        with pytest.raises(ModelError, match=f"tokenizer is {shown}; expected an object"):
            names.resolve(str(folder))
