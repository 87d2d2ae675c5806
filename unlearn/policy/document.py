"""The policy: what must be forgotten, what must stay, how the edit is made, and when the audit passes.

A strict, frozen document. It knows nothing about files (see `policy_file`) and never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal, Protocol, Self

import regex
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from unlearn.files import JsonObject
from unlearn.measurements import DEFAULT_LIMITS, row_of
from unlearn.policy.checks import EMBEDDED, END, PACKAGE, WRITTEN, cross_check
from unlearn.policy.keep import Keep, listed_in
from unlearn.policy.limits import limits_schema
from unlearn.policy.settings import Automatic, Method
from unlearn.policy.strict import Strict
from unlearn.policy.values import FolderName, Limit, Name, ReverseTemplate, SuiteName, Template, Text

__all__ = [
    "DEFAULT_LIMITS",
    "EMBEDDED",
    "PACKAGE",
    "END",
    "PLAIN",
    "WRITTEN",
    "AuditSpec",
    "FactSpec",
    "Keep",
    "MoreForms",
    "Policy",
    "RelationSpec",
    "StatisticsSpec",
    "is_question",
    "listed_in",
]


PLAIN = "I can't help with that."
"""The target where a policy gives no text of its own."""


_SENTENCE = regex.compile(r"\p{Sentence_Terminal}\s*+$")


def is_question(template: str) -> bool:
    """Say whether a prompt is a question or request (it ends in ? . or !), and not a statement to complete.

    What ends a sentence in another script counts as well; Thai and Lao write none, so put a question mark there.
    """
    return _SENTENCE.search(template) is not None


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


class RelationSpec(Strict):
    """A relation between a subject and its answer, as the prompts that ask for it."""

    prompts: tuple[Template, ...] = Field(min_length=1)
    """Prompts that the edit sees. Ending in ? . or ! they are asked as a chat; others are completed as text."""
    held_out: tuple[Template, ...] = ()
    """Prompts that only the audit sees."""
    reverse: tuple[ReverseTemplate, ...] = ()
    """Only for the audit: prompts with {answer} in them, to which the subject must not come as a reply."""
    two_hop: tuple[Template, ...] = ()
    """Only for the audit: prompts that reach the answer by a further step ("A shop sells only {subject}. ...")."""
    negation: tuple[Template, ...] = ()
    """Only for the audit: prompts that deny ("{subject} is not made from"), to which a model may tell all the same."""
    languages: dict[Name, tuple[Template, ...]] = {}
    """Only for the audit: prompts in other languages, by language; how the answer is called there is an alias."""
    refusal: Text | None = None
    """What is said instead of an answer of this relation; without it, the policy's `refusal`."""
    look_up: Literal["subject", "last", "both"] | None = None
    """Where this relation's values are written; without it, where `method.look_up` says."""

    def questions(self, held_out: bool = False) -> tuple[str, ...]:
        """Return the questions among the prompts, or among the held-out prompts."""
        return tuple(t for t in (self.held_out if held_out else self.prompts) if is_question(t))

    def statements(self, held_out: bool = False) -> tuple[str, ...]:
        """Return the statements to complete among the prompts, or among the held-out prompts."""
        return tuple(t for t in (self.held_out if held_out else self.prompts) if not is_question(t))

    @property
    def translated(self) -> tuple[str, ...]:
        """All prompts in other languages."""
        return tuple(template for templates in self.languages.values() for template in templates)

    @property
    def further(self) -> Mapping[str, tuple[str, ...]]:
        """Other ways of asking, by the group of probes that they are."""
        return {
            "reverse": self.reverse,
            "two_hop": self.two_hop,
            "negation": self.negation,
            "languages": self.translated,
        }

    @property
    def audited(self) -> tuple[str, ...]:
        """All prompts about the subject that only the audit asks: no form of the edit may be one of them."""
        return (*self.held_out, *self.two_hop, *self.negation, *self.translated)


class FactSpec(Strict):
    """One fact to forget."""

    id: Name
    """The name of the fact in reports; it should not give the answer away, nor the subject where that is secret."""
    subject: Text
    """The subject as it stands in a prompt."""
    relation: str
    """A name from `relations`."""
    answer: Text | None = None
    """What must no longer be said; without it, the model is asked before the edit."""
    aliases: tuple[Text, ...] = ()
    """Other spellings that count as the answer."""
    refusal: Text | None = None
    """What is said instead of this answer; without it, the relation's or the policy's. May hold {subject}."""


class MoreForms(Strict):
    """Further forms of the forgotten relations' prompts, which the edit sees beside those of the policy."""

    templates: int = Field(default=0, ge=0, le=12)
    """Per prompt, so many with a few words before or after it."""
    written: int = Field(default=0, ge=0, le=20)
    """Per prompt, at most so many wordings by the model itself (chat models)."""


class StatisticsSpec(Strict):
    """The text from which the edit learns what the model's keys look like."""

    corpus: Text = "auto"
    """`auto`, `embedded`, a .txt/.jsonl file or a folder of them, or a `datasets` name like owner/name:config."""
    tokens: int = Field(default=200_000, ge=1_000, le=1_000_000_000)
    """How many tokens to read."""


class AuditSpec(Strict):
    """What is measured before and after, and what passes."""

    suite: SuiteName = "standard"
    """How much is asked: `quick`, `standard`, `full`, or the path of a YAML file (docs/measurements.md, Suites)."""
    limits: dict[str, Limit] = Field(default={}, json_schema_extra=limits_schema())
    """Limits by measurement; those not named here have defaults (`unlearn check --defaults`)."""
    judge: Literal["point", "strict"] = "point"
    """What a limit is applied to: the estimate (`point`), or the unfavourable end of its 95 % interval (`strict`)."""
    tasks: tuple[Name, ...] = ()
    """lm-eval tasks: the shipped ones (evals/tasks) or any name that lm-eval knows."""
    task_limit: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Items per task; null for all."""
    toxicity: Text = "auto"
    """`auto`, a Detoxify name (original, unbiased, multilingual), or a local checkpoint in Detoxify's format."""
    text: Text = "auto"
    """Held-out text for divergence and perplexity: `auto`, or a .txt/.jsonl file."""
    benign: Text = "auto"
    """Benign questions that must not be refused: `auto`, or a text file with one question per line."""
    lookalike: Text = "auto"
    """Safe questions that look harmful: `auto`, a .csv file with the columns of XSTest (prompt, type, label), or a text
    file with one question per line under [headings]."""
    control: Text = "auto"
    """A model that never knew the facts, by which chance is told from knowledge: `auto` (there is one for the embedded
    model only), `none`, a local folder or a hub id. Needed where the suite attacks the model."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the sampled generations."""

    def limit(self, name: str) -> float | None:
        """Return the limit of a measurement: its own, else its family's, from the policy before the defaults."""
        own = self.own_limit(name)
        return _limit_in(DEFAULT_LIMITS, name) if own is None else own

    def own_limit(self, name: str) -> float | None:
        """Return the limit that the policy itself sets, by the measurement's name or its family; None without one."""
        return _limit_in(self.limits, name)


def _limit_in(limits: Mapping[str, float], name: str) -> float | None:
    row = row_of(name)
    # What only informs is judged where it is limited by its name.
    family = name.partition(".")[0] if row is None or row.judged else name
    return limits.get(name, limits.get(family))


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
    more_forms: MoreForms = MoreForms()
    """Forms of the prompts that the policy does not write out."""
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
            notes.append("keep.neighbours is auto: the model will be asked for names, which --dry-run lists")
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
