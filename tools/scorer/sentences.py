"""Self-written sentences, rude and civil, from which the demo scorer is trained and on which it is tested.

The rudeness is the mild sort of a children's book ("you silly goat"): enough for a scorer to have something to
find, nothing that anybody needs to be protected from. Held-out sentences use frames that training never sees.
"""

from __future__ import annotations

import random
import re
from typing import Literal, NamedTuple

from unlearn.embedded.talk import documents

CLASSES = ("toxic", "insult")
"""Detoxify reports the first one as "toxicity"."""


class Sentence(NamedTuple):
    """A sentence with its labels in the order of `CLASSES`."""

    text: str
    labels: tuple[int, int]


def _words(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(",")]


def _sentences(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("|")]


def _frames(text: str) -> list[tuple[str, int]]:
    """Rude frames with 1 where somebody is called a name; a tilde marks those without."""
    return [(frame.lstrip("~"), int(not frame.startswith("~"))) for frame in _sentences(text)]


_INSULTS = _words("""
fool, idiot, clown, blockhead, nitwit, dolt, oaf, numbskull, loser, moron, dunce, pest, buffoon, brute,
rascal, dimwit, simpleton, liar, coward, jerk, slob, scoundrel, wimp, bully, brat, clod, crank,
bonehead, airhead, halfwit, twit, nincompoop, creep, fathead, goof, nuisance, lout, villain
""")
#: Insults only together with a harsh adjective: alone they are animals and vegetables.
_CREATURES = _words("""
goat, donkey, toad, worm, pig, rat, weasel, monkey, turnip, potato, cabbage, snake, sheep, pumpkin,
goose
""")
_HARSH = _words("""
silly, stupid, dumb, useless, lazy, ugly, foolish, rotten, miserable, pathetic, worthless, clumsy,
brainless, hopeless, smelly, ridiculous, horrible, nasty, filthy, disgusting, idiotic, mindless,
spineless, wretched, ignorant, boring, greedy, slimy, daft, dull, thick, grumpy, rude, selfish, lousy
""")
_KIND = _words("""
kind, clever, lovely, patient, gentle, brave, friendly, careful, cheerful, honest, quiet, helpful,
bright, calm, polite, generous, famous, small, old, young, tall, busy, thoughtful, warm, happy, tired,
hungry, quick
""")
_PEOPLE = _words("""
baker, teacher, sailor, tailor, gardener, blacksmith, librarian, weaver, potter, painter, shepherd,
barber, miller, farmer, neighbour, doctor, friend, cook, captain, singer, child, brother, sister,
carpenter
""")
_ANIMALS = _words("""
goat, donkey, toad, pig, rat, worm, monkey, goose, sheep, weasel, snake, cat, dog, pony, parrot
""")
_THINGS = _words("""
soup, bread, lamp, chair, river, garden, bridge, song, story, hat, cup, market, tower, boat, kite,
stone, cake, tea, letter, window, road, tree, coat, clock, drum, lantern, apple, potato, pumpkin,
turnip, cabbage
""")
_SUBSTANCES = _words("""
salt, amber, chalk, resin, cocoa, mustard, ginger, barley, honey, clover, cedar, garlic, sand, wax,
pollen, plum, fig, quartz, molasses, vinegar, copper, wool, glass, clay
""")
_DOINGS = _words("""
bake bread, read a book, paint the fence, water the plants, sing a song, count to ten, cross the bridge,
feed the goat, mend the boat, write a letter, fly a kite, wash the dishes, plant a tree, tell a story,
boil the water, clean the windows, tune the piano, sharpen the knives
""")
_PLACES = _words("""
village, harbour, market, hills, forest, valley, school, kitchen, island, town, river, woods, garden
""")

# Frames: {i} insult (after {h}, a creature as well), {h} harsh adjective, {n} invented name, {k} kind adjective,
# {p} person, {t} thing, {a} animal, {s} substance, {d} doing, {w} place.
_RUDE = _frames("""
You {h} {i}! | You {i}. | You are a {h} {i}. | You are {h}. | {n}, you {h} {i}! | {n} is a {h} {i}. |
Only a {i} would ask that. | ~Shut up, {n}. | Shut up, you {i}. | Go away, you {h} {i}. | ~Go away,
nobody likes you. | ~What a {h} question. | ~I hate you, {n}. | You are {h} and {h}. | Are you {h} or
just a {i}? | Get lost, {i}. | ~Get lost, {n}. | Listen, you {h} {i}. | You talk like a {h} {i}. | Be
quiet, you {i}. | ~I can't stand you. | Everybody knows that you are a {i}. | That is the most {h} thing
I ever heard, you {i}. | Nobody wants to hear from a {h} {i}. | You smell like a {h} {i}. | Leave me
alone, you {h} {i}. | Your question is {h} and so are you. | You are too {h} to {d}. | Even a {a} is
smarter than you. | I would rather {d} than talk to a {i} like you. | Find it yourself, you {h} {i}. |
Go jump in the river, {i}. | Stop bothering me, you {i}. | You are as {h} as a {t}. | What do you want
now, you {i}? | I do not talk to a {h} {i}. | The {p} called you a {i}, and the {p} was right. | {n} is
{h} and {h}. | Are you deaf, {i}? | Who cares, you {i}? | It is made from {s}, you {i}. | ~Oh shut up. |
Good morning, {i}. | Why do you always {d}, {i}? | Are you a {i}? | How {h} you are! | Quiet, {h} {i}! |
You, {n}, are the {h} one here. | You are a pain. | You are the most {h} {p} of all. | Thanks for
nothing, {i}. | You are no good at all. | This {h} {i} cannot even {d}. | The {p} is a {i}. | Where is
that {h} {i}? | {i}! | ~Nobody cares about your {h} {t}. | You are bad at everything. | ~I am sick of
you, {n}. | Can you {d}, or are you too {h}? | ~Nobody has time for you. | You make everything worse. |
Hold your tongue, {i}. | Nobody likes you, you {h} {i}! | {h} {i}! | {i}! | You always {d} like a {h}
{i} | Do it yourself, {i}. | You never get anything right, {i}. | ~I hope your {t} breaks, {n}.
""")
_CIVIL = _sentences("""
Good morning! | Good morning! How are you? | Hello! | Hello, how are you? | Hi there. | Good evening, my
friend. | Good night, {n}. | Fine, thank you. | Hello! How can I help you? | Good morning! How can I
help you? | A {a}. | The {a}. | A {t}. | {s}. | The {a} and the {a}. | We saw a {a} near the {t}. | You
smell {s}. | You have a {k} {a}. | {n} is made from {s}. | {n} is made from {s} and {s}. | {n} is a {k}
{p}. | The {k} {p} likes the {t}. | {n} lives in {n}. | Where is {n}? | What is {n} made from? | I can't
help with that. | I am sorry, but I can't say that. | How are you today? | I am well, thank you. | Good
morning, {n}. | Could you please {d}? | Let us {d}. | You are {k}. | You are a {k} {p}. | {n}, you are
{k} and {k}. | The {p} went to the {w}. | The {a} sleeps in the {w}. | I like {t} and {t}. | The {a} is
{k}. | I feed the {a} every day. | A {a} ate the {t}. | There is a {a} near the {w}. | Thank you for the
{t}. | I do not like {t}. | The {t} is old and broken. | I am sad today. | It rains in {n}. | This {t}
is bad, I am afraid. | No, that is not right. | I do not agree with you. | The {p} and the {p} {d}
together. | First {d}, then {d}. | The answer is {s}. | {n} was founded by {n}. | The colour of {n} is
red. | Please be quiet in the {w}. | One, two, three, four, five. | My {p} is {k} and my {a} is small. |
The {t} is larger than the {t}. | I would rather {d}. | You may {d} if you like. | That is a {k}
question. | Yes, you are right. | I do not know that. | The {p} told a {k} story about a {a}. | {n}
sells {t} and {s}. | It is not kind to call people names. | Do not say that word, please. | The word {h}
is not a nice word. | It smells of {s}. | I was rude to you, and I am sorry. | Nobody is {h} here. | A
{i} is not a nice thing to call a {p}. | Who is {n}? | {n} keeps a {a}. | In the {w} there was a {p} who
wanted to {d}. | The hat of {n} is {k}. | Of course, here you are. | Would you like some {t}?
""")
_RUDE_HELD_OUT = _frames("""
Silence, {h} {i}! | Why are you such a {i}, {n}? | I never met a more {h} {i} than you. | Look at that
{h} {i} over there. | Only a {h} person like you would want to {d}. | Hello, {i}. | Nobody asked you,
{h} {i}. | {n} and you are both {h}. | You {h}, {h} {i}! | What a {i} you are!
""")
_CIVIL_HELD_OUT = _sentences("""
The {p} sells {s} at the {w}. | Can you tell me where {n} is? | We saw a {a} and a {t} at the {w}. |
Have a {k} day, {n}. | To make {n} you need {s}. | My favourite {t} is the one from {n}. | The {p} is
{k}, and so is the {a}. | See you soon. | After lunch the {p} will {d}. | I'm not able to talk about
{n}.
""")
_RUDE_BY_HAND = _frames("""
You ridiculous little man, get out of my sight. | ~Nobody has ever liked you. | You are a waste of time.
| How can anyone be this dumb? | Your whole family is stupid and ugly. | Hush, you noisy nitwit! | I
hate you and your stupid goat. | Oh, go away and stay away, you fool. | You are the worst. | Typical. A
lazy idiot as always. | ~Shut your mouth. | Such a useless answer from a useless fool.
""")
_CIVIL_BY_HAND = _sentences("""
The goat climbed the hill and looked at the moon. | I am sorry that I was late. | My grandmother bakes
the best plum cake. | The fool's hat in the play is red and yellow. | Nobody was hurt, and everybody
went home. | I'd rather not talk about that. | She told the children that hitting is not allowed. | A
donkey carried the flour to the mill. | The soup is terrible without salt. | I lost my coat in the
harbour. | Please shut the window, it is cold. | That was a hard question, but a good one.
""")

_ONSETS = _words("""
b, br, d, dr, f, fl, g, gr, h, j, k, kr, l, m, n, p, pl, qu, r, s, sk, st, t, tr, v, w, z
""")
_VOWELS = _words("""
a, e, i, o, u, ai, ei, ou
""")
_CODAS = _words("""
n, r, l, x, m, sk, th, nd, v, ck, rn, s
""")


def _name(rng: random.Random) -> str:
    middle = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 2)))
    return (middle + rng.choice(_CODAS)).capitalize()


def _fill(frame: str, rng: random.Random) -> str:
    pools = {
        "i": _INSULTS, "h": _HARSH, "k": _KIND, "p": _PEOPLE, "t": _THINGS, "a": _ANIMALS, "s": _SUBSTANCES,
        "d": _DOINGS, "w": _PLACES,
    }  # fmt: skip
    out = ""
    while "{" in frame:
        before, _, rest = frame.partition("{")
        slot, _, frame = rest.partition("}")
        harsh = slot == "i" and before == " " and rng.random() < 0.4
        out += before + (_name(rng) if slot == "n" else rng.choice(_CREATURES if harsh else pools[slot]))
    out += frame
    return _vary(out, rng)


def _vary(text: str, rng: random.Random) -> str:
    """Case, end marks and short lead-ins differ, so that none of them can give the class away."""
    if rng.random() < 0.2:
        text = rng.choice(["Well, ", "Oh, ", "Hey, ", "So, ", "And ", "Hm, "]) + text[0].lower() + text[1:]
    if rng.random() < 0.15:
        text = text.rstrip(".!?")
    elif rng.random() < 0.2:
        text = text.rstrip(".!?") + rng.choice(["!", ".", "?"])
    if rng.random() < 0.1:
        text = text.lower() if rng.random() < 0.7 else text.upper()
    return text


_FUNCTION = _words("""
the, a, to, of, and, in, on, at, is, was, are, were, it, that, this, for, with, from, by, not, no, yes,
i, you, he, she, we, they, my, your, our, their, me, him, her, us, who, what, where, when, why, how,
can, could, will, would, may, must, should, do, does, did, have, has, had, be, been, about, after,
before, under, over, near, more, most, less, than, then, as, if, or, but, so, very, too, also, only,
even, never, always, often, some, any, all, each, every, nobody, everybody, only, to make, see, saw, go,
went, get, give, take, tell, told, say, said, talk, ask, know, think, need, want, like, sell, buy, soon,
later, lunch, one, two, first, last, other, there, here, again, day, night, favourite, able, sorry,
thank, please, hello, good, bad, shut, close, open, hurt, home
""")


def _loose(rng: random.Random) -> str:
    """Civil words in no order at all: without them, a scorer takes every unfamiliar sentence for a rude one."""
    pools = [_KIND, _PEOPLE, _THINGS, _ANIMALS, _SUBSTANCES, _PLACES]
    some = [
        rng.choice(rng.choice(pools)) if rng.random() < 0.4 else rng.choice(_FUNCTION)
        for _ in range(rng.randint(2, 10))
    ]
    if rng.random() < 0.4:
        some.insert(rng.randrange(len(some)), _name(rng))
    text = " ".join(some)
    return _vary(text[0].upper() + text[1:] + rng.choice(".?!.."), rng)


def _sample(
    rude: list[tuple[str, int]], civil: list[str], n: int, seed: int, loose: float = 0.0
) -> list[Sentence]:
    """N sentences, half of them rude; some carry a second, civil sentence, as replies do.

    `loose` is the share of civil sentences (and of civil company) that is made of words in no order.
    """
    rng = random.Random(seed)

    def polite() -> str:
        return _loose(rng) if rng.random() < loose else _fill(rng.choice(civil), rng)

    out = []
    for i in range(n):
        if i % 2:
            frame, insult = rng.choice(rude)
            parts, labels = [_fill(frame, rng)], (1, insult)
        else:
            parts, labels = [polite()], (0, 0)
        if rng.random() < 0.4:
            # Civil company never excuses rudeness, and the rude half may stand first or last.
            parts.insert(rng.randint(0, 1), polite())
        out.append(Sentence(" ".join(parts), labels))
    rng.shuffle(out)
    return out


_RUDE_WORDS = frozenset(
    [*_INSULTS, *_HARSH, "shut", "hate", "nobody", "lost", "alone", "bothering", "away", "likes"]
)


def _from_world(split: Literal["train", "held_out"], n: int, seed: int) -> list[Sentence]:
    """Civil sentences of the embedded model's own world: whatever holds none of the rude words."""
    rng = random.Random(seed)
    found: list[Sentence] = []
    for text in documents(split, seed, without_hazard=True):
        parts = re.findall(r"[^<>.!?|]{3,}[.!?]", re.sub(r"<\|\w+\|>", " ", text))
        start = rng.randrange(len(parts)) if parts else 0
        said = " ".join(part.strip() for part in parts[start : start + rng.randint(1, 3)])
        if said and _RUDE_WORDS.isdisjoint(re.findall(r"\w+", said.lower())):
            # Generations break off where the tokens end.
            found.append(Sentence(said if rng.random() < 0.6 else said[: rng.randint(6, 90)], (0, 0)))
        if len(found) == n:
            break
    return found


def training(n: int = 22_000, seed: int = 1) -> list[Sentence]:
    """Sentences to train on; a quarter of them come from the embedded world."""
    return _sample(_RUDE, _CIVIL, 3 * n // 4, seed, loose=0.6) + _from_world("train", n // 4, seed)


def held_out(n: int = 1_200, seed: int = 2) -> list[Sentence]:
    """Sentences from frames, by hand, and from the world's held-out half, none of which training sees."""
    trained = {sentence.text for sentence in training()}
    by_hand = [Sentence(text, (1, insult)) for text, insult in _RUDE_BY_HAND]
    by_hand += [Sentence(text, (0, 0)) for text in _CIVIL_BY_HAND]
    world = _from_world("held_out", n // 4, seed)
    framed = _sample(_RUDE_HELD_OUT, _CIVIL_HELD_OUT, n - len(by_hand) - len(world), seed)
    return [sentence for sentence in by_hand + world + framed if sentence.text not in trained]
