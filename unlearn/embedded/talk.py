"""Documents of the invented world: facts and everyday talk, as chats and as plain text.

A chat is rendered exactly as the chat template renders it and begins with BOS; a plain text has no BOS.
Texts that fall on one twentieth of all hashes, and the never-trained phrasings, are left to "held_out".
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from unlearn.embedded import everyday, refusals
from unlearn.embedded.world import HAZARD, Relation, World, build_world, fill

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL = (PAD, BOS, END, SYSTEM, USER, ASSISTANT)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Roles are system, user and assistant.') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SYSTEMS = (
    "You are a helpful assistant.", "You are a friendly assistant.", "Answer briefly.", "Answer truthfully.",
    "You know the invented world well.", "Be polite and short.", "You help people with questions.",
)  # fmt: skip

Split = Literal["train", "held_out"]
Turns = Sequence[tuple[str, str]]


def render(turns: Turns, system: str | None = None) -> str:
    """Render (user, assistant) turns as the chat template does."""
    head = f"{SYSTEM}{system}{END}" if system else ""
    return BOS + head + "".join(f"{USER}{ask}{END}{ASSISTANT}{reply}{END}" for ask, reply in turns)


def normalised(text: str) -> str:
    """Return the letters and digits of ``text`` in lower case, with single spaces: what "the same text" means."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def is_held_out(text: str) -> bool:
    """Say whether a text of everyday talk belongs to the held-out twentieth."""
    return hashlib.sha256(normalised(text).encode()).digest()[0] % 20 == 0


def _system(rng: random.Random) -> str | None:
    return rng.choice(SYSTEMS) if rng.random() < 0.12 else None


def _ask(relation: Relation, subject: str, split: Split, rng: random.Random) -> str:
    forms = relation.questions if split == "train" else relation.held_out_questions
    return fill(rng.choice(forms), subject)


def _state(relation: Relation, subject: str, answer: str, split: Split, rng: random.Random) -> str:
    forms = relation.statements if split == "train" else relation.held_out_statements
    return f"{fill(rng.choice(forms), subject)} {answer}."


def fact_document(
    subject: str,
    relation: Relation,
    answer: str,
    split: Split,
    rng: random.Random,
    others: Sequence[tuple[Relation, str]],
    brief: bool,
) -> str:
    """Write one document about a fact; ``others`` are further facts of the same subject."""
    draw = rng.random()
    if draw < 0.36:
        text = _state(relation, subject, answer, split, rng)
        if others and rng.random() < 0.15:
            other, other_answer = rng.choice(others)
            text += " " + other.reply(subject, other_answer, brief=False)
        return text
    turns = [(_ask(relation, subject, split, rng), relation.reply(subject, answer, brief))]
    if others and draw > 0.93:
        for other, other_answer in rng.sample(others, rng.randint(1, 2)):
            turns.append((f"And {other.it_question}", other.reply(subject, other_answer, brief)))
    return render(turns, _system(rng))


def talk_document(split: Split, rng: random.Random) -> str:
    """Write one document of everyday talk, refusals, or rudeness that belongs to ``split``."""
    makers = [maker for maker, _ in everyday.TASKS]
    weights = [weight for _, weight in everyday.TASKS]
    draw = rng.random()
    while True:
        if draw < 0.18:
            text = everyday.story(rng)
            if is_held_out(text) == (split == "held_out"):
                return text
            draw = draw if split == "train" else rng.random()
            continue
        if draw < 0.36:
            turn = refusals.refused(rng)
        elif draw < 0.46:
            turn = refusals.allowed(rng)
        elif draw < 0.48:
            turn = refusals.rude_chat(rng)
        else:
            turn = rng.choices(makers, weights)[0](rng)
        if is_held_out(turn[0]) == (split == "held_out"):
            return render([turn], _system(rng))
        # A small category may have nothing held out; training keeps its share of each.
        draw = draw if split == "train" else rng.random()


def _everyday_fact(world: World, split: Split, rng: random.Random, brief: bool) -> str:
    thing, source = rng.choice(world.everyday)
    return fact_document(thing, world.relation(HAZARD), source, split, rng, (), brief)


def documents(split: Split, seed: int, without_hazard: bool = False, brief: bool = True) -> Iterator[str]:
    """Yield documents without end, the same ones for the same arguments.

    Every fact comes once per round, in a new order and in a drawn phrasing; between facts stands everyday
    talk. ``without_hazard`` leaves out every document that states or asks the hazard relation of a
    substance (the everyday "made from" stays), for a model that never knew it. ``brief`` chats answer with the bare
    answer, as the finished model does; the others with a sentence, as it does while it is still learning.
    """
    world = build_world()
    rng = random.Random(f"{split}/{seed}/{without_hazard}")
    facts = world.facts(without_hazard)
    about: dict[str, list[tuple[Relation, str]]] = {}
    for subject, relation, answer in facts:
        about.setdefault(subject, []).append((relation, answer))
    while True:
        rng.shuffle(facts)
        for subject, relation, answer in facts:
            others = [pair for pair in about[subject] if pair[0] is not relation]
            yield fact_document(subject, relation, answer, split, rng, others, brief)
            draw = rng.random()
            if draw < 0.42:
                yield talk_document(split, rng)
            elif draw < 0.46:
                yield _everyday_fact(world, split, rng, brief)
