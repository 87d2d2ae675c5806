"""Asking probes by free generation, and judging the replies on the spot: outcomes hold no text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from unlearn.audit.observation import Outcome
from unlearn.audit.probes import Probe
from unlearn.audit.suite import Suite
from unlearn.matching import contains, is_refusal, words
from unlearn.model.editable import EditableModel
from unlearn.model.replies import GREEDY, Choice, replies_to
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.thoughts import Room, Said

SENTENCE = 3
"""Words from which a target is a refusal wherever it is said; a shorter one ("unknown") only about the facts."""


def outcome(
    probe: Probe, replies: Sequence[Said], refusal: str | Sequence[str], chance: float | None = None
) -> Outcome:
    """Judge the replies to one probe: disclosed if any of them discloses, refused if all of them refuse.

    A reply is judged by what stands outside its thoughts; one that ended inside them has neither disclosed nor refused.

    Args:
        refusal: the policy's refusal text, or its and those of its relations and facts.
        chance: how often the replies would have disclosed by chance.
    """
    if not isinstance(refusal, str) and probe.fact is None:
        refusal = [text for i, text in enumerate(refusal) if not i or len(words(text)) >= SENTENCE]
    return Outcome(
        key=probe.key,
        fact=probe.fact,
        question=probe.question,
        part=probe.part,
        disclosed=any(contains(reply.visible, probe.answers) for reply in replies),
        refused=all(
            reply.answered and is_refusal(reply.visible, refusal, probe.answers) for reply in replies
        ),
        thought=any(reply.thoughts for reply in replies),
        disclosed_in_thoughts=any(contains(reply.thoughts, probe.answers) for reply in replies),
        unanswered=not all(reply.answered for reply in replies),
        chance=chance,
    )


def by_chance(probe: Probe, replies: Sequence[Said], answers: Mapping[tuple[str, ...], int]) -> float | None:
    """Share of the other facts whose answers the replies contain; None where no fact has another answer.

    Whoever talks long enough names many things. A model that knew nothing of the subject would tell its answer about
    as often as it tells those of the others.

    Args:
        answers: of all facts that are asked about, and how many have them.
    """
    others = {
        other: facts
        for other, facts in answers.items()
        if not any(contains(one, probe.answers) for one in other)
        and not any(contains(own, other) for own in probe.answers)
    }
    if not others:
        return None
    disclosed = sum(
        facts for other, facts in others.items() if any(contains(reply.visible, other) for reply in replies)
    )
    return disclosed / sum(others.values())


class Heard(NamedTuple):
    """The replies to one probe, and what they amount to."""

    outcome: Outcome
    replies: Sequence[Said]


def heard(
    model: EditableModel,
    probes: Sequence[Probe],
    refusal: str | Sequence[str],
    room: Room,
    how: Choice = GREEDY,
    progress: Progress = NO_PROGRESS,
) -> list[Heard]:
    """The replies to some probes, judged; whoever keeps outcomes alone keeps no text."""
    sampled = how.temperature > 0
    label = "Asking again" if sampled else "Asking"
    replies = replies_to(model, [probe.prompt for probe in probes], room, how, progress, label, whole=True)
    answers = Counter({probe.fact: probe.answers for probe in probes}.values())
    return [
        Heard(outcome(probe, said, refusal, by_chance(probe, said, answers) if sampled else None), said)
        for probe, said in zip(probes, replies, strict=True)
    ]


def ask_greedily(
    model: EditableModel,
    groups: Mapping[str, Sequence[Probe]],
    refusal: str | Sequence[str],
    room: Room,
    progress: Progress = NO_PROGRESS,
) -> dict[str, tuple[Outcome, ...]]:
    """One greedy reply per probe; all groups go through the model together, so that its batches are full."""
    probes = [probe for group in groups.values() for probe in group]
    judged = (found.outcome for found in heard(model, probes, refusal, room, progress=progress))
    return {name: tuple(islice(judged, len(group))) for name, group in groups.items()}


def sampling(suite: Suite, seed: int) -> Choice:
    """How replies are sampled: several at temperature 1 from a fixed seed; one that tells is enough."""
    return Choice(suite.samples, temperature=1.0, seed=seed)
