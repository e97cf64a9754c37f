"""The tokenizer of `demo-vision`: byte-level BPE, and the chat template with its control tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from ..text.tokenizer import control_id
from .questions import Exchange, ask
from .scene import MOST, make_scene

BOS, EOS, USER, ASSISTANT, IMAGE = "<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>", "<image>"
SPECIAL_TOKENS = (BOS, EOS, USER, ASSISTANT, IMAGE)
VOCAB_SIZE = 512

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- '<|user|>' -}}
        {%- if message['content'] is string -%}
            {{- message['content'] | trim -}}
        {%- else -%}
            {%- for part in message['content'] if part['type'] == 'image' -%}
                {{- '<image>\n' -}}
            {%- endfor -%}
            {%- for part in message['content'] if part['type'] == 'text' -%}
                {{- part['text'] | trim -}}
            {%- endfor -%}
        {%- endif -%}
    {%- elif message['role'] == 'assistant' -%}
        {{- '<|assistant|>' -}}
        {%- if message['content'] is string -%}
            {{- message['content'] | trim -}}
        {%- else -%}
            {%- for part in message['content'] -%}{{- part['text'] | trim -}}{%- endfor -%}
        {%- endif -%}
        {{- eos_token -}}
    {%- else -%}
        {{- raise_exception('demo-vision knows the roles user and assistant') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>' -}}
{%- endif -%}
"""


def texts(count: int, seed: int) -> Iterator[str]:
    for index in range(count):
        rng = random.Random(f"text {seed} {index}")
        for exchange in ask(make_scene(rng, rng.randint(1, MOST)), rng, 8):
            yield exchange.question
            yield exchange.answer


def train_tokenizer(seed: int = 0) -> Tokenizer:
    """Learn the merges from questions and answers; every word of them becomes one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(2000, seed), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, 0)]
    )
    return tokenizer


class DialogueEncoder:
    """Dialogues about one picture → ids, as the chat template renders them.

    Args:
        tokenizer: The result of `train_tokenizer`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids = {token: control_id(tokenizer, token) for token in SPECIAL_TOKENS}
        self._encode = lru_cache(200_000)(
            lambda text: tuple(tokenizer.encode(text, add_special_tokens=False).ids)
        )

    def encode(
        self, exchanges: Sequence[Exchange], *, plain: bool = False
    ) -> tuple[list[int], list[bool]]:
        """Ids, and which of them are the assistant's.

        ``plain`` leaves the control token of the first question out, as in a prompt that knows of no
        template; the model then learns to begin the answer by itself.
        """
        ids, ours = [self.ids[BOS]], [False]
        if not exchanges:
            return [*ids, self.ids[IMAGE]], [*ours, False]
        for number, exchange in enumerate(exchanges):
            bare = plain and number == 0
            head = [] if bare else [self.ids[USER]]
            newline = self._encode("\n" + exchange.question) if number == 0 else ()
            question = newline or self._encode(exchange.question)
            picture = [self.ids[IMAGE]] if number == 0 else []
            asked = [*head, *picture, *question]
            answer = [*self._encode(exchange.answer), self.ids[EOS]]
            ids += [*asked, self.ids[ASSISTANT], *answer]
            ours += [False] * len(asked) + [bare] + [True] * len(answer)
        return ids, ours
