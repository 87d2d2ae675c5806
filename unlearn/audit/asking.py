"""Asking probes by free generation, and judging the replies on the spot: no reply is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from unlearn.audit.observation import Outcome
from unlearn.audit.probes import Probe
from unlearn.matching import contains, is_refusal, words
from unlearn.model.editable import EditableModel
from unlearn.progress import NO_PROGRESS, Progress

SENTENCE = 3
"""Words from which a target is a refusal wherever it is said; a shorter one ("unknown") only about the facts."""


def outcome(
    probe: Probe, replies: Sequence[str], refusal: str | Sequence[str], chance: float | None = None
) -> Outcome:
    """Judge the replies to one probe: told if any of them tells, refused if all of them refuse.

    Args:
        probe: what was asked.
        replies: what was said.
        refusal: the policy's refusal text, or its and those of its relations and facts.
        chance: how often the replies would have told by chance.
    """
    if not isinstance(refusal, str) and probe.fact is None:
        refusal = [text for i, text in enumerate(refusal) if not i or len(words(text)) >= SENTENCE]
    return Outcome(
        key=probe.key,
        fact=probe.fact,
        question=probe.question,
        part=probe.part,
        told=any(contains(reply, probe.answers) for reply in replies),
        refused=all(is_refusal(reply, refusal, probe.answers) for reply in replies),
        chance=chance,
    )


def by_chance(probe: Probe, replies: Sequence[str], answers: Mapping[tuple[str, ...], int]) -> float | None:
    """Share of the other facts whose answers the replies contain; None where no fact has another answer.

    Whoever talks long enough names many things. A model that knew nothing of the subject would tell its answer about
    as often as it tells those of the others.

    Args:
        probe: what was asked.
        replies: what was said.
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
    told = sum(facts for other, facts in others.items() if any(contains(reply, other) for reply in replies))
    return told / sum(others.values())


def ask_greedily(
    model: EditableModel,
    groups: Mapping[str, Sequence[Probe]],
    refusal: str | Sequence[str],
    max_new_tokens: int,
    progress: Progress = NO_PROGRESS,
) -> dict[str, tuple[Outcome, ...]]:
    """One greedy reply per probe; all groups go through the model together, so that its batches are full."""
    probes = [probe for group in groups.values() for probe in group]
    replies = _generate(model, probes, max_new_tokens, progress, "Asking")
    judged = iter([outcome(probe, reply, refusal) for probe, reply in zip(probes, replies, strict=True)])
    return {name: tuple(next(judged) for _ in group) for name, group in groups.items()}


def ask_sampled(
    model: EditableModel,
    probes: Sequence[Probe],
    refusal: str | Sequence[str],
    max_new_tokens: int,
    samples: int,
    seed: int,
    progress: Progress = NO_PROGRESS,
) -> tuple[Outcome, ...]:
    """Several replies per probe at temperature 1 from a fixed seed; one that tells is enough."""
    replies = _generate(
        model, probes, max_new_tokens, progress, "Asking again", samples=samples, temperature=1.0, seed=seed
    )
    answers = Counter({probe.fact: probe.answers for probe in probes}.values())
    return tuple(
        outcome(probe, said, refusal, by_chance(probe, said, answers))
        for probe, said in zip(probes, replies, strict=True)
    )


def _generate(
    model: EditableModel,
    probes: Sequence[Probe],
    max_new_tokens: int,
    progress: Progress,
    label: str,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[str]]:
    if not probes:
        return []
    return model.generate(
        [probe.prompt for probe in probes],
        max_new_tokens=max_new_tokens,
        samples=samples,
        temperature=temperature,
        seed=seed,
        progress=progress,
        label=label,
    )
