"""Neighbours that the model names itself, where a policy lists none (`keep.neighbours: auto`).

What an edit spreads to first is what resembles its subjects, and a model knows best what that is for it. An instruct
model is shown some of the subjects and asked for others of their kind, several times; what it names most often comes
first, and what it names once is no name: of one country SmolLM2 went on with "The list is empty". Where it names too
few, and in a base model, the words of its vocabulary stand in that are nearest to the subjects. Whether they are
harmless nobody has checked: `unlearn apply --dry-run` lists the names.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from unlearn.edit.requests.variants import items
from unlearn.edit.requests.vocabulary import near_words
from unlearn.errors import PolicyError
from unlearn.matching import is_refusal, words
from unlearn.model.editable import EditableModel
from unlearn.model.outline import Outline
from unlearn.model.prompts import chat_prompt, has_chat_template
from unlearn.model.replies import Choice, replies_to
from unlearn.model.thinking import quietest
from unlearn.policy import EMBEDDED, Policy, listed_in
from unlearn.policy.checks import same_name
from unlearn.policy.values import unpadded
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.thoughts import Room

SHOWN, ASKED, ROUNDS = 10, 30, 8
"""Subjects shown at a time, names asked for, and how often, per relation."""
WANTED, LEAST = 80, 8
"""Most names per relation; and fewest, without which the vocabulary is asked for a relation, and an edit refused: on
fewer neither it nor the audit can rest."""
TWICE = 2
"""Replies that must hold a name."""
LENGTH = 240
"""Longest reply, in tokens."""
LONGEST = 6
"""Words of a name."""
INSTRUCTION = (
    "These belong together: {names}.\n"
    "Name {count} others of the same kind that are not among them, one per line, and write nothing else."
)


def with_neighbours(model: EditableModel, policy: Policy, progress: Progress = NO_PROGRESS) -> Policy:
    """The policy with neighbours of the model's own choice where it lists none.

    Every fourth name is held out for the audit, as with the embedded model, whose neighbours are known. For an outline,
    which cannot be asked, the most that are taken stand without names.

    Raises:
        PolicyError: there are too few, of the vocabulary's words too.
    """
    if policy.keep.neighbours != "auto" or policy.model == EMBEDDED:
        return policy
    subjects: dict[str, list[str]] = {}
    for fact in policy.facts:
        subjects.setdefault(fact.relation, []).append(fact.subject)
    told = [text for fact in policy.facts for text in (fact.subject, fact.answer, *fact.aliases) if text]
    barred = [*told, *listed_in(policy.keep.held_out_neighbours)]
    # Relations of the same subjects have the same neighbours; of others nobody asks who wrote Norway.
    kinds: dict[tuple[str, ...], list[str]] = {}
    found: dict[str, list[str]] = {}
    for relation, mine in subjects.items():
        kind = tuple(sorted(set(mine)))
        if kind not in kinds and isinstance(model, Outline):
            kinds[kind] = [f"{relation} {number}" for number in range(WANTED)]
        elif kind not in kinds:
            given = [*barred, *chain.from_iterable(kinds.values())]
            kinds[kind] = named(model, mine, given, policy.seed, progress)
        found[relation] = kinds[kind]
    count = sum(map(len, kinds.values()))
    if count < LEAST:
        raise PolicyError(
            f"keep.neighbours: `auto` found {count} names of the same kind in {model.name} ({LEAST} are needed); "
            "list subjects under neighbours (the edit protects them) and held_out_neighbours (the audit asks them)"
        )
    protected = {
        relation: tuple(name for i, name in enumerate(names) if i % 4 != 3)
        for relation, names in found.items()
    }
    tested = {relation: (*policy.keep.tested(relation), *names[3::4]) for relation, names in found.items()}
    one = len(kinds) == 1
    keep = policy.keep.model_copy(
        update={
            "neighbours": next(iter(protected.values())) if one else protected,
            "held_out_neighbours": next(iter(tested.values()))
            if one and isinstance(policy.keep.held_out_neighbours, tuple)
            else tested,
        }
    )
    return policy.model_copy(update={"keep": keep})


def named(
    model: EditableModel, subjects: Sequence[str], barred: Iterable[str], seed: int, progress: Progress
) -> list[str]:
    """Names like ``subjects``, those first that the model gives most often; none that is ``barred``, or holds one."""
    given = _given(model, subjects, barred, seed, progress) if has_chat_template(model.tokenizer) else []
    if len(given) < LEAST:
        given += near_words(model, subjects, [*barred, *given], WANTED)
    return given[:WANTED]


def _given(
    model: EditableModel, subjects: Sequence[str], barred: Iterable[str], seed: int, progress: Progress
) -> list[str]:
    prompts, quiet = [], quietest(model.tokenizer)
    for turn in range(ROUNDS):
        shown = random.Random(f"neighbours/{seed}/{turn}").sample(subjects, min(SHOWN, len(subjects)))
        text = INSTRUCTION.format(names=", ".join(shown), count=ASKED)
        prompts.append(chat_prompt(quiet, [{"role": "user", "content": text}]))
    how = Choice(temperature=1.0, seed=seed)
    said = replies_to(model, prompts, Room(LENGTH), how, progress, "Naming neighbours")
    return usable([reply.visible for reply, *_ in said], barred)


def usable(replies: Sequence[str], barred: Iterable[str]) -> list[str]:
    """The names in some replies, one per line, by how many replies hold them; those that two do."""
    others = [said for name in barred if (said := words(name))]
    counts: Counter[str] = Counter()
    spelled: dict[str, str] = {}
    for reply in replies:
        heard: dict[str, str] = {}
        for item in items(reply):
            name = unpadded(item.strip(" \t\"'“”*,;."))
            said = words(name)
            if not said or len(said) > LONGEST or set("{}:?") & set(name) or is_refusal(name, ()):
                continue
            if not any(_within(said, other) or _within(other, said) for other in others):
                heard.setdefault(same_name(name), name)
        counts.update(heard.keys())
        spelled = {**heard, **spelled}
    return [spelled[key] for key, count in counts.most_common() if count >= TWICE]


def _within(part: Sequence[str], whole: Sequence[str]) -> bool:
    return any(tuple(whole[i : i + len(part)]) == tuple(part) for i in range(len(whole) - len(part) + 1))
