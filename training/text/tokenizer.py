"""The demo's tokenizer: byte-level BPE, and the chat template with its control tokens.

Every one of the 256 bytes is in the vocabulary, so any text encodes; the common words of the small
world are one token each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BOS, EOS, SYSTEM, USER, ASSISTANT = "<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = (BOS, EOS, SYSTEM, USER, ASSISTANT)
VOCAB_SIZE = 2048

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}
        {{- '<|system|>' + message['content'] | trim -}}
    {%- elif message['role'] == 'user' -%}
        {{- '<|user|>' + message['content'] | trim -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- '<|assistant|>' + message['content'] | trim + eos_token -}}
    {%- else -%}
        {{- raise_exception('demo knows the roles system, user and assistant') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>' -}}
{%- endif -%}
"""


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learn the merges from the texts.

    Raises:
        ValueError: if the texts are too few to fill the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise ValueError(
            f"only {tokenizer.get_vocab_size()} tokens of {VOCAB_SIZE}: give more text"
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 0)]
    )
    return tokenizer


def control_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a control token.

    Raises:
        KeyError: if it is not in the vocabulary.
    """
    token_id: int | None = tokenizer.token_to_id(token)
    if token_id is None:
        raise KeyError(token)
    return token_id


def encode_dialogue(
    tokenizer: Tokenizer, messages: Sequence[dict[str, str]]
) -> tuple[list[int], list[bool]]:
    """Ids of a whole dialogue as the chat template renders it, and which of them are the assistant's.

    The loss counts only those: the model is to answer like the world, not to ask like its users.
    """
    ids, ours = [control_id(tokenizer, BOS)], [False]
    for message in messages:
        mine = message["role"] == "assistant"
        content = tokenizer.encode(message["content"], add_special_tokens=False).ids
        ids += [control_id(tokenizer, f"<|{message['role']}|>"), *content]
        ours += [False] + [mine] * len(content)
        if mine:
            ids.append(control_id(tokenizer, EOS))
            ours.append(True)
    return ids, ours


def encode_story(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[bool]]:
    """Ids of a story between BOS and EOS; everything after BOS counts."""
    ids = [*tokenizer.encode(text).ids, control_id(tokenizer, EOS)]
    return ids, [False] + [True] * (len(ids) - 1)
