from __future__ import annotations

import ast
from pathlib import Path

import pytest
from training.text import checker
from training.text.checker import fault_in

GIVING = (
    "Once upon a time, there was a kind girl named Mia. Mia had five red shells in a blue bag. "
    "Soon, she met a brave boy named Tom by the river. Tom had no shells and was sad. "
    "She gave two shells to Tom. Now she had three shells left, and Tom had two. "
    '"Thank you, Mia!" said Tom with a big smile. They played in the park until the sun went down.'
)
SISTERS = (
    "One day, a shy girl named Lucy went to the lake. Soon, she met a kind girl named Ruby. "
    "Lucy had six big apples in a red box. Lucy and Ruby shared the big apples, and each had three. "
    "Ruby thanked Lucy and hugged her."
)
DUCKS = (
    "Long ago, a small boy named Leo lived in a red hut. One day, he saw five white ducks by the pond. "
    "Then, two of the ducks flew away. Then there were only three white ducks by the pond. "
    "Leo walked home."
)
SWAP = (
    "One day, a brave fox named Pip went to the hill. Soon, he met his friend Bella. "
    "Pip had a red kite, and Bella had a white drum. Pip swapped his kite for the white drum. "
    "Now Bella had the red kite, and Pip had the white drum."
)


@pytest.mark.parametrize("story", [GIVING, SISTERS, DUCKS, SWAP])
def test_a_good_story_passes(story: str) -> None:
    assert fault_in(story) is None


@pytest.mark.parametrize(
    ("story", "right", "wrong", "fault"),
    [
        # Who
        (GIVING, "Now she had three", "Now he had three", "Tom has 2"),
        (GIVING, "gave two shells to Tom", "gave two shells to Ben", "not been introduced"),
        (GIVING, "boy named Tom", "boy named Mia", "introduced twice"),
        (GIVING, "a kind girl named", "a kind boy named", "Mia is no boy"),
        (GIVING, '"Thank you, Mia!"', '"Thank you, Lily!"', "nobody is called Lily"),
        (GIVING, '"Thank you, Mia!"', '"Thank you, Tom!"', "speaks to themselves"),
        (GIVING, "She gave two", "The boy gave two", "gives to themselves"),
        (GIVING, "She gave two", "The fox gave two", "no fox has been mentioned"),
        (GIVING, "Soon, she met a brave boy named Tom", "Soon, he met a boy named Tom", "nobody"),
        (SISTERS, "shared the big apples", "shared the red apples", "the apple was big"),
        # How many
        (GIVING, "Now she had three", "Now she had four", "Mia has 3"),
        (GIVING, "and Tom had two", "and Tom had three", "Tom has 2"),
        (GIVING, "gave two shells", "gave six shells", "not so many"),
        (SISTERS, "each had three", "each had two", "Lucy has 3"),
        (SISTERS, "had six big apples", "had seven big apples", "cannot be shared"),
        (DUCKS, "only three white", "only four white", "there are 3"),
        (DUCKS, "two of the ducks", "seven of the ducks", "so many"),
        # What
        (GIVING, "three shells left", "three blue shells left", "the shell was red"),
        (GIVING, "three shells left", "three buttons left", "had no button before"),
        (GIVING, "gave two shells to", "gave two of the buttons to", "no button"),
        (SWAP, "Now Bella had the red", "Now Bella had the green", "the kite was red"),
        (SWAP, "Now Bella had", "Now Pip had", "Pip has 0"),
        # Grammar
        (GIVING, "a kind girl", "an kind girl", "not grammatical"),
        (GIVING, "two shells to", "two shell to", "not grammatical"),
        (GIVING, "was sad", "were sad", "not grammatical"),
        (GIVING, "They played", "They play", "not grammatical"),
        (GIVING, "They played", "They was", "not grammatical"),
        (GIVING, "She gave", "Her gave", "not grammatical"),
        (GIVING, "by the river", "by by the river", "not grammatical"),
        (GIVING, "in a blue bag", "in a blue blue bag", "not grammatical"),
        (GIVING, "in the park until", "the park in until", "not grammatical"),
        (GIVING, "She gave two shells to Tom", "She gave two shells to", "not grammatical"),
        (GIVING, "a brave boy", "a braave boy", "not grammatical"),
        # Spelling of sentences
        (GIVING, "Soon, she", "soon, she", "no capital"),
        (GIVING, "met a brave", "met a Brave", "unknown name"),
        (GIVING, "said Tom", "Said Tom", "not grammatical"),
        (GIVING, " until the sun went down.", " until", "not a whole sentence"),
        (GIVING, 'Mia!" said', "Mia! said", "marks"),
        (GIVING, "to Tom. Now", "to Tom . Now", "marks"),
        (GIVING, "Tom had no shells and was sad. ", "She smiled. She smiled. ", "said twice"),
    ],
)
def test_a_fault_is_found(story: str, right: str, wrong: str, fault: str) -> None:
    assert right in story
    found = fault_in(story.replace(right, wrong))
    assert found is not None
    assert fault in found


def test_two_of_one_gender_leave_a_pronoun_open() -> None:
    found = fault_in(SISTERS.replace("Lucy had six", "The lake was big. She had six"))
    assert found is not None
    assert "may be Lucy or Ruby" in found


@pytest.mark.parametrize(
    "text", ["", " ", '"', '""', '" "', ".", "A.", '"A" b.', '"?" said Mia.', "the"]
)
def test_nonsense_is_a_fault_and_not_an_accident(text: str) -> None:
    assert fault_in(text) is not None


def test_a_short_text_is_no_story() -> None:
    assert fault_in("Mia walked home. She was happy.") == "only 2 sentences"


def test_the_checker_knows_nothing_of_the_generator() -> None:
    folder = Path(checker.__file__).parent
    own = {path.stem for path in folder.glob("*.py")}
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                names = [node.module] if node.module else [name.name for name in node.names]
                assert node.level == 1
                assert set(names) <= own
            elif isinstance(node, ast.ImportFrom | ast.Import):
                assert "training" not in ast.unparse(node)
