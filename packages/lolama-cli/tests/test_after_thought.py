"""A thought is free and has to end, and the reply behind it keeps to its grammar."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from spelled import PIECES

from lolama.after_thought import AfterThought
from lolama.grammar import Grammar, GrammarCompiler
from lolama.thinking import ThoughtFormat
from lolama_core import Tokenizer
from lolama_core.protocols import ForcingConstraint
from lolama_core.protocols.errors import UsageError
from lolama_core.testing import tiny


def tokenizer(added: Sequence[str] = ("<think>", "</think>")) -> Tokenizer:
    vocabulary, merges = tiny.learn_bytes([*PIECES, "</think>{"] * 3, 330)
    text = tiny.byte_level(vocabulary, merges, specials=["</s>"], added=added)
    return Tokenizer(text, eos_token="</s>")


class Reply:
    """Follows one text."""

    def __init__(self, opened: bool, tokens: Tokenizer | None = None) -> None:
        self.tokens = tokens or tokenizer()
        size = self.tokens.vocab_size
        make = GrammarCompiler(self.tokens, self.tokens.eos_ids, size)
        reply = make.compile(Grammar.regex("yes|no"))
        thoughts = ThoughtFormat("<think>", "</think>", opened)
        self.constraint = AfterThought(reply, thoughts, self.tokens, self.tokens.eos_ids, size)
        self.plain = make.compile(Grammar.regex("yes|no")).mask()

    def ids(self, text: str) -> list[int]:
        return self.tokens.encode_ids(text, add_special_tokens=False)

    def write(self, text: str) -> None:
        for token in self.ids(text):
            mask = self.constraint.mask()
            assert mask is not None and mask[token], text
            self.constraint.accept(token)

    def may_come(self, text: str) -> bool:
        mask = self.constraint.mask()
        assert mask is not None
        return bool(mask[self.ids(text)[0]])

    @property
    def may_end(self) -> bool:
        mask = self.constraint.mask()
        assert mask is not None
        return any(bool(mask[end]) for end in self.tokens.eos_ids)


@pytest.mark.parametrize("opened", [True, False])
def test_a_thought_and_the_reply(opened: bool) -> None:
    reply = Reply(opened)
    assert isinstance(reply.constraint, ForcingConstraint)
    if not opened:
        assert reply.may_come("y") and not reply.may_come("q") and not reply.may_end
        reply.write("<think>")
    reply.write("hello </s world > 123")
    assert not reply.may_end and reply.may_come("<think>") and not list(reply.constraint.forced())
    reply.write("</think>")
    mask = reply.constraint.mask()
    assert mask is not None and reply.plain is not None and (mask == reply.plain).all()
    reply.write("no")
    assert reply.may_end and not reply.may_come("n")


def test_without_a_thought_the_reply_begins_at_once() -> None:
    reply = Reply(opened=False)
    reply.write("y")
    assert list(reply.constraint.forced()) == reply.ids("es") or not reply.may_come("q")
    assert not reply.may_come("<think>")


def test_tags_of_several_tokens() -> None:
    reply = Reply(opened=True, tokens=tokenizer(added=()))
    reply.write("hello")
    for letter in "</think>":
        reply.write(letter)
    assert reply.may_come("y") and not reply.may_come("q")
    # A thought that the model would have to begin in several tokens does not come.
    assert not Reply(opened=False, tokens=tokenizer(added=())).may_come("<")


def test_a_token_that_ends_the_thought_and_begins_the_reply_is_refused() -> None:
    tokens = tokenizer(added=["</think>{"])
    reply = Reply(opened=True, tokens=tokens)
    with pytest.raises(UsageError, match="the reply: began within the token that ends </think>"):
        reply.write("</think>{")


@pytest.mark.parametrize("opened", [True, False])
def test_going_back(opened: bool) -> None:
    """Everything that comes after is as if it had not been there."""
    begin = "" if opened else "<think>"
    for kept in range(6):
        reply, fresh = Reply(opened), Reply(opened)
        ids = [*reply.ids(f"{begin}hello</think>"), *(reply.ids(one)[0] for one in "yes")]
        for token in ids:
            reply.constraint.accept(token)
        for token in ids[:kept]:
            fresh.constraint.accept(token)
        reply.constraint.rollback(len(ids) - kept)
        for token in ids[kept:]:
            one, other = reply.constraint.mask(), fresh.constraint.mask()
            assert one is not None and other is not None and (one == other).all()
            reply.constraint.accept(token)
            fresh.constraint.accept(token)
