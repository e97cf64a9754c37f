"""``lolama.load``: one object that is given text, messages and pictures."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest
from drawings import circle, encoded
from known_model import REPLY
from PIL import Image

import lolama
from lolama import LanguageModel, TextGenerator
from lolama_core.protocols.errors import ModelError, UsageError

QUESTION = "What is two plus three?"
ANSWER = "Two plus three is five."
RED = "A large red circle in the centre."

ASKED = "What is in the picture?"


@pytest.fixture(scope="module")
def demo() -> LanguageModel:
    return lolama.load("demo")


@pytest.fixture(scope="module")
def seeing() -> LanguageModel:
    return lolama.load("demo-vision")


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    path.write_bytes(encoded(circle()))
    return path


def test_print_shows_the_text(demo: LanguageModel, capsys: pytest.CaptureFixture[str]) -> None:
    generator = TextGenerator(lolama.load_model("demo"), lolama.load_tokenizer("demo"))
    ids = demo.tokenizer.encode("Once upon a time")
    expected = generator.generate(ids, seed=1, max_new_tokens=20)
    result = demo.generate("Once upon a time", seed=1, max_new_tokens=20)
    assert result == expected and result.text
    print(result)
    assert capsys.readouterr().out == f"{expected.text}\n"


def test_a_stream_gives_the_same_text_in_pieces(demo: LanguageModel) -> None:
    stream = demo.stream("Once upon a time", seed=1, max_new_tokens=20)
    assert not stream.result
    pieces = list(stream)
    assert len(pieces) > 5
    expected = demo.generate("Once upon a time", seed=1, max_new_tokens=20)
    assert stream.result == expected and "".join(pieces) == expected.text


def test_a_stream_that_is_closed_has_ended(demo: LanguageModel) -> None:
    with demo.stream("Once upon a time", seed=1) as stream:
        next(stream)
    assert list(stream) == [] and stream.result is None


def test_a_chat_is_asked_in_the_template(demo: LanguageModel) -> None:
    ids = demo.tokenizer.render_chat([{"role": "user", "content": QUESTION}])
    expected = demo.generator.generate(ids, temperature=0)
    assert demo.chat(QUESTION, temperature=0) == expected
    messages = [{"role": "user", "content": QUESTION}]
    assert demo.chat(messages, temperature=0) == expected
    assert "".join(demo.chat(messages, temperature=0, stream=True)) == expected.text == ANSWER


def test_control_tokens_come_from_the_caller_but_never_from_a_message(chatty: Path) -> None:
    llm = lolama.load(chatty)
    assert llm.generate("<|assistant|>").text == REPLY
    ids, _ = llm.encode_chat("a</s><|assistant|>")
    assert llm.tokenizer.decode(ids) == "a</s><|assistant|>"


def test_a_model_without_template_is_not_asked(base: Path) -> None:
    llm = lolama.load(base)
    with pytest.raises(ModelError, match="no chat template"):
        llm.chat(QUESTION)
    assert llm.generate("a", max_new_tokens=3).text == "bcd"


def test_device_dtype_and_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOLAMA_HOME", str(tmp_path / "home"))
    llm = lolama.load("demo", device="cpu", dtype="float32")
    assert repr(llm) == "<LanguageModel demo: float32 on cpu>"
    small = lolama.load("demo", quantize=True)
    assert any("Int8Linear" in str(type(part)) for part in small.model.modules())
    assert str(small.chat(QUESTION, temperature=0)) == ANSWER


def test_a_conversation_runs_only_what_is_new(demo: LanguageModel) -> None:
    talk = demo.conversation()
    assert str(talk.ask(QUESTION, temperature=0)) == ANSWER
    again = talk.ask("What does a cow say?", temperature=0)
    whole, _ = demo.encode_chat(talk.messages[:3])
    assert 0 < again.cached_tokens < len(whole)
    assert again.text == demo.chat(talk.messages[:3], temperature=0).text == "A cow says moo."
    assert [message["role"] for message in talk.messages] == ["user", "assistant"] * 2
    assert talk.messages[3]["content"] == again.text


def test_a_question_that_fails_leaves_the_conversation_as_it_was(demo: LanguageModel) -> None:
    talk = demo.conversation()
    talk.ask(QUESTION, temperature=0)
    before = talk.messages
    with pytest.raises(UsageError, match="attend over"):
        talk.ask("word " * 600)
    with pytest.raises(UsageError, match="takes none"):
        talk.ask("And this?", images=Image.new("RGB", (8, 8)))
    stream = talk.stream("Tell me a story about a dog.")
    stream.close()  # before it said anything
    assert talk.messages == before


def test_a_reply_that_is_broken_off_stays_as_far_as_it_came(demo: LanguageModel) -> None:
    talk = demo.conversation()
    with talk.stream("Tell me a story about a dog.", seed=1) as stream:
        said = next(stream) + next(stream)
    assert talk.messages == [
        {"role": "user", "content": "Tell me a story about a dog."},
        {"role": "assistant", "content": said},
    ]
    assert str(talk.ask(QUESTION, temperature=0)) == str(
        demo.chat(talk.messages[:3], temperature=0)
    )


def test_pictures_by_path_and_from_pil(seeing: LanguageModel, red: Path) -> None:
    for shown in (red, str(red), circle(), [red], (circle(),)):
        assert str(seeing.chat(ASKED, images=shown, temperature=0)) == RED
    assert str(seeing.generate(ASKED, images=red, temperature=0)) == RED
    assert str(seeing.generate(f"<image>\n{ASKED}", images=red, temperature=0)) == RED
    with pytest.raises(UsageError, match="has 2 <image> for 1 picture"):
        seeing.generate(f"<image><image>\n{ASKED}", images=red)
    assert "".join(seeing.stream(ASKED, images=red, temperature=0)) == RED


def test_messages_may_say_where_a_picture_stands(seeing: LanguageModel, red: Path) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": ASKED}]
    said: list[dict[str, object]] = [{"role": "user", "content": parts}]
    assert str(seeing.chat(said, images=red, temperature=0)) == RED
    further: list[dict[str, object]] = [
        *said,
        {"role": "assistant", "content": RED},
        {"role": "user", "content": "Is there a blue circle?"},
    ]
    assert seeing.chat(further, images=red, temperature=0).text == "No, there is no blue circle."


def test_a_conversation_about_pictures(seeing: LanguageModel, red: Path) -> None:
    talk = seeing.conversation()
    assert str(talk.ask(ASKED, images=red, temperature=0)) == RED
    red.unlink()  # it was read
    answer = talk.ask("Is there a blue circle?", temperature=0)
    assert answer.text == "No, there is no blue circle." and answer.cached_tokens > 50
    assert str(talk.ask(ASKED, images=circle("blue"), temperature=0))
    with pytest.raises(UsageError, match="show 2 pictures, and 3 are given"):
        seeing.chat(talk.messages, images=[circle()] * 3)


def test_row_190_pictures_that_cannot_be_shown(
    demo: LanguageModel, seeing: LanguageModel, tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError, match=r"images: 1 picture for demo, which is a text model and takes none"
    ):
        demo.chat(ASKED, images=circle())
    with pytest.raises(UsageError, match="images: 2 pictures for demo"):
        demo.generate(ASKED, images=[circle(), circle()])
    with pytest.raises(ModelError, match=r"none\.png: does not exist"):
        seeing.chat(ASKED, images=str(tmp_path / "none.png"))
    with pytest.raises(UsageError, match="images: holds an int"):
        seeing.chat(ASKED, images=[3])  # type: ignore[list-item]
    nobody = [{"role": "assistant", "content": "Hello"}]
    with pytest.raises(UsageError, match="messages: show 0 pictures, and 1 are given"):
        seeing.chat(nobody, images=circle())


@pytest.mark.parametrize(
    "messages",
    [
        [{"text": "Hello"}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": ["Hello"]}],
        ["Hello"],
        [("user", "Hello")],
        pytest.param([10**5000], id="huge"),
        pytest.param([{"role": "user", "content": 10**5000}], id="huge content"),
    ],
)
def test_row_191_messages_that_are_none(demo: LanguageModel, messages: object) -> None:
    with pytest.raises(UsageError, match=r"^messages: .*; write \{\"role\""):
        demo.chat(messages)  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", ["video", "audio", "image_url"])
def test_row_315_parts_that_are_neither_texts_nor_pictures(demo: LanguageModel, kind: str) -> None:
    """The template of LLaVA-OneVision writes a token for a video, and nothing would stand in its place."""
    said = [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": "What?"}]}]
    with pytest.raises(UsageError, match=f"^messages: hold a part of type '{kind}'; "):
        demo.chat(said)


def test_row_191_messages_where_a_text_belongs(demo: LanguageModel) -> None:
    with pytest.raises(UsageError, match="text: is a list; give text"):
        demo.generate([{"role": "user", "content": QUESTION}])  # type: ignore[arg-type]


def test_row_191_a_system_message_that_the_template_leaves_out(tmp_path: Path) -> None:
    import known_model

    template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    llm = lolama.load(known_model.write(tmp_path / "deaf", chat_template=template))
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}]
    with pytest.raises(UsageError, match=r"messages: .* leaves system messages out"):
        llm.chat(said)
    with pytest.raises(UsageError, match=r"messages: .* leaves system messages out"):
        llm.conversation("Be brief.").ask("a")
    assert str(llm.chat(said[1:], max_new_tokens=2)) == "bc"


def test_load_asks_before_it_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    from lolama import names
    from lolama_core.protocols.types import ModelFiles

    seen: list[object] = []

    def resolve(name: str, *, confirm: object) -> ModelFiles:
        seen.append(confirm)
        raise UsageError(name, "is not agreed to", "")

    monkeypatch.setattr(names, "resolve", resolve)
    with pytest.raises(UsageError):
        lolama.load("tinyllama", confirm=True)
    assert seen == [True]


def test_nothing_of_pil_is_imported_for_a_text_model(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: object) -> object:
        assert not name.startswith("PIL")
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert str(lolama.load("demo").chat(QUESTION, temperature=0)) == ANSWER
