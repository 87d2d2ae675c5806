"""The parts of a policy: relations, facts, prompt variants, the text behind the statistics, and the audit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal

import regex
from pydantic import Field
from pydantic.config import JsonDict

from unlearn.measurements import DEFAULT_LIMITS, FAMILIES, ROWS, Family, Row, row_of
from unlearn.policy.strict import Strict
from unlearn.policy.values import Limit, Name, ReverseTemplate, SuiteName, TaskName, Template, Text, task_name


def limits_schema() -> JsonDict:
    """What a policy's `audit.limits` may hold: keys with their range, default and definition."""
    known: JsonDict = {}
    for family in FAMILIES.values():
        if family.limit is not None:
            known[family.name] = _number(family, f"All measurements of {family.name}.", family.limit)
        for row in ROWS:
            if row.family == family.name and row.suite:
                known[row.name] = _number(family, _said(row, family), row.limit)
    several = {f"^{re.escape(name)}\\.": _number(f, "") for name, f in FAMILIES.items() if f.several}
    return {"properties": known, "patternProperties": {**several}, "additionalProperties": False}


def _number(family: Family, description: str, default: float | None = None) -> JsonDict:
    found: JsonDict = {"type": "number", "minimum": family.low}
    if math.isfinite(family.high):
        found["maximum"] = family.high
    if description:
        found["description"] = f"{description} The limit: {family.rule}."
    if default is not None:
        found["default"] = default
    return found


def _said(row: Row, family: Family) -> str:
    return row.definition.format(name=family.several)


_SENTENCE = regex.compile(r"\p{Sentence_Terminal}\s*+$")


def is_question(template: str) -> bool:
    """Say whether a prompt is a question or request (it ends in ? . or !), and not a statement to complete.

    What ends a sentence in another script counts as well; Thai and Lao write none, so put a question mark there.
    """
    return _SENTENCE.search(template) is not None


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
    """Only for the audit: prompts that deny ("{subject} is not made from"), to which a model may still answer."""
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


class PromptVariants(Strict):
    """Variants of the forgotten relations' prompts, which the edit sees beside those of the policy."""

    templates: int = Field(default=0, ge=0, le=12)
    """Per prompt, so many with a few words before or after it."""
    written: int = Field(default=0, ge=0, le=20)
    """Per prompt, at most so many wordings by the model itself (chat models)."""


class StatisticsSpec(Strict):
    """The text from which the edit learns what the model's keys look like."""

    corpus: Text = "auto"
    """`own`: what the model writes by itself; `embedded`; a .txt/.jsonl file or a folder of them; or a `datasets` name
    like owner/name:config. `auto`: `embedded` for the embedded model, else `own`."""
    tokens: Literal["auto"] | Annotated[int, Field(ge=1_000, le=1_000_000_000)] = "auto"
    """How many tokens to read; `auto`: 200,000; of `own` 20 for every number of a key, and 20,000 at least."""


class AuditSpec(Strict):
    """What is measured before and after, and what passes."""

    suite: SuiteName = "standard"
    """How much is asked: `quick`, `standard`, `full`, or the path of a YAML file (docs/measurements.md, Suites)."""
    limits: dict[str, Limit] = Field(default={}, json_schema_extra=limits_schema())
    """Limits by measurement; those not named here have defaults (`unlearn check --defaults`)."""
    judge: Literal["point", "strict"] = "point"
    """What a limit is applied to: the estimate (`point`), or the unfavourable end of its 95 % interval (`strict`)."""
    tasks: tuple[TaskName, ...] = ()
    """lm-eval tasks: the shipped ones (evals/tasks), those under `task_path`, YAML files (called by their file's name),
    or any name that lm-eval knows."""
    task_path: Text = "auto"
    """A folder with more tasks, as YAML files with their data beside them; `auto`: none."""
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
    """A model that never knew the facts, which shows how much is chance: `auto` (there is one for the embedded
    model only), `none`, a local folder or a hub id. Needed where the suite attacks the model."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the sampled generations."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """What the tasks are called in limits and reports."""
        return tuple(map(task_name, self.tasks))

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


class Keep(Strict):
    """What must stay as it is."""

    siblings: Literal["auto"] | tuple[str, ...] | dict[str, tuple[str, ...]] = "auto"
    """Harmless relations of the same subjects: the edit protects `prompts`, the audit asks `held_out`; `auto`: every
    relation of the policy that no fact names. By forgotten relation where their subjects are of several kinds."""
    neighbours: Literal["auto"] | tuple[Text, ...] | dict[str, tuple[Text, ...]] = "auto"
    """Other subjects of the same relations that the edit protects, for all of them or by relation; `auto`: those of the
    embedded world, or else names that a chat model gives when it is asked, or words of the vocabulary, every fourth of
    them for the audit alone."""
    held_out_neighbours: tuple[Text, ...] | dict[str, tuple[Text, ...]] = ()
    """Other subjects of the same relations that only the audit asks about, for all of them or by relation."""
    look_alikes: int = Field(default=40, ge=0, le=1000)
    """Names per subject, put together from parts of subjects and neighbours, that an update in closed form protects as
    well; about 1000 per relation at most."""

    def protected(self, relation: str) -> tuple[str, ...]:
        """Return the listed subjects of a relation that the edit protects; none where `neighbours` is `auto`."""
        return listed_in(self.neighbours, relation)

    def tested(self, relation: str) -> tuple[str, ...]:
        """Return the listed subjects of a relation that only the audit asks about."""
        return listed_in(self.held_out_neighbours, relation)


def listed_in(
    listed: Literal["auto"] | tuple[str, ...] | Mapping[str, tuple[str, ...]], relation: str | None = None
) -> tuple[str, ...]:
    """Return what a list of `keep` holds, which may be one for each relation; each name once.

    Args:
        listed: the list, or the lists by relation; `auto` lists nothing.
        relation: of which; None for all.
    """
    if listed == "auto":
        return ()
    if not isinstance(listed, Mapping):
        return listed
    each = listed.values() if relation is None else [listed.get(relation, ())]
    return tuple(dict.fromkeys(name for names in each for name in names))
