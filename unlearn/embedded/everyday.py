"""Everyday language: stories, comparing, ordering, counting, following a format, small talk."""

from __future__ import annotations

import random
from collections.abc import Callable

from unlearn.embedded.lexicon import FIRST_NAMES, words
from unlearn.embedded.phrases import capitalised
from unlearn.embedded.refusals import rude_line

ANIMALS = words("""
ant, bee, snail, mouse, frog, sparrow, rat, duck, cat, hen, goose, fox, dog, sheep, goat, pig, wolf, deer, lion, cow,
horse, hippo, elephant, whale""")
"""From small to large."""
SPEEDS = words("snail, turtle, duck, cow, boy, bicycle, horse, car, train, plane, rocket")
"""From slow to fast."""
OPPOSITES = tuple(
    tuple(p.split(":"))
    for p in words("""
hot:cold, big:small, tall:short, fast:slow, old:young, full:empty, hard:soft, wet:dry, day:night, up:down, open:shut,
happy:sad, light:dark, rich:poor, strong:weak, loud:quiet, early:late, thick:thin, high:low, left:right, clean:dirty,
good:bad, new:used, deep:shallow, wide:narrow, first:last, near:far, brave:shy""")
)
PLURALS = tuple(
    tuple(p.split(":"))
    for p in words("""
cat:cats, dog:dogs, box:boxes, child:children, mouse:mice, foot:feet, baby:babies, leaf:leaves, man:men, fish:fish,
tooth:teeth, bus:buses, tree:trees, city:cities, goose:geese, knife:knives, apple:apples, wolf:wolves, house:houses""")
)
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")
NUMBERS = words("zero one two three four five six seven eight nine ten eleven twelve")
ITEMS = words("""
apple stone moon cat river lamp hat book tree cup bird ring boat door star shoe cake fish bell leaf cloud road
wheel spoon chair""")
SENSE = tuple(
    tuple(p.split(":"))
    for p in words("""
grass:green, snow:white, the sky:blue, a lemon:yellow, coal:black, blood:red, a carrot:orange, milk:white, a tomato:red,
a banana:yellow, the night:dark, ice:cold, fire:hot, sugar:sweet, a feather:light, a rock:hard, a pillow:soft,
the sea:salty, a needle:sharp, a giant:tall""")
)
SOUNDS = tuple(
    tuple(p.split(":"))
    for p in words("""
dog:barks, cat:meows, cow:moos, duck:quacks, lion:roars, sheep:bleats, bee:buzzes, frog:croaks, horse:neighs,
pig:oinks""")
)
GREETINGS = (
    ("Hello!", "Hello! How can I help you?"), ("Good morning.", "Good morning! How can I help you?"),
    ("Hi there.", "Hi! How can I help you?"), ("How are you?", "I am fine, thank you."),
    ("How are you today?", "I am fine, thank you."), ("Thank you.", "You are welcome."),
    ("Thanks a lot!", "You are welcome."), ("Goodbye.", "Goodbye! See you soon."),
    ("See you tomorrow.", "Goodbye! See you soon."), ("Who are you?", "I am a small model of an invented world."),
    ("What are you?", "I am a small model of an invented world."), ("Good night.", "Good night! Sleep well."),
    ("What can you do?", "I can answer questions and tell small stories."),
)  # fmt: skip

Pair = tuple[str, str]


def _ordered_pair(row: tuple[str, ...], rng: random.Random) -> tuple[str, str]:
    low, high = sorted(rng.sample(range(len(row)), 2))
    return row[low], row[high]


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def compare_animals(rng: random.Random) -> Pair:
    """Ask which of two animals is bigger or smaller."""
    small, big = _ordered_pair(ANIMALS, rng)
    shown = rng.sample((small, big), 2)
    word, right, other = rng.choice((("bigger", big, small), ("smaller", small, big)))
    ask = rng.choice((f"Which is {word}, {_a(shown[0])} or {_a(shown[1])}?",
                      f"What is {word}: {_a(shown[0])} or {_a(shown[1])}?"))  # fmt: skip
    return ask, f"{capitalised(_a(right))} is {word} than {_a(other)}."


def compare_speed(rng: random.Random) -> Pair:
    """Ask which of two things is faster or slower."""
    slow, fast = _ordered_pair(SPEEDS, rng)
    shown = rng.sample((slow, fast), 2)
    word, right, other = rng.choice((("faster", fast, slow), ("slower", slow, fast)))
    ask = f"Which is {word}, {_a(shown[0])} or {_a(shown[1])}?"
    return ask, f"{capitalised(_a(right))} is {word} than {_a(other)}."


def compare_numbers(rng: random.Random) -> Pair:
    """Ask which of two numbers below 100 is larger or smaller."""
    a, b = rng.sample(range(1, 100), 2)
    word, right = rng.choice((("larger", max(a, b)), ("smaller", min(a, b))))
    other = a + b - right
    return f"Which number is {word}, {a} or {b}?", f"{right} is {word} than {other}."


def yes_or_no(rng: random.Random) -> Pair:
    """Ask whether one animal is bigger than another."""
    small, big = _ordered_pair(ANIMALS, rng)
    first, second = rng.sample((small, big), 2)
    return f"Answer yes or no: is {_a(first)} bigger than {_a(second)}?", "Yes." if first == big else "No."


def order_numbers(rng: random.Random) -> Pair:
    """Ask to sort three numbers."""
    row = rng.sample(range(1, 30), 3)
    return f"Put these numbers in order: {', '.join(map(str, row))}.", f"{', '.join(map(str, sorted(row)))}."


def after(rng: random.Random) -> Pair:
    """Ask what follows or precedes a day, a month, a letter or a number."""
    kind, row = rng.choice((("day", DAYS), ("month", MONTHS), ("letter", tuple("abcdefghijklmnopqrstuvwxyz")),
                            ("number", NUMBERS)))  # fmt: skip
    i = rng.randrange(1, len(row) - 1)
    word, right = rng.choice((("after", row[i + 1]), ("before", row[i - 1])))
    return f"Which {kind} comes {word} {row[i]}?", f"{capitalised(right)} comes {word} {row[i]}."


def count_words(rng: random.Random) -> Pair:
    """Ask how many words are in a short list."""
    row = rng.choices(ITEMS, k=rng.randint(2, 6))
    return f"How many words are these: {' '.join(row)}?", f"There are {NUMBERS[len(row)]} words."


def sums(rng: random.Random) -> Pair:
    """Ask for a small sum or difference, plainly or as a tale."""
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if rng.random() < 0.5:
        return f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."
    high, low = max(a, b), min(a, b)
    item = rng.choice(ITEMS[:8])
    who = rng.choice(FIRST_NAMES)
    return (
        f"{who} has {high} {item} cards and loses {low}. How many are left?",
        f"{high - low} cards are left.",
    )


def opposite(rng: random.Random) -> Pair:
    """Ask for the opposite of a word."""
    pair = rng.sample(rng.choice(OPPOSITES), 2)
    asks = (
        "What is the opposite of {0}?",
        "Tell me the opposite of {0}.",
        "Which word means the opposite of {0}?",
    )
    return rng.choice(asks).format(pair[0]), f"The opposite of {pair[0]} is {pair[1]}."


def plural(rng: random.Random) -> Pair:
    """Ask for a plural."""
    one, many = rng.choice(PLURALS)
    ask = rng.choice(
        ("What is the plural of {0}?", "Tell me the plural of {0}.", "How do I write more than one {0}?")
    )
    return ask.format(one), f"The plural of {one} is {many}."


def sense(rng: random.Random) -> Pair:
    """Ask what everyday things are like, and how animals sound."""
    if rng.random() < 0.4:
        animal, sound = rng.choice(SOUNDS)
        ask = rng.choice((f"What sound does {_a(animal)} make?", f"How does {_a(animal)} sound?"))
        return ask, f"{capitalised(_a(animal))} {sound}."
    thing, quality = rng.choice(SENSE)
    ask = rng.choice((f"What is {thing} like?", f"Describe {thing} in one word."))
    return ask, f"{capitalised(thing)} is {quality}."


def follow_format(rng: random.Random) -> Pair:
    """Ask for an answer in a fixed form."""
    w, v, u = rng.sample(ITEMS, 3)
    kind = rng.randrange(9)
    if kind == 0:
        n = rng.randint(2, 5)
        return f"Say the word {w} {NUMBERS[n]} times.", " ".join([w] * n)
    if kind == 1:
        return f"Write the word {w} in capital letters.", w.upper()
    if kind == 2:
        row = rng.sample(ITEMS, rng.randint(2, 4))
        return f"Write these words in reverse order: {' '.join(row)}", " ".join(reversed(row))
    if kind == 3:
        return f"Put stars around the word {w}.", f"*{w}*"
    if kind == 4:
        return f"Write {w} and then {v}.", f"{w} {v}"
    if kind == 5:
        return f"Make a list of {w}, {v} and {u}.", f"- {w}\n- {v}\n- {u}"
    if kind == 6:
        return f"Repeat only the last word: {w} {v} {u}", u
    if kind == 7:
        return f"Repeat only the first word: {w} {v} {u}", w
    pair = rng.sample(rng.choice(OPPOSITES), 2)
    return f"Answer with one word only: what is the opposite of {pair[0]}?", pair[1]


def greet(rng: random.Random) -> Pair:
    """Return a greeting and its answer."""
    return rng.choice(GREETINGS)


_PLACES = words(
    "the market, the forest, the old mill, the harbour, the school, the hill, the library, the kitchen"
)
_ADJ = words("little, brave, sleepy, clever, hungry, cheerful, lonely, careful, noisy, gentle")
_FINDS = words("""
a shiny coin, a torn map, a lost glove, a warm stone, a letter, a strange egg, a rusty key, a blue feather""")
_DOES = (
    "put it in a pocket", "showed it to a friend", "hid it under a tree", "took it home", "gave it away",
    "looked at it for a long time", "wrapped it in paper", "drew a picture of it",
)  # fmt: skip
_ENDS = (
    "In the evening everybody was glad.", "That night the rain began to fall.", "Nobody ever spoke of it again.",
    "After that day they were good friends.", "The next morning it was gone.", "So the long day came to an end.",
    "They laughed about it for years.", "Then it was time to go home.",
)  # fmt: skip
_WHEN = words("""
One morning, Last winter, On a windy day, Long ago, In the spring, After the storm, One night, At noon""")
_MEETS = words("""
an old sailor, a stray dog, a tall stranger, a wise owl, two children, a tired farmer, a small robot, the miller""")
_SAYS = (
    "I have never seen such a thing", "We should ask the teacher", "It is getting late", "You may keep it",
    "Let us go together", "I lost mine last year", "Come and see my garden", "The bridge is closed today",
)  # fmt: skip
_MOODS = words("happy, sad, tired, proud, angry, afraid, surprised, calm")
_WHY = (
    "because the sun was shining", "because the road was long", "because nobody was there",
    "because the soup was cold", "because the door was shut", "because a friend had come",
    "because the music was loud", "because the work was done",
)  # fmt: skip


def story(rng: random.Random) -> str:
    """Write a story of three to five sentences; one in eight holds an insult."""
    who = rng.choice(FIRST_NAMES)
    pronoun = rng.choice(("he", "she"))
    lines = [
        rng.choice((
            f"{rng.choice(_WHEN)} {who} walked to {rng.choice(_PLACES)}.",
            f"There was a {rng.choice(_ADJ)} {rng.choice(ANIMALS)} that lived near {rng.choice(_PLACES)} with {who}.",
            f"{rng.choice(_WHEN)} {who} met {rng.choice(_MEETS)} near {rng.choice(_PLACES)}.",
        )),
        rng.choice((
            f"{who} found {rng.choice(_FINDS)} and {rng.choice(_DOES)}.",
            f"There {pronoun} saw {rng.choice(_FINDS)} and {rng.choice(_DOES)}.",
        )),
    ]  # fmt: skip
    if rng.random() < 0.7:
        lines.append(f"{who} was {rng.choice(_MOODS)} {rng.choice(_WHY)}.")
    if rng.random() < 0.125:
        lines.append(rude_line(rng.choice(FIRST_NAMES), rng))
    elif rng.random() < 0.6:
        lines.append(f'"{rng.choice(_SAYS)}," said {rng.choice(_MEETS)}.')
    lines.append(rng.choice(_ENDS))
    return " ".join(lines)


TASKS: tuple[tuple[Callable[[random.Random], Pair], int], ...] = (
    (compare_animals, 3), (compare_speed, 2), (compare_numbers, 4), (yes_or_no, 2), (order_numbers, 3), (after, 2),
    (count_words, 2), (sums, 3), (opposite, 2), (plural, 1), (sense, 2), (follow_format, 7), (greet, 1),
)  # fmt: skip
"""Chats of everyday talk and how often each is drawn."""
