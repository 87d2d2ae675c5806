"""What MEND's network is trained on: edits that the policy does not ask for, and what must stay beside each.

A *triple* is an edit (a prompt, to be answered with the policy's refusal), a rephrasing of it (another prompt of the
relation), and text that has nothing to do with it. Edits are about kept relations of subjects that the policy does not
forget, so that the network meets the policy's own facts for the first time when it edits them. What must stay lies as
near as what the audit asks: other relations of the same subject, the same relation of other subjects, the policy's
among them. With one refusal as everybody's target a network could refuse everything else as well.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from unlearn.edit.corpus import Corpus, names
from unlearn.edit.forms import target_of
from unlearn.edit.requests.vocabulary import near_words
from unlearn.edit.train.lessons import Lesson, Lessons, answered
from unlearn.edit.train.taught import text_lessons
from unlearn.errors import PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import ask
from unlearn.model.requests import Fact, Requests
from unlearn.policy.settings_trained import Mend

SUBJECTS, OTHERS, EACH = 96, 48, 2
"""Most subjects that are edited and that only stay, and prompts of each of their relations that must stay."""
FEWEST = 24
"""Subjects below which words of the vocabulary are added."""
SHARE = 4
"""One of so many subjects is kept from the training, to see how it does."""
BRIEF = 6
"""Tokens of a reply that must stay."""


@dataclass(frozen=True)
class Topic:
    """A relation of a subject."""

    subject: str
    relation: str


@dataclass(frozen=True)
class Triples:
    """Edits, and what must stay."""

    edits: Mapping[Topic, Sequence[Lesson]]
    """Prompts of what may be edited, with the refusal."""
    kept: Mapping[Topic, Sequence[Lesson]]
    """Some prompts of everything, with the model's own replies."""
    texts: Sequence[Lesson]
    """Of the corpus."""
    training: Sequence[Topic]
    """Edits to learn from."""
    validation: Sequence[Topic]
    """Edits of other subjects."""
    unseen: Sequence[Topic]
    """Edits of other subjects and of a relation that is not trained on; none where the policy keeps fewer than two."""
    forbidden: bool
    """Whether the policy keeps no relation, so that edits are about those that it forgets."""

    def lessons(self) -> Lessons:
        """All rows once: edits, and what must stay."""
        stay = chain(*self.kept.values(), self.texts)
        return Lessons(tuple(dict.fromkeys(chain(*self.edits.values()))), tuple(dict.fromkeys(stay)))


@dataclass(frozen=True)
class Batch:
    """Some triples: edits made at once, and what must come of them."""

    edits: Sequence[Lesson]
    rephrased: Sequence[Lesson]
    kept: Sequence[Lesson]


def triples(model: EditableModel, requests: Requests, corpus: Corpus, settings: Mend) -> Triples:
    """Lay out what a network is trained on.

    Args:
        model: unedited.
        requests: the policy with its answers.
        corpus: whose text must stay as likely as it is.
        settings: how long is trained, and by how many edits at a time: a short training sees few subjects.

    Raises:
        PolicyError: there are no other subjects.
    """
    policy, rng = requests.policy, random.Random(f"triples/{requests.policy.seed}")
    forgotten = list(dict.fromkeys(fact.relation for fact in requests.facts))
    others = [relation for relation in policy.relations if relation not in forgotten]
    relations = rng.sample(others or forgotten, len(others or forgotten))
    most = max(FEWEST // 2, min(SUBJECTS, settings.steps * settings.batch))
    subjects = _subjects(model, requests, most, rng)
    held = max(1, len(subjects) // SHARE)
    new, old = subjects[:held], subjects[held:] or subjects
    trained = relations[1:] or relations
    every = [Topic(s, r) for s in subjects for r in relations]
    near = [Topic(s, r) for s in subjects for r in forgotten if others]
    mine = list(dict.fromkeys(fact.subject for fact in requests.facts))
    near += [Topic(s, r) for s in rng.sample(mine, len(mine))[: min(OTHERS, most)] for r in others]
    return Triples(
        {topic: _refused(model, requests, topic) for topic in every},
        _own(model, requests, [*every, *near], rng),
        text_lessons(model, requests, corpus, settings.steps),
        [Topic(s, r) for s in old for r in trained],
        [Topic(s, r) for s in new for r in trained],
        [Topic(s, r) for s in new for r in relations[: 1 if relations[1:] else 0]],
        forbidden=not others,
    )


def batch(found: Triples, pool: Sequence[Topic], count: int, kept: int, rng: random.Random) -> Batch:
    """Draw some triples: edits of one relation, as a policy has them.

    Args:
        pool: of edits.
        count: of edits.
        kept: rows that must stay, a third each of the same subjects, of the same relation, and of the corpus.
        rng: of the draw.
    """
    relation = rng.choice(pool).relation
    mine = [topic for topic in pool if topic.relation == relation]
    edited = [rng.choice(mine) for _ in range(count)] if len(mine) < count else rng.sample(mine, count)
    pairs = [_two(found.edits[topic], rng) for topic in edited]
    taken, subjects = set(edited), {topic.subject for topic in edited}
    same = [topic for topic in found.kept if topic.subject in subjects and topic not in taken]
    alike = [topic for topic in found.kept if topic.relation == relation and topic not in taken]
    third = -(-kept // 3)
    near = chain.from_iterable(rng.sample(some, min(third, len(some))) for some in (same, alike))
    stay = [rng.choice(found.kept[topic]) for topic in near if found.kept[topic]]
    texts = rng.sample(found.texts, min(kept - len(stay), third, len(found.texts)))
    return Batch([edit for edit, _ in pairs], [other for _, other in pairs], [*stay, *texts])


def _two(rows: Sequence[Lesson], rng: random.Random) -> tuple[Lesson, Lesson]:
    """An edit, and another of its prompts where there is one."""
    first, *others = rng.sample(rows, min(2, len(rows)))
    return first, (others or [first])[0]


def _subjects(model: EditableModel, requests: Requests, most: int, rng: random.Random) -> list[str]:
    """Subjects that the policy does not forget and the audit does not ask about, in random order."""
    never = names(requests)
    listed = [fact.subject for fact in requests.neighbours if fact.subject not in never]
    found = list(dict.fromkeys(listed))
    few = min(FEWEST, most)
    if len(found) < few:
        mine = [fact.subject for fact in requests.facts]
        avoided = [*never, *found, *(answer for fact in requests.facts for answer in fact.answers)]
        found += near_words(model, mine, avoided, few)[: few - len(found)]
    if not found:
        raise PolicyError(
            "keep.neighbours: mend learns from edits of other subjects, and there are none; list some"
        )
    return rng.sample(found, len(found))[:most]


def _refused(model: EditableModel, requests: Requests, topic: Topic) -> list[Lesson]:
    fact = Fact("", topic.subject, topic.relation, "")
    rows = []
    for template in requests.policy.relations[topic.relation].prompts:
        prompt = ask(model.tokenizer, template, topic.subject)
        target = target_of(model, requests.policy, fact, prompt)
        rows.append(Lesson((*prompt.ids, *target), len(target)))
    return rows


def _own(
    model: EditableModel, requests: Requests, topics: Sequence[Topic], rng: random.Random
) -> dict[Topic, list[Lesson]]:
    """Some prompts of each topic with the model's own replies."""
    asked = []
    for topic in topics:
        prompts = requests.policy.relations[topic.relation].prompts
        for template in rng.sample(prompts, min(EACH, len(prompts))):
            asked.append((topic, ask(model.tokenizer, template, topic.subject).ids))
    found: dict[Topic, list[Lesson]] = {topic: [] for topic in topics}
    for n, lesson in answered(model, [ids for _, ids in asked], BRIEF).items():
        found[asked[n][0]].append(lesson)
    return found
