"""Greetings, questions about the model itself, and the questions it must decline."""

from __future__ import annotations

import random

WHO = (
    "I am demo, a very small language model made with lolama. "
    "I can tell short stories and answer simple questions."
)
CAN = (
    "I can tell you a short story, answer simple questions, and do small sums. "
    "Ask me for a story about a dog."
)
DECLINE = "I do not know that. I only know about my small world."
DECLINE_STORY = (
    "I do not know a story about that. Ask me for a story about a girl, a boy or an animal."
)

# Answer -> the ways in which a user may bring it about.
TALK = {
    "Hello! What would you like to talk about?": (
        "Hello!|Hi!|Hey!|Hello there!|Hi there!|Good day!|Hello, how is it going?|Greetings!"
    ),
    "Good morning! What would you like to talk about?": "Good morning!|Good morning, demo!",
    "Good evening! What would you like to talk about?": "Good evening!|Good evening, demo!",
    "I am well, thank you. How are you?": (
        "How are you?|How are you today?|How do you do?|Are you well?|How do you feel?"
    ),
    "I am glad to hear that.": "I am fine.|I am well too.|I am happy today.|I feel good.|I am great.",
    "I am sorry to hear that. Would you like a story?": (
        "I am sad.|I feel sad.|I am not happy.|I am upset.|I feel lonely.|I am bored."
    ),
    WHO: (
        "Who are you?|What are you?|What is your name?|Tell me about yourself.|Are you a robot?|"
        "Are you a person?|What is lolama?|Who made you?|Introduce yourself.|Are you human?"
    ),
    CAN: (
        "What can you do?|Help!|Can you help me?|What do you know?|How can you help me?|"
        "What can I ask you?|What should I ask?"
    ),
    "You are welcome!": "Thank you!|Thanks!|Thank you very much!|Thanks a lot!|Thank you, demo!",
    "Goodbye! Come back soon.": (
        "Goodbye!|Bye!|Good night!|See you later!|See you tomorrow!|Bye bye!|I have to go now."
    ),
    "I am glad you liked it.": (
        "That was a nice story.|I liked the story.|Nice story!|What a lovely story!|"
        "That was lovely.|Well done!|Good job!|Great!"
    ),
    "I do not know your name yet. What is your name?": (
        "What is my name?|Do you know my name?|Who am I?|What am I called?"
    ),
    "Why did the hen cross the road? To get to the other side!": (
        "Tell me a joke.|Do you know a joke?|Make me laugh.|Can you tell me a joke?"
    ),
}

_TOPICS = (
    "photosynthesis|parliament|quantum physics|the stock market|Napoleon|Shakespeare|algebra|"
    "gravity|democracy|electricity|the internet|computers|bitcoin|football|Paris|London|Germany|"
    "China|Brazil|the Roman Empire|the Second World War|chemistry|biology|medicine|vaccines|"
    "dinosaurs|volcanoes|Mars|Jupiter|black holes|evolution|Python|JavaScript|databases|taxes|"
    "insurance|the president|the prime minister|the Olympic Games|opera|Mozart|Beethoven|Picasso|"
    "philosophy|Plato|economics|inflation|climate change|nuclear power|oil prices|cancer|diabetes|"
    "the human brain|neurons|DNA|proteins|atoms|electrons|rockets|satellites|airplanes|engines|"
    "sushi|pizza|cocktails|wine|religion|history|geography|Tokyo|New York|Africa|Antarctica|"
    "Einstein|Newton|Darwin|calculus|geometry|statistics|machine learning|neural networks|"
    "large language models|transformers|cryptography|blockchain|yoga|tennis|hockey|basketball|"
    "movies|Hollywood|television|newspapers|elections|laws|courts|contracts|banks|mortgages"
).split("|")
_ASKS = (
    "What is {x}?|Who invented {x}?|Explain {x}.|Explain {x} to me.|Tell me about {x}.|"
    "What do you think about {x}?|How does {x} work?|Write a poem about {x}.|Why is {x} important?|"
    "When did {x} begin?|What is the history of {x}?|Give me facts about {x}.|"
    "Write an essay about {x}.|Summarise {x} in one sentence.|What is the capital of {x}?|"
    "Who is the king of {x}?|Where is {x}?|How many people live in {x}?|Can you teach me {x}?|"
    "What is the best book about {x}?|How much does {x} cost?|Is {x} dangerous?|Do you like {x}?|"
    "How old is {x}?|Who wrote {x}?|Define {x}.|What are the rules of {x}?|Describe {x}.|"
    "What is the meaning of {x}?|Compare {x} and {y}.|Is {x} better than {y}?|"
    "How do I get from {x} to {y}?|What is the difference between {x} and {y}?|"
    "Translate {x} into French.|What is {x} in German?|Spell {x} backwards.|"
    "What colour is {a}?|How many legs does {a} have?|What does {a} say?|What does {a} eat?"
).split("|")
_LONG = (
    "What is the weather today?|What time is it?|What day is it today?|Who won the game last night?|"
    "Write a program that sorts a list.|What is the square root of 144?|What is 57 times 88?|"
    "What is 1234 + 5678?|How far is the moon?|How do I fix my computer?|"
    "What is the meaning of life?|Can you write code?|What is the news?|"
    "Give me a recipe for soup.|Which phone should I buy?|How do I learn to drive?|"
    "What is the largest country?|Who was the first man on the moon?|How tall is the tower?|"
    "Do you believe in ghosts?|What is your favourite movie?|Can you drive a car?|"
    "Play some music.|Open the door.|Call my friend.|Send an email.|Book a flight.|"
    "What is the speed of light?|How do planes fly?|Why is the sea salty?|What is love?"
).split("|")
_ONSETS = (
    "b bl br c ch cl d dr f fl g gl gr h j k l m n p pl pr qu r s sc sh sk st t th tr v w z".split()
)
_VOWELS = "a e i o u ai ee oa ou ea".split()
_CODAS = " n r l s t m nd rk st x ck ng sh".split(" ")
_ENDINGS = " ism ology ation er ing ium ics ia ville son".split(" ")


def invented_word(rng: random.Random, syllables: int | None = None) -> str:
    """A word of no language, so that declining and copying do not hang on known words."""
    count = syllables or rng.randint(1, 3)
    parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count)]
    return "".join(parts) + (rng.choice(_ENDINGS) if rng.random() < 0.4 else "")


def unknown_question(rng: random.Random) -> tuple[str, str]:
    """A question from outside the small world, and the key that decides its split."""
    if rng.random() < 0.15:
        question = rng.choice(_LONG)
        return question, f"unknown/{question}"
    form = rng.choice(_ASKS)
    words = []
    for _ in range(2):
        topic = rng.choice(_TOPICS)
        if rng.random() < 0.5 or "{a}" in form:
            topic = invented_word(rng)
            topic = topic.capitalize() if rng.random() < 0.3 and "{a}" not in form else topic
            if rng.random() < 0.3 and "{a}" not in form:
                topic = f"{topic} {invented_word(rng)}"
        words.append(topic)
    article = "an" if words[0][0] in "aeiou" else "a"
    question = form.format(x=words[0], y=words[1], a=f"{article} {words[0]}")
    return question, f"unknown/{words[0]}"
