from __future__ import annotations

from array import array
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tokenizers import Tokenizer as NativeTokenizer
from training.text.build import DESTINATION
from training.text.chat import make_dialogue
from training.text.corpus import IGNORE, Document, batches, build_corpus, tokenizer_texts
from training.text.tokenizer import ASSISTANT, VOCAB_SIZE, encode_dialogue, encode_story
from training.text.train import Recipe, fresh_model, gradients, loss_of, train

from lolama_core import LlamaConfig, load

CONFIG = LlamaConfig(
    vocab_size=VOCAB_SIZE,
    d_model=32,
    num_heads=2,
    num_kv_heads=1,
    num_layers=2,
    hidden_dim=64,
    max_seq_len=512,
    tie_word_embeddings=True,
)


@pytest.fixture(scope="module")
def tokenizer() -> NativeTokenizer:
    return NativeTokenizer.from_file(str(DESTINATION / "tokenizer.json"))


def test_training_encodes_a_dialogue_as_the_chat_template_renders_it(
    tokenizer: NativeTokenizer,
) -> None:
    _, shipped = load("demo", device="cpu")
    for index in range(50):
        dialogue = make_dialogue(str(index))
        ids, _ = encode_dialogue(tokenizer, dialogue)
        messages = [{"role": turn["role"], "content": turn["content"]} for turn in dialogue]
        assert shipped.render_chat(messages, add_generation_prompt=False) == ids  # type: ignore[arg-type]
        prompt = shipped.render_chat(messages[:-1], add_generation_prompt=True)  # type: ignore[arg-type]
        assert prompt == ids[: len(prompt)]
        assert prompt[-1] == tokenizer.token_to_id(ASSISTANT)


def test_only_the_assistant_counts(tokenizer: NativeTokenizer) -> None:
    turns = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi there."}]
    ids, counted = encode_dialogue(tokenizer, turns)
    ours = [token for token, mine in zip(ids, counted, strict=True) if mine]
    assert tokenizer.decode(ours, skip_special_tokens=False) == "Hi there.<|eos|>"


def test_any_text_survives_the_tokenizer(tokenizer: NativeTokenizer) -> None:
    for text in ("Once upon a time", "naïve 🦊 \x00\t\n", "  two  spaces ", "日本語"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_words_of_the_stories_are_one_token_each(tokenizer: NativeTokenizer) -> None:
    text = next(iter(tokenizer_texts(3)))
    words = text.replace(",", " ,").replace(".", " .").replace('"', ' " ').split()
    assert len(encode_story(tokenizer, text)[0]) < 1.2 * len(words)


def test_batches_hold_every_document_once() -> None:
    lengths = [3 + index % 40 for index in range(300)]
    documents = [
        Document(array("H", [0, *[index + 1] * (length - 1)]), array("B", [0] + [1] * (length - 1)))
        for index, length in enumerate(lengths)
    ]
    counted = torch.zeros(301, dtype=torch.int64)
    for inputs, targets in batches(documents, 256, seed=1, pad_id=0):
        assert inputs.shape == targets.shape
        assert inputs.numel() <= 256
        kept = targets[targets != IGNORE]
        counted += torch.bincount(kept, minlength=301)
    assert counted[1:].tolist() == [length - 1 for length in lengths]


def test_threads_give_the_gradient_of_the_whole_batch() -> None:
    model = fresh_model(CONFIG, seed=1)
    inputs = torch.randint(0, VOCAB_SIZE, (6, 9))
    targets = inputs.roll(-1, 1)
    targets[2:4] = IGNORE
    with ThreadPoolExecutor(2) as pool:
        loss = gradients(model, inputs, targets, pool)
    split = [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]
    whole = loss_of(model, inputs, targets) / (targets != IGNORE).sum()
    expected = torch.autograd.grad(whole, list(model.parameters()))
    assert loss == pytest.approx(whole.item(), rel=1e-3)
    for ours, theirs in zip(split, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0.1)


def test_training_learns_and_repeats_itself(tokenizer: NativeTokenizer) -> None:
    recipe = Recipe(stories=60, dialogues=60, epochs=3, tokens_per_batch=1024)
    documents = build_corpus(tokenizer, recipe.stories, recipe.dialogues, recipe.seed, 512)
    first, again = fresh_model(CONFIG), fresh_model(CONFIG)
    train(documents, recipe, first)
    train(documents, recipe, again)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    fresh = fresh_model(CONFIG)
    inputs, targets = next(batches(documents, 1024, 0, 0))
    with torch.no_grad():
        assert loss_of(first, inputs, targets) < 0.8 * loss_of(fresh, inputs, targets)
