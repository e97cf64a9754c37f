from __future__ import annotations

import pytest
from training.text.chat import MAKERS, make_dialogue, single
from training.text.checker import fault_in
from training.text.corpus import held_out_dialogue_rng, held_out_stories, training_stories
from training.text.stories import PLOTS, is_held_out, make_story


@pytest.mark.parametrize("part", range(4))
def test_every_generated_story_passes_the_checker(part: int) -> None:
    for index in range(500):
        story = make_story(f"test{part}/{index}")
        assert fault_in(story.text) is None, story.text


def test_a_story_depends_on_its_seed_alone() -> None:
    assert make_story("a") == make_story("a")
    assert make_story("a").text != make_story("b").text


def test_every_plot_is_told() -> None:
    assert {make_story(str(index)).plot for index in range(300)} == set(PLOTS)


def test_a_story_is_about_what_was_asked_for() -> None:
    for index in range(50):
        story = make_story(str(index), kind="fox", name="Pip")
        assert (story.hero_kind, story.hero_name, story.hero_gender) == ("fox", "Pip", "m")
        assert "Pip" in story.text


def test_the_split_is_by_parameters_and_stable() -> None:
    # Python's own hash changes from run to run; the split must not.
    assert [index for index in range(220) if is_held_out(str(index))] == [166, 168, 214]
    share = sum(is_held_out(f"share{index}") for index in range(6400)) / 6400
    assert 0.02 < share < 0.045


def test_no_held_out_story_is_trained_on() -> None:
    training = set(training_stories(2000, 0))
    assert not training & set(held_out_stories(200, 0))


def test_nothing_in_a_training_dialogue_is_held_out() -> None:
    drawn = [single(held_out_dialogue_rng(seed), held_out=True) for seed in range(200)]
    held_out = {exchange.question for exchange in drawn if exchange.story is None}
    held_out |= {exchange.answer for exchange in drawn if exchange.story is not None}
    for index in range(2000):
        for turn in make_dialogue(str(index)):
            assert turn["content"] not in held_out


def test_a_dialogue_alternates_and_ends_with_the_assistant() -> None:
    for index in range(300):
        roles = [turn["role"] for turn in make_dialogue(str(index)) if turn["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


def test_a_name_that_was_told_is_remembered() -> None:
    remembered = 0
    for index in range(400):
        said = [turn["content"] for turn in make_dialogue(str(index))]
        if said[-1].startswith("Your name is "):
            name = said[-1].removeprefix("Your name is ").rstrip(".")
            assert any(name in text for text in said[:-2])
            remembered += 1
    assert remembered > 5


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_one_question_has_one_answer(maker: object) -> None:
    assert callable(maker)
    answers: dict[str, str] = {}
    rng = held_out_dialogue_rng(7)
    for _ in range(2000):
        exchange = maker(rng)
        if exchange.story is None:
            assert answers.setdefault(exchange.question, exchange.answer) == exchange.answer
