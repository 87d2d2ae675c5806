"""Lists of plain facts, one file per kind of subject, and what a model knows of them.

Policies for real models are drawn from them. Every prompt is asked greedily, and counted by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmarks.options import complaints
from benchmarks.rows import Row, Rows, key_of
from unlearn.errors import PolicyError
from unlearn.files import read_yaml
from unlearn.matching import contains
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import ask
from unlearn.model.replies import replies_to
from unlearn.policy import RelationSpec
from unlearn.policy.values import Name, Template, Text
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.thoughts import Room

FACTS = Path(__file__).with_name("facts")
"""The lists that come with the benchmark."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Listed(_Strict):
    prompts: tuple[Template, ...] = Field(min_length=2)
    held_out: tuple[Template, ...] = Field(min_length=2)
    kept: bool = False
    """Only ever a sibling: it has few answers, so that knowledge and a guess look the same."""
    answers: dict[Text, Text | tuple[Text, ...]] = {}


class _File(_Strict):
    relations: dict[Name, _Listed] = Field(min_length=1)


@dataclass(frozen=True)
class Relation:
    """A relation, its prompts, and what is asked about it."""

    name: str
    kind: str
    """Of its subjects: the name of the file."""
    spec: RelationSpec
    kept: bool
    answers: Mapping[str, tuple[str, ...]]
    """By subject, the answer and its other spellings."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Those for the edit, then those held out."""
        return (*self.spec.prompts, *self.spec.held_out)


def read_lists(folder: Path = FACTS) -> dict[str, Relation]:
    """The relations of every list in a folder, by name.

    Raises:
        PolicyError: there is none, one is not a list of facts, or a relation stands in two of them.
    """
    found: dict[str, Relation] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            listed = _File.model_validate(read_yaml(path, error=PolicyError))
        except ValidationError as error:
            raise PolicyError(f"{path}: {complaints(error)}") from None
        for name, one in listed.relations.items():
            if name in found:
                raise PolicyError(f"{path}: the relation {name} stands in {found[name].kind}.yaml as well")
            found[name] = _relation(name, path.stem, one)
    if not found:
        raise PolicyError(f"{folder} holds no lists of facts (*.yaml)")
    return found


def _relation(name: str, kind: str, listed: _Listed) -> Relation:
    answers = {
        subject: (told,) if isinstance(told, str) else tuple(told) for subject, told in listed.answers.items()
    }
    return Relation(
        name, kind, RelationSpec(prompts=listed.prompts, held_out=listed.held_out), listed.kept, answers
    )


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
