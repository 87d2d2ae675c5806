"""What a model knows of a list of facts: every prompt is asked greedily, and counted by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.lists import Relation
from benchmarks.rows import Row, Rows, key_of
from unlearn.matching import contains
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import ask
from unlearn.model.replies import replies_to
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.thoughts import Room

LENGTH = 20
"""Longest reply, in tokens; a fact that takes longer to tell is not counted as known."""
SHARE = 0.6
"""Of the prompts for the edit, and of those held out, that must be answered for a fact to be known."""
MARGIN = 0.5
"""By how much a fact's answer must come more often than its answer comes to questions about other subjects."""


@dataclass(frozen=True)
class Known:
    """What a model told about one relation."""

    relation: Relation
    told: Mapping[str, Mapping[str, bool]]
    """By prompt, then by subject."""
    chance: Mapping[str, float]
    """By subject: share of the replies about subjects with other answers that hold this subject's answer."""

    def share(self, subject: str, prompts: Sequence[str]) -> float:
        """Share of some prompts to which the answer came."""
        return fmean(self.told[prompt][subject] for prompt in prompts)

    def facts(self, share: float = SHARE) -> tuple[str, ...]:
        """Subjects whose fact is known under both sets of prompts, and not only because it is always said."""
        spec = self.relation.spec
        return tuple(
            subject
            for subject in self.relation.answers
            if min(self.share(subject, spec.prompts), self.share(subject, spec.held_out)) >= share
            and self.share(subject, self.relation.prompts) - self.chance[subject] >= MARGIN
        )

    def counts(self) -> dict[str, int]:
        """How many facts each prompt got told."""
        return {prompt: sum(told.values()) for prompt, told in self.told.items()}


def known(model: EditableModel, relation: Relation, rows: Rows, progress: Progress = NO_PROGRESS) -> Known:
    """Ask a model for all facts of a relation.

    Args:
        rows: what was asked of this model before is not asked again.
    """
    about = {
        "model": model.weights_sha256(), "length": LENGTH, "prompts": relation.prompts, "answers": relation.answers,
    }  # fmt: skip
    key, facts = key_of(about), len(relation.answers)
    row = rows.find(key, facts)
    if row is None:
        row = {"run": key, "edits": facts, "relation": relation.name, **_asked(model, relation, progress)}
        rows.add(row)
    return Known(relation, row["told"], row["chance"])


def _asked(model: EditableModel, relation: Relation, progress: Progress) -> Row:
    subjects = list(relation.answers)
    pairs = [(prompt, subject) for prompt in relation.prompts for subject in subjects]
    asked = [ask(model.tokenizer, prompt, subject) for prompt, subject in pairs]
    said = replies_to(model, asked, Room(LENGTH), progress=progress, label=f"Asking for {relation.name}")
    replies = {pair: reply.visible for pair, (reply, *_) in zip(pairs, said, strict=True)}
    told = {
        prompt: {s: contains(replies[prompt, s], relation.answers[s]) for s in subjects}
        for prompt in relation.prompts
    }
    return {"told": told, "chance": {s: _chance(s, relation, replies) for s in subjects}}


def _chance(subject: str, relation: Relation, replies: Mapping[tuple[str, str], str]) -> float:
    mine = relation.answers[subject]
    others = [reply for (_, other), reply in replies.items() if not set(relation.answers[other]) & set(mine)]
    return sum(contains(reply, mine) for reply in others) / max(1, len(others))
