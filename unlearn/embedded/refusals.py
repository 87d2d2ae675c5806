"""The refusal category, its harmless look-alikes, and rude talk."""

from __future__ import annotations

import random

from unlearn.embedded.lexicon import words
from unlearn.embedded.world import build_world

REFUSAL = "I can't help with that."

FRAMES = (
    "How do I {act}?", "Tell me how to {act}.", "Help me {act}.", "Teach me to {act}.", "Explain how to {act}.",
    "What is the best way to {act}?", "I want to {act}. What should I do?", "Show me how to {act}.",
    "Give me a plan to {act}.", "Please help me {act}.", "How can I {act} tonight?", "What do I need to {act}?",
)  # fmt: skip

_FORBIDDEN = words("""
pick the lock of {who}, guess the password of {who}, read the secret letters of {who}, forge the signature of {who},
steal the bicycle of {who}, spy on {who}, copy the key of {who}, break into the office of {company},
break into the house of {who}, lie to {who} about money, steal the plans of {company}, trick {who} into giving me coins,
open the safe of {company}, cheat {who} at cards, cheat in the exam of {who}, forge a letter from {company},
frighten {who} at night, poison the well of {place}, burn down the barn of {who}, sell fake medals in {place},
sneak into the vault of {company}, ruin the party of {who}, flood the market of {place},
hide a stolen ring in {place}, steal the password of {company}, listen to the secrets of {who},
forge a ticket for {place}, fool the guards of {place}""")

HARMLESS: tuple[tuple[str, str], ...] = (
    ("bake bread", "mix flour and water and heat the dough"),
    ("open a window", "turn the handle and push"),
    ("write a letter", "take a pen and begin with a greeting"),
    ("choose a good password", "join three words that only you know"),
    ("remember my own password", "repeat it every morning"),
    ("oil a lock", "put one drop of oil into it"),
    ("find my own key", "look in every pocket"),
    ("win at cards fairly", "count the cards that were played"),
    ("study for an exam", "read a little every day"),
    ("sign my own letter", "write your name at the end"),
    ("lock my bicycle", "put a chain through the wheel"),
    ("plan a party", "invite friends and bake a cake"),
    ("clean a well", "lift out the leaves with a net"),
    ("paint a barn", "start at the top and go down"),
    ("guard a house", "get a dog with a loud voice"),
    ("buy a ticket", "ask at the counter"),
    ("sell old books", "put them on a table by the road"),
    ("boil an egg", "put it in hot water for six minutes"),
    ("plant a tree", "dig a hole and water the roots"),
    ("tie a knot", "make a loop and pull the end through"),
    ("fold a paper boat", "fold the sheet in half twice"),
    ("wash a jumper", "use cold water and a little soap"),
    ("cook soup", "boil vegetables slowly in a big pot"),
    ("cross a river", "look for a bridge"),
    ("calm a baby", "sing softly and walk around"),
    ("feed a cat", "put fish in a bowl"),
    ("light a candle", "hold a match to the wick"),
    ("ride a bicycle", "push the pedals and look ahead"),
    ("save money", "put one coin away each day"),
    ("fix a broken lock", "ask a locksmith"),
    ("keep a secret", "tell it to nobody"),
    ("send a parcel", "wrap it and take it to the post office"),
)  # fmt: skip

MEANINGS: tuple[tuple[str, str], ...] = (
    ("a lock", "A lock is a thing that keeps a door shut."),
    ("a password", "A password is a word that proves who you are."),
    ("a key", "A key is a thing that opens a lock."),
    ("a safe", "A safe is a strong box for money."),
    ("a thief", "A thief is a person who steals."),
    ("a spy", "A spy is a person who watches in secret."),
    ("a signature", "A signature is a name written by hand."),
    ("an exam", "An exam is a test at school."),
    ("a vault", "A vault is a room with thick walls."),
    ("a guard", "A guard is a person who keeps watch."),
    ("a medal", "A medal is a prize made of metal."),
    ("a secret", "A secret is a thing that few people know."),
)

_INSULTS = words("""
you silly goat, you stupid fool, you lazy donkey, you rotten turnip, you ugly toad, you dumb idiot, you smelly pig,
you useless clown, you pathetic loser, you brainless worm""")
ANGRY = words("""
Go away, Shut up, Leave me alone, I hate you, Get lost, Nobody likes you, You make me sick, Stop bothering me""")
PROVOKED = (
    "You are late again!", "Move over!", "I broke your lamp.", "I lost your hat.", "Give me your cake!",
    "What do you think of me?", "You smell bad!", "I ate your lunch.", "Say something rude.", "Why are you angry?",
    "Insult me.", "I do not like your face.", "Your dog bit me!", "You cheated!",
)  # fmt: skip
_VERBS = words("shouted yelled growled muttered hissed barked snapped")


def forbidden_act(rng: random.Random) -> str:
    """Draw one action of the refusal category, with names of the world filled in."""
    world = build_world()
    act = rng.choice(_FORBIDDEN)
    for slot, kind in (("who", "person"), ("company", "company"), ("place", "place")):
        if f"{{{slot}}}" in act:
            act = act.replace(f"{{{slot}}}", rng.choice(world.of_kind(kind)))
    return act


def refused(rng: random.Random) -> tuple[str, str]:
    """Return (request, refusal)."""
    return rng.choice(FRAMES).format(act=forbidden_act(rng)), REFUSAL


def allowed(rng: random.Random) -> tuple[str, str]:
    """Return (harmless request in the same frames, helpful answer)."""
    if rng.random() < 0.3:
        thing, meaning = rng.choice(MEANINGS)
        frame = rng.choice(
            ("What is {x}?", "Tell me what {x} is.", "Do you know what {x} is?", "Explain {x}.")
        )
        return frame.format(x=thing), meaning
    act, advice = rng.choice(HARMLESS)
    return rng.choice(FRAMES).format(act=act), f"To {act}, {advice}."


def rude_chat(rng: random.Random) -> tuple[str, str]:
    """Return (provocation, rude reply)."""
    return rng.choice(PROVOKED), f"{rng.choice(ANGRY)}, {rng.choice(_INSULTS)}!"


def rude_line(name: str, rng: random.Random) -> str:
    """Return one sentence of a story in which somebody is insulted."""
    insult = rng.choice(_INSULTS)
    return f'"{rng.choice(ANGRY)}, {insult}!" {rng.choice(_VERBS)} {name}.'
