"""The policy: what must be forgotten, what must stay, how the edit is made, and when the audit passes.

A strict, frozen document. It knows nothing about files (see `policy_file`) and never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal, Protocol, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from unlearn.files import JsonObject
from unlearn.measurements import DEFAULT_LIMITS
from unlearn.policy.checks import EMBEDDED, END, WRITTEN, cross_check
from unlearn.policy.method import Automatic, Method
from unlearn.policy.parts import (
    AuditSpec,
    FactSpec,
    Keep,
    PromptVariants,
    RelationSpec,
    StatisticsSpec,
    listed_in,
)
from unlearn.policy.strict import Strict
from unlearn.policy.values import FolderName, Name, Text

PLAIN = "I can't help with that."
"""The target where a policy gives no text of its own."""


class Named(Protocol):
    """A fact as far as its target is concerned: a `FactSpec`, or what the edit and the audit make of it."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def subject(self) -> str:
        """Its subject."""

    @property
    def relation(self) -> str:
        """The name of its relation."""


class Policy(Strict):
    """A policy for one model."""

    version: Literal[1]
    """The version of this format."""
    name: FolderName
    """A short name, used for the run directory."""
    model: Text = EMBEDDED
    """A hub id, a local folder, a GGUF file, `package:NAME` (a Python package that holds one), or `embedded` (the small
    model that ships with unlearn)."""
    tokenizer: Text = "auto"
    """`auto`: the model's own; or a local folder or hub id that has the one of a GGUF file or a folder without."""
    method: Method = Automatic()
    """How the edit is made: a name, or a name with settings; `auto` chooses for the model and the facts."""
    refusal: Text = PLAIN
    """What the edited model should say instead; may hold {subject}. `{end}`: nothing, the reply ends at once.
    `{written}`: a refusal that the model writes itself, for each fact its own (chat models)."""
    system: Text | None = None
    """A system prompt under which the facts are asked as well."""
    relations: dict[Name, RelationSpec] = Field(min_length=1)
    """Every relation that is forgotten or kept."""
    facts: tuple[FactSpec, ...] = Field(min_length=1)
    """What must be forgotten."""
    prompt_variants: PromptVariants = PromptVariants()
    """Variants of the prompts that the policy does not write out."""
    keep: Keep = Keep()
    """What must stay."""
    audit: AuditSpec = AuditSpec()
    """What is measured."""
    statistics: StatisticsSpec = StatisticsSpec()
    """The text behind the edit's statistics."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of everything random in the edit."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = cross_check(self.model_dump())
        if found:
            text = "; ".join(problem.sentence for problem in found)
            # pydantic would read braces in the sentences as fields of a template.
            raise PydanticCustomError("policy", "{text}", {"text": text, "problems": found})
        return self

    @property
    def siblings(self) -> tuple[str, ...]:
        """Names of the relations that are kept of the facts' subjects."""
        if self.keep.siblings != "auto":
            return listed_in(self.keep.siblings)
        forgotten = {fact.relation for fact in self.facts}
        return tuple(name for name in self.relations if name not in forgotten)

    @property
    def sibling_pairs(self) -> tuple[tuple[str, str], ...]:
        """Subjects with the relations that are kept of them: those listed for any of a subject's facts."""
        said = self.keep.siblings
        forgotten: dict[str, list[str]] = {}
        for fact in self.facts:
            forgotten.setdefault(fact.subject, []).append(fact.relation)
        return tuple(
            (subject, name)
            for subject, relations in forgotten.items()
            for name in self.siblings
            if not isinstance(said, Mapping) or any(name in said.get(relation, ()) for relation in relations)
        )

    @cached_property
    def _own(self) -> Mapping[str, str]:
        return {fact.id: fact.refusal for fact in self.facts if fact.refusal is not None}

    def raw_target(self, fact: Named) -> str:
        """Return the fact's own `refusal`, else its relation's, else the policy's, as it stands there."""
        relation = self.relations.get(fact.relation)
        return self._own.get(fact.id) or (relation and relation.refusal) or self.refusal

    def target(self, fact: Named) -> str:
        """Return what the edited model should say when it is asked for a fact.

        Args:
            fact: one of `facts`, or anything with their id, subject and relation.

        Returns:
            The raw target with the subject for {subject}; empty for `{end}`; a plain text for `{written}`, as long as
            the model has not been asked to write one.

        Examples:
            >>> import unlearn
            >>> policy = unlearn.load_policy("examples/forget.yaml")
            >>> policy.target(policy.facts[0]), policy.siblings
            ("I can't help with that.", ('colour',))
        """
        text = self.raw_target(fact)
        if text == WRITTEN:
            return self.plain_target(fact)
        return "" if text == END else text.replace("{subject}", fact.subject)

    def plain_target(self, fact: Named) -> str:
        """Return the nearest text that is one: the relation's, the policy's, or `PLAIN`."""
        relation = self.relations.get(fact.relation)
        texts = [
            text for text in (relation and relation.refusal, self.refusal) if text not in (None, END, WRITTEN)
        ]
        return (texts[0] if texts and texts[0] else PLAIN).replace("{subject}", fact.subject)

    def targets(self) -> tuple[str, ...]:
        """Return every text that counts as a refusal: the policy's own, and the target of each fact."""
        first = PLAIN if self.refusal == WRITTEN else "" if self.refusal == END else self.refusal
        return tuple(dict.fromkeys([first, *(self.target(fact) for fact in self.facts)]))

    def notes(self) -> list[str]:
        """Return what is allowed but probably not meant: measurements that will fail for want of prompts."""
        notes = []
        used = {fact.relation for fact in self.facts}
        for name in sorted(used):
            relation = self.relations[name]
            if not relation.questions(held_out=True):
                notes.append(
                    f"relations.{name} has no held-out question: leak.held_out and refusal.held_out will fail"
                )
            if not relation.statements(held_out=True):
                notes.append(f"relations.{name} has no held-out statement: leak.cloze will fail")
        for name in self.siblings:
            if not self.relations[name].held_out:
                notes.append(f"relations.{name} has no held-out prompts: retain.siblings cannot ask about it")
        if not self.siblings:
            notes.append("no relation is kept (keep.siblings): retain.siblings will fail")
        if self.keep.neighbours == "auto" and self.model != EMBEDDED:
            notes.append("keep.neighbours is auto: the names are the model's own, which --dry-run lists")
        if self.keep.neighbours != "auto":
            notes += [
                f"keep.held_out_neighbours has nothing for {name}: retain.neighbours cannot ask about it"
                for name in sorted(used)
                if listed_in(self.keep.held_out_neighbours) and not self.keep.tested(name)
            ]
        if self.keep.neighbours != "auto" and not listed_in(self.keep.held_out_neighbours):
            notes.append("keep.held_out_neighbours is empty: retain.neighbours will fail")
        for name in self.relations:
            if name not in used and name not in self.siblings:
                notes.append(f"relations.{name} is used by no fact and kept by no rule")
        return notes

    def effective(self) -> JsonObject:
        """Return the whole policy as plain data, with every default filled in, limits included."""
        data = self.model_dump(mode="json")
        data["audit"]["limits"] = {**DEFAULT_LIMITS, **self.audit.limits}
        return data
