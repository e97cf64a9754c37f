"""The page that shows a model at work: what one does there, and whether its numbers are the reference's.

python -m tests.pages.inside_page FOLDER      pictures go there
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from playwright.sync_api import Page
from tests.pages.browser import SIZES, browser, fits, page_of, shot, until
from tests.serve_clients.served import served

import lolama_core
from lolama_core import GenerationConfig, Llama, TextGenerator, ablate, reference, sampling_steps

TEXT = "Once upon a time, there was a little"


def main() -> int:
    """Do everything at both sizes; 0 if nothing was wrong."""
    folder = Path(sys.argv[1])
    with (
        served("-m", "demo", "--dtype", "float32") as address,
        browser() as started,
    ):
        for size in SIZES:
            with page_of(started, address, "/inside", size) as page:
                ready(page)
                for step in (read, tokens, heads, numbers, sliders, parts_off, keyboard, mistakes):
                    step(page)
                    assert fits(page), f"{size}: wider than the window after {step.__name__}"
                    shot(page, f"inside-{size}-{step.__name__}", folder)
                    print(f"  {size}: {(step.__doc__ or '').splitlines()[0]}", flush=True)
    return 0


def ready(page: Page) -> None:
    """Wait until the text was explained, and no answer is on its way."""
    page.wait_for_selector("#told:not([hidden])")
    page.wait_for_load_state("networkidle")


def demo() -> tuple[Llama, lolama_core.Tokenizer]:
    """The model of the server."""
    model, tokenizer = lolama_core.load("demo", device="cpu", dtype="float32")
    assert isinstance(model, Llama)
    return model, tokenizer


def read(page: Page) -> None:
    """A text of one's own is explained, and the code is beside it."""
    page.fill("#text", "The dog")
    page.click("text=Explain")
    until(page, lambda: len(page.query_selector_all("#tokens button")) == 3)
    page.fill("#text", TEXT)
    page.press("#text", "Enter")
    until(page, lambda: len(page.query_selector_all("#tokens button")) == 10)
    for area in page.query_selector_all("details"):
        summary = area.query_selector("summary")
        assert summary is not None
        summary.click()
        assert (area.query_selector("code") or summary).inner_text().startswith("def ")
        summary.click()


def tokens(page: Page) -> None:
    """Each token can be chosen."""
    for place in range(10):
        page.click(f"#tokens button >> nth={place}")
        pressed = page.get_attribute(f"#tokens button >> nth={place}", "aria-pressed")
        assert pressed == "true"
        assert f"{place + 1} positions" in page.inner_text("#cache")


def heads(page: Page) -> None:
    """Each layer's heads can be chosen."""
    for layer in range(6):
        page.click(f'button[aria-label="layer {layer}, head {layer}"]')
        assert f"Layer {layer}, head {layer}" in page.inner_text("#map")
        assert f"layer {layer}, head {layer}" in page.inner_text("#rope")


def numbers(page: Page) -> None:
    """What is shown is what the reference computes."""
    model, tokenizer = demo()
    ids = tokenizer.encode_ids(TEXT)
    expected = reference.logits(model.state_dict(), model.config, ids)[-1].softmax(-1).topk(4)
    row = page.inner_text("#lens tbody tr:last-child")
    for share, token_id in zip(expected.values.tolist(), expected.indices.tolist(), strict=True):
        text = tokenizer.decode([token_id]).replace(" ", "␣")
        assert f"{text} {share * 100:.1f} %" in row, (text, share, row)
    told = page.evaluate(
        "text => fetch('/lolama/explain', {method: 'POST', body: JSON.stringify({text})})"
        ".then(answer => answer.json())",
        TEXT,
    )
    logits = reference.logits(model.state_dict(), model.config, ids)[-1]
    for token_id, logit in told["logits"]:
        assert abs(logit - float(logits[token_id])) <= 1e-4


def sliders(page: Page) -> None:
    """Sliders reshape the distribution as sampling does."""
    for name, value in (("temperature", "0.5"), ("topK", "5"), ("topP", "0.5"), ("minP", "0.1")):
        page.fill(f'input[data-setting="{name}"]', value)
    assert "tokens can come" in page.inner_text("#drawn")
    rng, logits = random.Random(1), torch.randn(30, generator=torch.manual_seed(1)).sort().values
    best_first = logits.flip(0)
    for _ in range(40):
        chosen = {
            "temperature": rng.choice([0.3, 1.0, 1.7]),
            "topK": rng.choice([0, 2, 5]),
            "topP": rng.choice([0.2, 0.7, 1.0]),
            "minP": rng.choice([0.0, 0.1, 0.4]),
        }
        config = GenerationConfig(
            temperature=chosen["temperature"],
            top_k=int(chosen["topK"]),
            top_p=chosen["topP"],
            min_p=chosen["minP"],
            repetition_penalty=1.0,
        )
        expected = sampling_steps(config, [0], best_first)[-1].probabilities
        found = page.evaluate(
            "async ([logits, settings]) => (await import('/sampling.js')).sampled(logits, settings)",
            [best_first.tolist(), chosen],
        )
        assert (torch.tensor(found) - expected).abs().max() < 1e-4, chosen
    for name, value in (("temperature", "1"), ("topK", "0"), ("topP", "1"), ("minP", "0")):
        page.fill(f'input[data-setting="{name}"]', value)


def parts_off(page: Page) -> None:
    """Layers, heads and neurons are switched off, and the story is the one that Python tells."""
    model, tokenizer = demo()
    page.click("#off >> text=layer 2")
    ready(page)
    page.click('button[aria-label="layer 1, head 3"]')
    page.click("text=Switch head 3 of layer 1 off")
    ready(page)
    page.click("#network button >> nth=0")
    ready(page)
    neuron = page.inner_text("#off button >> text=Neuron").removeprefix("Neuron 1/")
    with ablate(model, layers=[2], heads=[(1, 3)], neurons=[(1, int(neuron))]):
        config = GenerationConfig.greedy(max_new_tokens=32)
        expected = TEXT + TextGenerator(model, tokenizer).generate(TEXT, config).text
    without = "#story .two > div:last-child p"
    until(page, lambda: page.inner_text(without) == expected)
    assert expected != page.inner_text("#story .two > div:first-child p")
    for label in ("Head 1/3", f"Neuron 1/{neuron}", "layer 2"):
        page.click(f"#off >> text={label}")
        ready(page)
    whole = page.inner_text("#story .two > div:first-child p")
    until(page, lambda: page.inner_text(without) == whole)


def keyboard(page: Page) -> None:
    """All of it works with the keys alone, and the focus stays where it was."""
    page.focus("#tokens button >> nth=3")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == page.inner_text(
        "#tokens button >> nth=3"
    )
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.get_attribute("#tokens button >> nth=4", "aria-pressed") == "true"


def mistakes(page: Page) -> None:
    """A text that is too long is told so, and what is shown stays."""
    page.evaluate("document.getElementById('text').removeAttribute('maxlength')")
    page.fill("#text", "a" * 4001)
    page.click("text=Explain")
    until(page, lambda: page.inner_text("#problem") != "")
    assert "4,000 characters at most" in page.inner_text("#problem")
    assert page.is_visible("#tokens")
    page.fill("#text", TEXT)
    page.click("text=Explain")
    until(page, lambda: page.inner_text("#problem") == "")


if __name__ == "__main__":
    sys.exit(main())
