"""What quantizing cost: the model's predictions beside those of the model it was made from.

The measures are those of llama.cpp's ``--kl-divergence``, over all positions of a text: perplexity, the
Kullback-Leibler divergence of the predicted distributions, and how often the best token is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from lolama_core.protocols import CausalLM, PromptLogits, Tokenizer
from lolama_core.protocols.inference import run_inference

SCHEMA = "lolama.quality/1"

_WINDOW = 512  # positions predicted from one another
_STEP = 8  # positions a pass of the noise floor
_FLOOR_TOKENS = 2048


@dataclass(frozen=True, kw_only=True)
class Distance:
    """How far predictions are from those of the reference.

    Attributes:
        mean_kl, median_kl, p90_kl, p99_kl: KL(reference ‖ other) over positions, in nats.
        top1_agreement: Share of positions with the same best token, 0 to 1.
    """

    mean_kl: float
    median_kl: float
    p90_kl: float
    p99_kl: float
    top1_agreement: float


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """What a comparison found.

    Attributes:
        tokens: Positions whose predictions were compared.
        reference_perplexity, perplexity: The text's perplexity by the reference and by the quantized model.
        quantized: The distance of the quantized model.
        noise_floor: The distance of the reference from itself when it reads the same text some positions
            at a time: what other orders of summation do, without any quantization.
    """

    tokens: int
    reference_perplexity: float
    perplexity: float
    quantized: Distance
    noise_floor: Distance

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the name of their schema."""
        return {"schema": SCHEMA, **asdict(self)}

    def rows(self) -> list[tuple[str, str, str]]:
        """A table: measure, the quantized model, the noise floor."""
        ours, floor = self.quantized, self.noise_floor
        return [
            ("perplexity", f"{self.perplexity:.4f}", f"{self.reference_perplexity:.4f}"),
            ("mean KL", f"{ours.mean_kl:.2e}", f"{floor.mean_kl:.2e}"),
            ("median KL", f"{ours.median_kl:.2e}", f"{floor.median_kl:.2e}"),
            ("p90 KL", f"{ours.p90_kl:.2e}", f"{floor.p90_kl:.2e}"),
            ("same best token", f"{ours.top1_agreement:.2%}", f"{floor.top1_agreement:.2%}"),
        ]


def default_text() -> list[str]:
    """The documents that ship with this package: stories that the built-in model was not trained on.

    More than 20,000 tokens of `demo`. ``training/text/held_out.py`` writes them.
    """
    path = files("lolama_quant") / "held_out.txt"
    return path.read_text(encoding="utf-8").strip("\n").split("\n\n")


def measure_quality(
    reference: CausalLM,
    quantized: CausalLM,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    steps: Callable[[int, int], None] | None = None,
    *,
    read: PromptLogits | None = None,
) -> QualityReport:
    """Compare two models on the same texts.

    Args:
        reference: The model before it was quantized.
        quantized: The same after.
        tokenizer: The tokenizer of both.
        texts: Documents; each is read by itself, in windows of up to 512 tokens. What spells a control
            token in them is text.
        steps: Is told how many windows are compared, and how many there are.
        read: Runs a model over a window: `lolama_core.prompt_logits`, with all that makes models fast.
            Without one each model runs as it is written.

    Raises:
        ValueError: if there are not two tokens to predict one from the other.
    """
    length = min(_WINDOW, reference.max_seq_len)
    windows = [
        ids[start : start + length]
        for ids in (list(tokenizer.encode_ids(text, split_special_tokens=True)) for text in texts)
        for start in range(0, len(ids), length)
    ]
    windows = [window for window in windows if len(window) > 1]
    if not windows:
        raise ValueError("the texts hold no two tokens")
    read = read or _logits
    ours, floor, before, after = [], [], [], []

    def compare() -> None:
        seen = 0
        for done, window in enumerate(windows):
            if steps is not None:
                steps(done, len(windows))
            expected = _log_probabilities(read(reference, window))
            found = _log_probabilities(read(quantized, window))
            targets = torch.tensor(window[1:], device="cpu")[:, None]
            before.append(expected[:-1].gather(1, targets))
            after.append(found[:-1].gather(1, targets))
            ours.append(_differences(expected, found))
            if seen < _FLOOR_TOKENS:
                again = _log_probabilities(read(reference, window, _STEP))
                floor.append(_differences(expected, again))
            seen += len(window)

    run_inference(reference.device, compare)
    return QualityReport(
        tokens=sum(map(len, windows)),
        reference_perplexity=float(torch.cat(before).mean().neg().exp()),
        perplexity=float(torch.cat(after).mean().neg().exp()),
        quantized=_distance(ours),
        noise_floor=_distance(floor),
    )


def _logits(model: CausalLM, ids: Sequence[int], chunk: int | None = None) -> Tensor:
    """(T, V) on the CPU; see `PromptLogits`."""
    cache = model.make_cache(1, len(ids))
    pieces = []
    for part in _parts(ids, chunk or len(ids)):
        embeds = model.embed(torch.tensor([part], device=model.device))
        pieces.append(model.forward_embeds(embeds, cache, logits="all")[0].cpu())
        cache.advance((len(part),))
    return torch.cat(pieces)


def _log_probabilities(logits: Tensor) -> Tensor:
    """(T, V) logits → float64."""
    return logits.double().log_softmax(dim=-1)


def _parts(ids: Sequence[int], step: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), step):
        yield ids[start : start + step]


def _differences(expected: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """KL divergence and whether the best token is the same, (T,) each."""
    divergence = (expected.exp() * (expected - found)).sum(dim=-1)
    return divergence, expected.argmax(dim=-1) == found.argmax(dim=-1)


def _distance(differences: Sequence[tuple[Tensor, Tensor]]) -> Distance:
    divergence = torch.cat([pair[0] for pair in differences])
    same = torch.cat([pair[1] for pair in differences])
    ordered = divergence.sort().values
    return Distance(
        mean_kl=float(divergence.mean()),
        median_kl=float(divergence.median()),
        p90_kl=float(ordered[int(0.9 * (len(ordered) - 1))]),
        p99_kl=float(ordered[int(0.99 * (len(ordered) - 1))]),
        top1_agreement=float(same.double().mean()),
    )
