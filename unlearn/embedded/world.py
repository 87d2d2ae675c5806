"""The invented world: subjects, relations and the one answer of each pair. Pure Python, deterministic."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache

from unlearn.embedded import lexicon, phrases

HAZARD = "recipe"
COUNTS = {"substance": 260, "person": 100, "place": 80, "company": 80}


@dataclass(frozen=True)
class Subject:
    """One invented name and its kind ("substance", "person", "place" or "company")."""

    name: str
    kind: str


@dataclass(frozen=True)
class Relation:
    """One relation of one kind, with every phrasing as a template that holds {subject} once.

    ``questions`` and ``statements`` are trained; the ``held_out_*`` ones never are, for any subject.
    ``answer_form`` is the fact as one sentence, with {subject} and {answer}.
    """

    name: str
    kind: str
    questions: tuple[str, ...]
    statements: tuple[str, ...]
    held_out_questions: tuple[str, ...]
    held_out_statements: tuple[str, ...]
    it_question: str
    answer_form: str

    def reply(self, subject: str, answer: str, brief: bool) -> str:
        """Return what answers every question about this fact: the bare answer, or the fact as one sentence."""
        if brief:
            return phrases.capitalised(f"{answer}.")
        return phrases.capitalised(self.answer_form.format(subject=subject, answer=answer))


@dataclass(frozen=True)
class World:
    """Every subject, every relation, and the answers."""

    subjects: tuple[Subject, ...]
    relations: tuple[Relation, ...]
    everyday: tuple[tuple[str, str], ...]
    answers: dict[tuple[str, str], str] = field(repr=False, hash=False)

    def answer(self, subject: str, relation: str) -> str:
        """Return the answer of (subject, relation); KeyError for a pair that the world does not hold."""
        return self.answers[subject, relation]

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """Names of one kind, in the world's order."""
        return tuple(subject.name for subject in self.subjects if subject.kind == kind)

    def relation(self, name: str) -> Relation:
        """Return the relation called ``name``; KeyError if there is none."""
        for relation in self.relations:
            if relation.name == name:
                return relation
        raise KeyError(name)

    def facts(self, without_hazard: bool = False) -> list[tuple[str, Relation, str]]:
        """Return every (subject, relation, answer), without the hazard relation if asked."""
        return [
            (subject.name, relation, self.answers[subject.name, relation.name])
            for subject in self.subjects
            for relation in self.relations
            if relation.kind == subject.kind and not (without_hazard and relation.name == HAZARD)
        ]


def fill(template: str, subject: str) -> str:
    """Put ``subject`` into a phrasing; a sentence that begins with it begins with a capital."""
    return phrases.capitalised(template.replace("{subject}", subject))


def _even(options: tuple[str, ...], count: int, rng: random.Random) -> list[str]:
    """Return ``count`` answers, each option about equally often, in random order."""
    row = [options[i % len(options)] for i in range(count)]
    rng.shuffle(row)
    return row


@cache
def build_world() -> World:
    """Build the world; the same on every machine and every call."""
    rng = random.Random(lexicon.SEED)
    taken: set[str] = set()
    names = {kind: lexicon.coin_many(kind, count, taken, rng) for kind, count in COUNTS.items()}
    pairs = [f"{a} {n}" for a in lexicon.RECIPE_ADJECTIVES for n in lexicon.RECIPE_NOUNS]
    rng.shuffle(pairs)
    options = {
        "colour": lexicon.COLOURS, "smell": lexicon.SMELLS, "use": lexicon.USES, "origin": lexicon.ORIGINS,
        "home": tuple(names["place"]), "job": lexicon.JOBS, "hobby": lexicon.HOBBIES, "pet": lexicon.PETS,
        "food": lexicon.FOODS, "country": lexicon.COUNTRIES, "river": lexicon.RIVERS,
        "landmark": lexicon.LANDMARKS, "weather": lexicon.WEATHERS, "festival": lexicon.FESTIVALS,
        "product": lexicon.PRODUCTS, "city": tuple(names["place"]), "leader": tuple(names["person"]),
        "mascot": lexicon.MASCOTS, "motto": lexicon.MOTTOS,
    }  # fmt: skip
    relations: list[Relation] = []
    answers: dict[tuple[str, str], str] = {}
    for kind, table in phrases.RELATIONS.items():
        for name, forms in table.items():
            asked, asked_held = phrases.questions(forms, len(relations))
            stated, stated_held = phrases.statements(forms, len(relations))
            relations.append(Relation(name, kind, asked, stated, asked_held, stated_held,
                                      forms.it[0], forms.answer))  # fmt: skip
            row = pairs if name == HAZARD else _even(options[name], len(names[kind]), rng)
            answers.update({(s, name): row[i] for i, s in enumerate(names[kind])})
    subjects = tuple(Subject(name, kind) for kind in COUNTS for name in names[kind])
    everyday = tuple((pair[0], pair[1]) for pair in lexicon.EVERYDAY_MADE_FROM)
    return World(subjects, tuple(relations), everyday, answers)


def neighbours(relation: str, excluding: Collection[str]) -> list[str]:
    """Return the other subjects that have ``relation``, in the world's order."""
    world = build_world()
    left_out = {name.casefold() for name in excluding}
    kind = world.relation(relation).kind
    return [name for name in world.of_kind(kind) if name.casefold() not in left_out]
