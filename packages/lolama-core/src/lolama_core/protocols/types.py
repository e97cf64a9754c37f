"""Values that cross package borders: plain, frozen, and importable without torch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypeAlias, TypedDict

from lolama_core.protocols.moved_modules import moved_names
from lolama_core.protocols.tools import ToolCallBlock

if TYPE_CHECKING:
    from torch import Tensor

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

FORMAT_NAME = "lolama"
FORMAT_VERSION = 1


class ContentPart(TypedDict):
    """One part of a message whose content is a list: text, or the place of a picture."""

    type: str
    text: NotRequired[str]


class Message(TypedDict):
    """One turn of a conversation. ``role`` is ``system``, ``user``, ``assistant`` or ``tool``.

    ``content``: None in a message of the assistant that is calls alone. ``tool_calls``: which functions it
    calls. ``tool_call_id``, ``name``: which call a message of the role ``tool`` answers, and its function.
    ``reasoning_content``: what the assistant thought before it replied.
    """

    role: str
    content: str | list[ContentPart] | None
    tool_calls: NotRequired[list[ToolCallBlock]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    reasoning_content: NotRequired[str]


class GenerationBlock(TypedDict, total=False):
    """What a checkpoint says about generation.

    ``eos_ids``: every id that ends a reply. ``vocab_size``: how many ids the tokenizer knows; the rows of
    ``lm_head`` past it are noise and are never sampled. ``sampling``: field names of `GenerationConfig`
    and the values its authors recommend. ``unsupported``: names of settings that its authors ask for and that
    lolama does not follow.
    """

    eos_ids: list[int]
    vocab_size: int
    sampling: dict[str, JSON]
    unsupported: list[str]


class AddedTokenBlock(TypedDict):
    """A token that is found in a text before anything else, in the words of the ``tokenizers`` library.

    ``special``: a control token. ``normalized``: it is looked for in the normalized text. ``lstrip``,
    ``rstrip``: it takes the spaces on its left or right with it. ``single_word``: not inside a word.
    """

    content: str
    special: bool
    normalized: bool
    lstrip: bool
    rstrip: bool
    single_word: bool


class TokenizerBlock(TypedDict, total=False):
    """What a checkpoint says about its tokenizer besides ``tokenizer.json``.

    ``bos_token``, ``eos_token``: control tokens by their text; a chat template may name them.
    ``special_tokens``: names of all other control tokens that a chat template may use, such as ``pad_token``,
    and their text. ``control_tokens``: texts of further ones, which have no name. ``added_tokens``: tokens to
    add to those of ``tokenizer.json``, in order; one that is there already gets these flags.
    """

    bos_token: str | None
    eos_token: str | None
    add_bos: bool
    special_tokens: dict[str, str]
    control_tokens: list[str]
    added_tokens: list[AddedTokenBlock]


class CanonicalConfig(TypedDict):
    """The ``config.json`` of a lolama checkpoint, and what the hub makes of any other layout.

    ``model`` is read by the family named in ``family``; for ``llama`` its keys are the fields of
    `LlamaConfig`. ``dtype`` is how the weights are stored: ``float32``, ``bfloat16`` or ``float16``.
    """

    format: str
    format_version: int
    family: str
    model: dict[str, JSON]
    dtype: str
    generation: GenerationBlock
    tokenizer: TokenizerBlock
    quantization: NotRequired[dict[str, JSON]]
    source: NotRequired[dict[str, JSON]]


@dataclass(frozen=True, kw_only=True)
class GenerationDefaults:
    """`GenerationBlock` as it travels with a loaded model."""

    eos_ids: frozenset[int] = frozenset()
    vocab_size: int | None = None
    sampling: Mapping[str, JSON] = field(default_factory=dict)
    unsupported: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TensorLocation:
    """Where one canonical tensor lies, and how to bring it into canonical form.

    ``transform`` gets the stored tensor and returns the canonical one; None when they are the same.
    """

    path: Path
    key: str
    transform: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    """``tokenizer.json`` and the chat template (Jinja source), if the model has them.

    Without a tokenizer a model is given ids and returns ids.
    """

    tokenizer_json: Path | None = None
    chat_template: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A resolved model: everything needed to build it, and nothing that says how it was published.

    ``tensors`` maps canonical names to places; only files listed there are ever opened.
    ``repo`` and ``revision`` are empty for a folder that did not come from a hub.
    ``immutable`` says that the files belong to lolama and do not change while they are in use, so that they
    may be mapped into memory: a file that is cut short under a map kills the process. It is never true of a
    folder that someone named.
    ``config_file`` is where ``config`` stands as it is; None if it was converted from another format.
    ``finite`` says that these very weights were looked through before and hold neither NaN nor Inf.
    """

    name: str
    config: CanonicalConfig
    tensors: Mapping[str, TensorLocation]
    tokenizer: TokenizerFiles
    repo: str = ""
    revision: str = ""
    immutable: bool = False
    finite: bool = False
    config_file: Path | None = None

    @property
    def family(self) -> str:
        """The model family that builds it, such as ``llama``."""
        return self.config["family"]


PromptKey: TypeAlias = Hashable
"""Identity of one embedded position: a token id, or (picture hash, preprocessing, patch)."""

Spans: TypeAlias = tuple[tuple[tuple[int, int], ...], ...]
"""Row → first and stop of runs of positions that see each other in both directions."""


@dataclass(frozen=True)
class Prompt:
    """An embedded prompt, ready for `CausalLM.forward_embeds`.

    Attributes:
        embeds: (B, T, D), rows right-padded.
        lengths: positions in use per row, each ≤ T.
        keys: per row, one key per position in use. Prefixes are matched on keys, never on ids alone:
            two pictures share their ids.
        spans: per row, positions that see each other in both directions: those of each picture, in some
            models. () if no row has any.
    """

    embeds: Tensor
    lengths: tuple[int, ...]
    keys: tuple[tuple[PromptKey, ...], ...]
    spans: Spans = ()


class ImageInputs(TypedDict):
    """What an image processor hands to a vision model.

    ``pixel_values`` (N, 3, S, S) holds all tiles of all pictures, flat, in the order of their ``<image>``,
    row by row; the other fields have one entry per picture.
    """

    pixel_values: Tensor
    tiles_per_image: Sequence[int]
    image_sizes: Sequence[tuple[int, int]]
    tokens_per_image: Sequence[int]


if not TYPE_CHECKING:  # to type checkers they are where they are now
    __getattr__ = moved_names(
        __name__,
        {
            "lolama_core.protocols.quantizer": ["QuantizationReport", "QuantizationScheme"],
            "lolama_core.protocols.source": [
                "DownloadPlan",
                "FilePlan",
                "ModelInfo",
                "StoredModel",
            ],
        },
    )
