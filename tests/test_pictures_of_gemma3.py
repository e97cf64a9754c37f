"""Gemma 3 with pictures: what is said of them against transformers' processor, and texts about them."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import lolama
from lolama import LanguageModel
from lolama.command_prompts import PreparedImages
from lolama.model import quantize_model_int8
from lolama.names import resolve
from lolama.prompts import message_content
from lolama.vision import count_positions, processor_of
from lolama.wiring import load_files, tokenizer_of
from lolama_cli.prompts import encode_prompt
from lolama_core import Engine, GenerationConfig, Tokenizer
from lolama_core.protocols.types import Message, ModelFiles
from lolama_core.testing import tiny
from lolama_vision import LLaVA

CONTROL = (
    *("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
)
BOS, EOS, _, END, FIRST, LAST, IMAGE_TOKEN = range(256, 263)
BREAKS = (263, 264)
"""Two line breaks in a row, and three."""
VOCABULARY = 265
SIDE = 56

# As google/gemma-3-4b-it has it.
TEMPLATE = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose windows are shorter than a picture, with a tokenizer of bytes."""
    import transformers

    config = transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            max_position_embeddings=1024,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=0,
        ),
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": 7,
        },
        mm_tokens_per_image=16,
        boi_token_index=FIRST,
        eoi_token_index=LAST,
        image_token_index=IMAGE_TOKEN,
    )
    torch.manual_seed(2)
    model: Any = transformers.Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    folder: Path = tmp_path_factory.mktemp("gemma3") / "gemma3"
    model.eval().save_pretrained(folder)
    names = {c: i for i, c in enumerate(sorted(tiny.byte_characters()))}
    names |= {name: 256 + n for n, name in enumerate(CONTROL)}
    line = "\u010a"  # a line break, as the tokenizer writes it
    names |= {line * 2: BREAKS[0], line * 3: BREAKS[1]}
    merges = [(line, line), (line * 2, line)]
    text = tiny.byte_level(names, merges, specials=CONTROL, bos="<bos>", words=False)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<eos>",
        "extra_special_tokens": {
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    size = {"height": SIDE, "width": SIDE}
    processor = {"image_processor_type": "Gemma3ImageProcessor", "size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    """transformers' processor."""
    import transformers

    return transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessorPil.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        chat_template=TEMPLATE,
        image_seq_length=16,
    )


@pytest.fixture
def llm(folder: Path) -> LanguageModel:
    return lolama.load(folder, device="cpu", dtype="float32")


def picture(shade: int) -> Image.Image:
    return Image.linear_gradient("L").rotate(shade).convert("RGB").resize((40 + shade, 30))


def in_one(ids: list[int]) -> list[int]:
    """One id for each run of those of a picture."""
    groups = ((i, len(list(run))) for i, run in groupby(ids))
    assert all(count == 16 for i, count in [*groups] if i == IMAGE_TOKEN)
    runs = ((i, list(run)) for i, run in groupby(ids))
    return [one for i, run in runs for one in (run[:1] if i == IMAGE_TOKEN else run)]


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("system", [False, True])
def test_a_conversation_is_what_their_processor_makes_of_it(
    folder: Path, theirs: Any, count: int, system: bool
) -> None:
    files = resolve(folder)
    said: list[Message] = [
        {"role": "user", "content": message_content("\nWhat is it?", count, parts=True)},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}, {"type": "image"}]},
    ]
    if system:
        said.insert(0, {"role": "system", "content": [{"type": "text", "text": "Be brief."}]})
    text: str = theirs.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    given = {"images": [picture(n) for n in range(count + 1)], "add_special_tokens": False}
    [expected] = theirs(text=text, **given)["input_ids"]
    ids = tokenizer_of(files).render_chat(said)
    assert list(ids) == in_one(expected)
    # The line break behind the name of a role is one token with those ahead of a picture.
    assert BREAKS[1] in ids or not count or system


def test_what_a_user_spells_is_text(folder: Path) -> None:
    files = resolve(folder)
    tokenizer = tokenizer_of(files)
    spelled = "<start_of_image> and <image_soft_token>"
    said: list[Message] = [{"role": "user", "content": message_content(spelled, 1, parts=True)}]
    ids = list(tokenizer.render_chat(said))
    assert [ids.count(one) for one in (FIRST, IMAGE_TOKEN, LAST)] == [1, 1, 1]
    assert tokenizer.decode(ids).count(spelled) == 1


def prepared(files: ModelFiles, count: int) -> PreparedImages:
    processor = processor_of(files)
    assert processor is not None
    return PreparedImages(files, processor.preprocess([picture(n) for n in range(count)]))


@pytest.mark.parametrize("count", [1, 2])
def test_a_prompt_without_a_template(folder: Path, theirs: Any, count: int) -> None:
    files = resolve(folder)
    images = prepared(files, count)
    ids = encode_prompt("It shows", files, tokenizer_of(files), raw=True, images=images)
    text = "<bos>" + "<start_of_image>" * count + "It shows"
    given = {"images": [picture(n) for n in range(count)], "add_special_tokens": False}
    [expected] = theirs(text=text, **given)["input_ids"]
    assert list(ids) == in_one(expected)
    assert count_positions(files, ids, images.inputs) == len(ids) + 15 * count


def test_a_text_may_say_where_its_pictures_stand(
    llm: LanguageModel, theirs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "First\n<start_of_image>, then <start_of_image>:"
    pictures = [picture(0), picture(1)]
    [expected] = theirs(text=text, images=pictures)["input_ids"]
    seen: list[Any] = []
    monkeypatch.setattr(llm.generator, "generate", lambda ids, *_, **inputs: seen.append(ids))
    llm.generate(text, images=pictures)
    llm.generate("What?", images=pictures[0])
    words = llm.tokenizer.encode_ids("What?", add_special_tokens=False)
    assert list(seen[0]) == in_one(expected)
    assert list(seen[1]) == [BOS, BREAKS[0], FIRST, IMAGE_TOKEN, LAST, BREAKS[0], *words]


def test_pictures_are_bit_equal(folder: Path, theirs: Any) -> None:
    processor = processor_of(resolve(folder))
    assert processor is not None
    pictures = [picture(0), picture(70), Image.new("L", (9, 200), 77)]
    given = [one.convert("RGB") for one in pictures]
    expected = theirs.image_processor(given, return_tensors="pt")["pixel_values"]
    assert torch.equal(processor.preprocess(pictures)["pixel_values"], expected)


def greedy(model: LLaVA, ids: list[int], inputs: dict[str, Any], count: int) -> list[int]:
    """Tokens of a model that reads the whole text each time."""
    with torch.inference_mode():
        for _ in range(count):
            logits = model(torch.tensor([ids]), **inputs)[0, -1]
            logits[IMAGE_TOKEN] = float("-inf")
            ids = [*ids, int(logits.argmax())]
    return ids[-count:]


SETTINGS = GenerationConfig.greedy(max_new_tokens=8, ignore_eos=True, suppress_tokens=[IMAGE_TOKEN])


def test_a_chat_with_a_second_picture_later(llm: LanguageModel) -> None:
    assert isinstance(llm.model, LLaVA) and isinstance(llm.tokenizer, Tokenizer)
    talk = llm.conversation()
    first = talk.ask("What is it?", SETTINGS, images=picture(0))
    ids, inputs = llm.encode_chat([{"role": "user", "content": "What is it?"}], picture(0))
    assert list(first.ids) == greedy(llm.model, ids, dict(inputs), 8)
    second = talk.ask("And this?", SETTINGS, images=picture(1))
    assert second.cached_tokens > 16  # the first picture among them
    said = talk.messages[:-1]
    ids, inputs = llm.encode_chat(said, [picture(0), picture(1)])
    assert list(second.ids) == greedy(llm.model, ids, dict(inputs), 8)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("chunk", [3, 512])
def test_rows_beside_it_get_their_own_texts(folder: Path, int8: bool, chunk: int) -> None:
    files = resolve(folder)
    model = load_files(files, device="cpu", dtype="float32")
    if int8:
        quantize_model_int8(model)
    processor = processor_of(files)
    assert processor is not None and isinstance(model, LLaVA)
    inputs: dict[str, Any] = {**processor.preprocess([picture(0), picture(1)])}
    seen = [BOS, 7, IMAGE_TOKEN, 8, 9, IMAGE_TOKEN, 10]
    jobs: list[tuple[list[int], dict[str, Any]]] = [
        *[(seen, inputs), ([*seen, 11], inputs), ([BOS, 5, 6], {}), ([BOS, *range(60)], {})]
    ]

    def run(some: list[tuple[list[int], dict[str, Any]]]) -> list[tuple[int, ...]]:
        engine = Engine(model, prefill_chunk=chunk)
        prepared = [engine.prepare([ids], [SETTINGS], (), own)[0] for ids, own in some]
        tickets = [engine.add(one) for one in prepared]
        results: dict[int, Any] = {}
        while engine.busy:
            engine.step()
            results |= engine.collect()
        return [results[ticket].ids for ticket in tickets]

    alone = [run([job])[0] for job in jobs]
    assert run(jobs) == alone
    if not int8:
        assert [list(ids) for ids in alone] == [greedy(model, *job, 8) for job in jobs]
