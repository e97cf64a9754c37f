"""A user's script that uses every public name, as strict type checkers read it and Python runs it.

`basedpyright` (strict) and `mypy --strict` pass it without a cast; ``test_typed_script.py`` runs it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

import lolama
import lolama_core
import lolama_hub
import lolama_quant
import lolama_vision
from lolama import Conversation, Generation, GenerationConfig, LlamaConfig, PrefixCache, ReplyStream
from lolama.data import load_llava_model, load_model, load_tokenizer
from lolama.grammar import Grammar, GrammarCompiler
from lolama.model import get_model_size_mb, quantize_model_int4, quantize_model_int8
from lolama.vision import CLIPImageProcessor

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "4.png"


@dataclass
class Yes:
    """What an answer may be."""

    yes: bool


def use_the_object(name: str) -> str:
    """`lolama.load`: text in, text out."""
    llm: lolama.LanguageModel = lolama.load(name, device="cpu")
    result: Generation = llm.generate("Once upon a time", max_new_tokens=4, seed=1, stop="The end")
    pieces: ReplyStream = llm.stream("Once", max_new_tokens=4)
    talk: Conversation = llm.conversation("You are short.") if not name else llm.conversation()
    reply = talk.ask("What is two plus three?", temperature=0)
    text = result.text.strip() + "".join(pieces) + reply.text + llm.chat("Hello.", top_k=1).text
    text += llm.chat("Is it?", regex="yes|no").text + talk.ask("Is it?", schema=Yes).text
    rolled = Grammar.gbnf("root ::= [1-6]")
    ends, size = llm.model.generation_defaults.eos_ids, llm.model.vocab_size
    constraint = GrammarCompiler(llm.tokenizer, ends | llm.tokenizer.eos_ids, size).compile(rolled)
    text += llm.generator.generate("Rolled:", constraint=constraint).text

    def add(a: int, b: int) -> int:
        return a + b

    for call in llm.chat("Two and three?", tools=[add], max_new_tokens=4).tool_calls:
        text += f"{call.id} {call.name} {dict(call.arguments)}"
    with tempfile.TemporaryDirectory() as folder:
        lolama.save(llm, Path(folder) / "copy")
    return text.upper()


def use_the_parts(name: str) -> int:
    """Models are modules of torch, and texts or ids are prompts."""
    model = load_model(name, device="cpu", dtype="float32")
    tokenizer = load_tokenizer(name)
    ids = tokenizer.encode("Once upon a time", return_tensors="pt").to(model.device)
    logits = model(ids)
    model = model.to("cpu").eval()
    print(logits.shape, len(model.layers), model.max_seq_len, get_model_size_mb(model), "MB")
    prefixes = PrefixCache(1 << 20)
    with tempfile.TemporaryDirectory() as folder:
        prefixes.save(Path(folder) / "story.cache", model)
        print(prefixes.load(f"{folder}/story.cache", model, missing_ok=True))
    generator = lolama.TextGenerator(model, tokenizer, prefix_cache=prefixes)
    result = generator.generate(
        "Once upon a time", GenerationConfig(stop=["."], suppress_tokens=[3])
    )
    print(result.text.split(), result.ids[0] + 1, result.finish_reason)
    with generator.generate_stream(ids, max_tokens=4, eos_token_id=None) as stream:
        for piece in stream.text():
            print(piece.upper(), end="")
    steps = generator.generate_stream(ids, max_new_tokens=2, logprobs=1).emissions()
    given: list[lolama.Emission] = list(steps)
    likely: list[lolama.TokenLogprobs] = [token for step in given for token in step.logprobs]
    print([token.logprob + token.best[0][1] for token in likely], given[-1].finish_reason)
    for token_id in generator.generate_stream(ids, max_new_tokens=2):
        print(tokenizer.decode([token_id]), tokenizer.decode(ids), sep="")
    rows = generator.generate_batch(["One", [1, 2], ids], max_new_tokens=2)
    print([row.text.upper() for row in rows], generator.score("Once upon").mean().exp().item())
    batch = lolama.BatchGenerator(model, tokenizer, rows=2)
    ticket = batch.submit("Once", logits_processors=[first_only], max_new_tokens=2)
    while batch.busy:
        _ = batch.step()
    answer = batch.collect()[ticket]
    engine = lolama.Engine(model, tokenizer, rows=2)
    ticket = engine.submit("Once", max_new_tokens=2, prompt_logprobs=1)
    while engine.busy:
        print([emission.text.upper() for _, emission in engine.step()], engine.used_cache_bytes)
    read = engine.collect()[ticket]
    assert isinstance(read, Generation)
    drafts: list[lolama.Drafting] = ["lookup", "off", model]
    for draft in drafts:
        tried = lolama.TextGenerator(model, tokenizer, draft=draft).generate_stream("Once", seed=1)
        print("".join(tried.text()), tried.drafted_tokens - tried.accepted_tokens)
    print(read.prompt_logprobs, read.text.upper(), lolama_core.prompt_logits(model, [1, 2]).shape)
    return len(answer.text) if isinstance(answer, Generation) else answer.exit_code


def first_only(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """A processor of logits, in place."""
    scores[:, 1:] = float("-inf")
    return scores


def use_pictures(name: str) -> str:
    """A vision model."""
    model = load_llava_model(name, device="cpu")
    processor = CLIPImageProcessor.from_config(model._vlm_config.vision_config)  # pyright: ignore[reportPrivateUsage]
    inputs = processor.preprocess(Image.open(PICTURE))
    picture: lolama_vision.Picture = lolama_vision.read_picture(PICTURE)
    generator = lolama.TextGenerator(model, load_tokenizer(name))
    prompt = "<image>\nWhat is in the picture?"
    result = generator.generate(prompt, max_new_tokens=4, **inputs)
    pixels = inputs["pixel_values"].to(model.device, dtype=model.dtype)
    again = generator.generate(prompt, pixel_values=pixels, max_new_tokens=4)
    assert isinstance(model, lolama_vision.LLaVA)
    return result.text + again.text + str(picture.image.size) + str(len(model.layers))


def use_int8(name: str) -> float:
    """Smaller weights, and what they cost."""
    dense, model = load_model(name, device="cpu"), load_model(name, device="cpu")
    report = quantize_model_int8(model)
    text = lolama_quant.default_text()[0]
    quality = lolama_quant.measure_quality(
        dense, model, load_tokenizer(name), [text], read=lolama_core.prompt_logits
    )
    fewer = quantize_model_int4(load_model(name, device="cpu"))
    sizes = report.bytes_after, fewer.bytes_after, lolama_quant.get_model_size_mb(model)
    print(*sizes, quality.rows())
    return quality.perplexity


def use_core() -> None:
    """lolama-core alone."""
    model, tokenizer = lolama_core.load("demo", device="cpu", dtype=torch.float32)
    print(lolama_core.decoder_in_use(model), lolama_core.kernels_in_use(model))
    print(lolama_core.vocabulary_difference(tokenizer, tokenizer))
    print(lolama_core.slower_blocks(model), lolama_core.runner_of(model).vocab_size)
    lolama_core.forget(model)
    print(lolama_core.free_memory(model.device), len(model.layers), model.config.d_model)
    cache: lolama_core.KVCache = model.make_cache(1, 8)
    stream = lolama_core.TextStream(tokenizer, tokenizer.encode("Once"))
    sampler = lolama_core.Sampler.from_config(GenerationConfig.greedy(), prompt_length=1)
    ids = torch.tensor([tokenizer.encode("Once")[:1]])
    with torch.no_grad():
        token_id = sampler(ids, model(ids, cache)[:, -1])
    print(stream.push(token_id) + stream.finish())
    without_text = lolama_core.TextGenerator(model).generate(ids, max_new_tokens=1)
    nothing: None = without_text.text
    print(nothing, lolama_core.choose_dtype(None, lolama_core.choose_device("cpu"), model.dtype))
    small = LlamaConfig(vocab_size=8, d_model=8, num_heads=2, num_layers=1, hidden_dim=8)
    trained = lolama.Llama(small)
    loss = trained(torch.tensor([[1, 2]])).sum()
    print(torch.autograd.grad(loss, [trained.norm.weight]), len(lolama_hub.MODELS))


def misspelled() -> None:
    """What checkers must refuse; never run."""
    generator = lolama.TextGenerator(load_model("demo"))
    generator.generate([1], temprature=0.5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    generator.generate([1]).text.upper()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def main() -> None:
    """All of it."""
    print(use_the_object("demo"), use_the_parts("demo"))
    print(use_pictures("demo-vision"), use_int8("demo"))
    use_core()


if __name__ == "__main__":
    main()
