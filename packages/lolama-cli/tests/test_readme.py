"""The examples of the READMEs and of docs/python.md, run as they stand there.

Where one names a folder or a file, the test has put one there; a model that would have to be downloaded is
refused, since there is no network.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from drawings import circle
from warm_program import WarmProgram

from lolama_core.protocols.errors import NetworkError

README = Path(__file__).resolve().parents[3] / "README.md"

PAGES = [README, *sorted(README.parent.glob("packages/*/README.md"))]

if not README.is_file():
    pytest.skip("this is not the repository", allow_module_level=True)

# What sets up an environment, or runs these very tests.
_NOT_RUN = ("pip", "python3", "lolama serve")  # which ends when it is told to: test_serve.py
_DOWNLOADED = (
    *('lolama generate "The capital', "lolama pull tinyllama"),
    "lolama generate -m qwen3:0.6b",
)

# The commands that lolama's first README showed: they mean the same as then.
FIRST_COMMANDS = """
lolama generate "The key to understanding transformers is"
lolama generate -m open_llama_3b "The key to understanding transformers is"
lolama chat
lolama generate -m llava-1.5-7b --image photo.jpg "Describe this image in detail"
lolama generate -m llava-med --image xray.png "What abnormalities do you see?"
lolama generate -m llava-1.5-7b --image photo.jpg --quantize "What is happening here?"
lolama models
lolama generate -m open_llama_3b "Write a haiku about recursion"
lolama generate --temperature 0.0 "The capital of France is"
lolama generate --quantize "Explain quantum computing"
echo "Explain transformers" | lolama generate
lolama -v generate "hello"
"""
# These are the parts of its examples in Python that could have been lost.
FIRST_PYTHON = (
    """
from lolama import load_model, load_tokenizer, TextGenerator

model = load_model("tinyllama")
tokenizer = load_tokenizer("tinyllama")
generator = TextGenerator(model)
""",
    """
input_ids = tokenizer.encode("Once upon a time", return_tensors="pt")
input_ids = input_ids.to(next(model.parameters()).device)
""",
    """
for token_id in generator.generate_stream(input_ids, max_new_tokens=100):
    print(tokenizer.decode([token_id]), end="", flush=True)
""",
    """
from PIL import Image
from lolama.data import load_llava_model, load_tokenizer
from lolama.model import TextGenerator
from lolama.vision import CLIPImageProcessor

# Load model and tokenizer
model = load_llava_model("llava-1.5-7b")
tokenizer = load_tokenizer("llava-1.5-7b")
generator = TextGenerator(model)

# Process image
processor = CLIPImageProcessor.from_config(model._vlm_config.vision_config)
image = Image.open("photo.jpg")
pixel_values = processor.preprocess(image)["pixel_values"]
pixel_values = pixel_values.to(model.device, dtype=model.dtype)

# Build prompt with <image> placeholder
prompt = "<image>\\nDescribe this image in detail."
input_ids = tokenizer.encode(prompt, return_tensors="pt").to(model.device)

# Generate
for token_id in generator.generate_stream(input_ids, pixel_values=pixel_values, max_new_tokens=256):
    print(tokenizer.decode([token_id]), end="", flush=True)
""",
    """
from lolama import load_model
from lolama.model import quantize_model_int8, get_model_size_mb

model = load_model("tinyllama")
print(f"Original: {get_model_size_mb(model):.0f} MB")

quantize_model_int8(model)
print(f"Quantized: {get_model_size_mb(model):.0f} MB")  # ~2x smaller (fp16 → int8)
""",
    """
from lolama import Llama, LlamaConfig

config = LlamaConfig(
    vocab_size=32000,
    d_model=2048,
    num_heads=32,
""",
    """
    num_layers=22,
    hidden_dim=5632,
    max_seq_len=4096,
    rope_base=10000,
)
model = Llama(config)
""",
)


def built_in(text: str) -> str:
    """``text`` with a built-in model in the place of one that is downloaded."""
    text = re.sub("tinyllama|open_llama_3b", "demo", text)
    return re.sub("llava-1.5-7b|llava-med", "demo-vision", text)


def blocks(language: str, page: Path = README) -> list[str]:
    """The blocks of code of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, warm: WarmProgram, published: Path) -> Path:
    """Where everything lies that the examples name."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("photo.jpg", "xray.png"):
        circle().save(folder / name)
    (folder / "docs").symlink_to(README.parent / "docs")
    (folder / "book.txt").write_text("Once upon a time there was a dog. It lived by the sea.")
    (folder / "prompts.jsonl").write_text('"Once upon a time"\n{"prompt": "Hello", "seed": 1}\n')
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "TinyLlama-1.1B-Chat-v1.0").symlink_to(published)
    outcome = warm.run("convert", "demo", folder / "path" / "to" / "model")
    assert outcome.code == 0, outcome.err
    return folder


def run_line(
    line: str, folder: Path, warm: WarmProgram, *, stdin: str = "", model: str = ""
) -> str:
    """Run a line of a shell: ``[echo TEXT |] lolama ...``. What it wrote, or its error."""
    words = shlex.split(line, comments=True)
    if words[0] == "echo":
        stdin = words[1] + "\n"
        assert words[2] == "|"
        words = words[3:]
    assert words[0] == "lolama"
    env = {"LOLAMA_CONFIG": str(folder / "config.toml"), "LOLAMA_HOME": str(folder / "home")}
    if model:
        env["LOLAMA_MODEL"] = model
    outcome = warm.run(*words[1:], stdin=stdin.encode(), env=env, folder=folder)
    if line.startswith(_DOWNLOADED) and not model:
        assert outcome.code == 4 and outcome.out == b"", outcome.err
        return outcome.err
    assert outcome.code == 0, f"{line}: {outcome.err}"
    return outcome.out.decode()


def test_every_command_runs(folder: Path, warm: WarmProgram) -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines() if line]
    shown = [line for line in lines if not line.startswith(_NOT_RUN)]
    assert len(shown) >= 15
    for line in shown:
        out = run_line(line, folder, warm)
        assert out or "config set" in line or "-o answers" in line, line
    # The last of them set a default; the answers of the batch are where it says.
    assert "demo" in (folder / "config.toml").read_text()
    assert (folder / "answers.jsonl").read_text().count("\n") == 2


def test_row_364_the_second_run_with_a_prompt_cache_knows_the_prompt(
    folder: Path, warm: WarmProgram
) -> None:
    [line] = [line for line in README.read_text("utf-8").splitlines() if "--prompt-cache" in line]
    line = line.partition("#")[0] + "--json"
    run_line(line, folder, warm)
    facts = json.loads(run_line(line, folder, warm))
    assert facts["cached_tokens"] == facts["prompt_tokens"] - 1


def test_what_was_captured_can_be_done_again(folder: Path, warm: WarmProgram) -> None:
    talk, described, *_ = (b for b in blocks("console") if "$ lolama" in b)
    command, *lines = talk.splitlines()
    said = [line.removeprefix("> ") for line in lines if line.startswith("> ")]
    replies = run_line(command.removeprefix("$ "), folder, warm, stdin="\n".join(said))
    assert "Two plus three is five." in replies and "A cow says moo." in replies
    command, answer = described.splitlines()
    assert run_line(command.removeprefix("$ "), folder, warm).startswith(answer[:20])


def run_example(example: str, page: Path, names: dict[str, object]) -> str:
    """What it printed. A model that it would have to download is refused, since there is no network."""
    # What a model is made of by itself would fill gigabytes with random numbers.
    place = torch.device("meta" if "vocab_size=32000" in example else "cpu")
    downloads = '"tinyllama"' in example
    refused = pytest.raises(NetworkError) if downloads else contextlib.nullcontext()
    with contextlib.redirect_stdout(io.StringIO()) as out, place, refused:
        exec(compile(example, str(page), "exec"), names)
    return "refused" if downloads else out.getvalue()


@pytest.fixture
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LOLAMA_HOME", str(folder / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_example_in_python_runs_alone(page: Path) -> None:
    examples = blocks("python", page)
    assert examples
    for example in examples:
        assert run_example(example, page, {}) or "print" not in example


@pytest.mark.usefixtures("there")
def test_the_examples_of_the_page_on_python_go_on_from_each_other() -> None:
    page = README.parent / "docs" / "python.md"
    examples, names = blocks("python", page), dict[str, object]()
    assert len(examples) > 15
    for example in examples:
        out = run_example(example, page, names)
        assert out or "print" not in example
        for line in re.findall(r"^print.*\)  # (.+\.|\d+)$", example, re.M):
            assert line in out


def test_the_first_example_is_at_the_top() -> None:
    top = README.read_text("utf-8").splitlines()[:10]
    assert 'llm = lolama.load("demo")' in top and 'print(llm.generate("Once upon a time"))' in top


def test_the_first_examples_in_python_are_among_them() -> None:
    text = re.sub(r"  #[^\n]*", "", "\n".join(blocks("python")))
    for example in FIRST_PYTHON:
        assert re.sub(r"  #[^\n]*", "", built_in(example)).strip("\n") in text


def test_the_first_commands_still_run(folder: Path, warm: WarmProgram) -> None:
    for line in FIRST_COMMANDS.strip().splitlines():
        out = run_line(built_in(line), folder, warm, stdin="hello\n", model="demo")
        assert out, line
