r"""How a byte-level tokenizer of a GGUF file cuts a text into words, by the name in ``tokenizer.ggml.pre``.

The file has a name alone. What it stands for is in llama.cpp (``src/llama-vocab.cpp``), whose comments also
give the patterns of the published tokenizer.json where its own are written around what C++ cannot do. Here
stand the published ones. Each pattern of a list cuts what the one before it left: what matches is a piece,
and so is what lies between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

_END = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ASCII_WORD = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_END}|{_WORD}|\p{{N}}{{1,3}}|{_MARKS}|{_SPACES}"
_QWEN2 = rf"{_END}|{_WORD}|\p{{N}}|{_MARKS}|{_SPACES}"
_QWEN35 = (
    rf"{_END}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
_SEED = rf"{_END}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
_EXAONE_MOE = (
    rf"{_END}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)


def _cased(end: str, digits: str) -> str:
    """Words that begin anew where a capital letter follows a small one, with ``end`` behind each."""
    begin = r"[^\r\n\p{L}\p{N}]?"
    words = rf"{begin}{_UPPER}*{_LOWER}+{end}|{begin}{_UPPER}+{_LOWER}*{end}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


_GPT4O = _cased(f"{_END}?", r"\p{N}{1,3}")

_DEEPSEEK_LETTERS = (
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af"
    "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1"
    "\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5"
    "\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3"
    "\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115"
    "\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f"
    "\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_MARKS = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
_DEEPSEEK_CHINESE = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CHINESE = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK3 = (
    rf"{_ASCII_WORD}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)


@dataclass(frozen=True)
class PreTokenizer:
    """What a name stands for.

    Attributes:
        patterns: Regular expressions in the words of Oniguruma, which the ``tokenizers`` library has.
        whole_words: Whether a word of the text that is a token is that token, whatever the merges say.
        adds_bos: Whether texts begin with BOS in files that do not say.
        composed: Whether a text is brought into Unicode's composed form (NFC) first. llama.cpp leaves that
            out; the tokenizers that the models were trained with do it.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False
    composed: bool = False


_as_gpt2 = PreTokenizer((GPT2,))
_as_llama3 = PreTokenizer((_LLAMA3,))
_as_qwen2 = PreTokenizer((_QWEN2,))
_as_starcoder = PreTokenizer((r"\p{N}", GPT2))
_as_deepseek3 = PreTokenizer((r"\p{N}{1,3}", _CHINESE, _DEEPSEEK3))
_as_gpt4o = PreTokenizer((_GPT4O,))
_as_bailing = PreTokenizer((_BAILING,))

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = MappingProxyType(
    {
        "default": PreTokenizer(
            (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
        ),
        "bloom": PreTokenizer((_BLOOM,)),
        "command-r": replace(_as_starcoder, composed=True),
        "deepseek-coder": PreTokenizer(
            ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CHINESE, r"\p{N}")
        ),
        "deepseek-llm": PreTokenizer(
            (
                "[\r\n]",
                rf"\s?[{_DEEPSEEK_LETTERS}]+",
                _DEEPSEEK_MARKS,
                r"\s+$",
                _DEEPSEEK_CHINESE,
                r"\p{N}+",
            )
        ),
        "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]")),
        "exaone-moe": PreTokenizer((_EXAONE_MOE,)),
        "minicpm5": PreTokenizer(
            (r"\p{N}{1,3}", rf"{_END}|{_WORD}|\p{{N}}+|{_MARKS}|{_SPACES}"), whole_words=True
        ),
        "qwen35": PreTokenizer((_QWEN35,), composed=True),
        "seed-coder": PreTokenizer((_SEED,)),
        "superbpe": PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
        "tekken": PreTokenizer((_cased("", r"\p{N}"),), whole_words=True, adds_bos=True),
        "viking": PreTokenizer((_BLOOM, r"\p{N}")),
        **dict.fromkeys(
            (
                "gpt-2",
                "a.x-4.0",
                "exaone4",
                "gigachat",
                "granite-docling",
                "jais",
                "mellum",
                "phi-2",
                "trillion",
            ),
            _as_gpt2,
        ),
        **dict.fromkeys(("mpt", "olmo"), replace(_as_gpt2, composed=True)),
        **dict.fromkeys(
            ("starcoder", "codeshell", "exaone", "mellum2", "minerva-7b", "refact", "smollm"),
            _as_starcoder,
        ),
        **dict.fromkeys(("dbrx", "chatglm-bpe", "smaug-bpe"), _as_llama3),
        **dict.fromkeys(("glm4", "glm5"), replace(_as_llama3, whole_words=True)),
        **dict.fromkeys(
            (
                "llama-bpe",
                "falcon-h1",
                "falcon3",
                "lfm2",
                "llama-v3",
                "llama3",
                "midm-2.0",
                "pixtral",
            ),
            replace(_as_llama3, whole_words=True, adds_bos=True),
        ),
        "qwen2": replace(_as_qwen2, composed=True),
        **dict.fromkeys(
            (
                "deepseek-r1-qwen",
                "f2llmv2",
                "grok-2",
                "hunyuan",
                "kormo",
                "megrez",
                "solar-open",
                "stablelm2",
            ),
            _as_qwen2,
        ),
        **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"), _as_deepseek3),
        **dict.fromkeys(("gpt-4o", "kanana2", "llama4", "minimax-m2", "talkie"), _as_gpt4o),
        **dict.fromkeys(
            ("cohere2moe", "tiny_aya"),
            PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O)),
        ),
        **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), _as_bailing),
        **dict.fromkeys(("gpt3-finnish", "poro-chat"), PreTokenizer((_BLOOM,))),
    }
)
"""Name → what it stands for; of several for the same, the first is written. Left out are those of models that
lolama does not read, and those that llama.cpp has code for in the place of patterns."""
