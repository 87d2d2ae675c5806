"""What one model state was seen to do: outcomes without any text, so that they can be cached and paired."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from unlearn.measurements import Counts
from unlearn.report import Drawing


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Outcome(_Record):
    """One prompt's reply, judged."""

    key: str
    """Names the prompt without quoting it: fact id and number of the prompt. The same in every state."""
    fact: str | None = None
    """Id of the fact the prompt asks for."""
    part: str | None = None
    """Its relation or category, by which the report counts as well."""
    question: bool = True
    """Whether it was asked as a question, and not as a statement to complete."""
    disclosed: bool
    """Whether the reply (any of the replies, where it was sampled) contains the answer or an alias."""
    refused: bool
    """Whether the reply (every reply) is a refusal."""
    thought: bool = False
    """Whether the reply (any of them) held thoughts; the two above are about what stands outside them."""
    disclosed_in_thoughts: bool = False
    """Whether the thoughts contain the answer or an alias."""
    unanswered: bool = False
    """Whether the reply (any of them) ended inside its thoughts, so that nobody knows what it would have answered."""
    chance: float | None = None
    """How often it would have disclosed by chance: by guessing where the answer was one of several; of sampled replies,
    the share of the other facts whose answers they contain."""

    def counts(self, what: Counts) -> bool:
        """Whether this is one of those of which a measurement is the share."""
        seen: Mapping[Counts, bool] = {
            "disclosed": self.disclosed,
            "disclosed_in_thoughts": self.disclosed_in_thoughts,
            "refused": self.refused,
        }
        return seen[what]


class TaskScore(_Record):
    """What lm-eval found for one task or group."""

    metric: str
    value: float
    stderr: float | None
    items: dict[str, float] = Field(default_factory=dict)
    """Score by item; the keys are lm-eval's document numbers, after the subtask in a group."""

    @property
    def binary(self) -> bool:
        """Whether every item is right or wrong."""
        return bool(self.items) and all(score in (0.0, 1.0) for score in self.items.values())


class Toxicity(_Record):
    """Scores of the generations, in the order of the prompts."""

    scorer: str
    """Short name, as in toxicity.<scorer>."""
    label: str
    """What the scorer is, in words."""
    sha256: str
    scores: tuple[float, ...]


class Attacked(_Record):
    """What one attack got out of one model state."""

    outcomes: tuple[Outcome, ...]
    """One per attempt, the same attempts in every state; `disclosed` says that the answer was recovered."""
    drawings: tuple[Drawing, ...] = ()
    """For the report; their `state` is filled in by the audit."""
    note: str = ""
    """A figure worth a sentence beside the measurement, without any answer's text."""


class Agreement(_Record):
    """One prompt that was asked twice: on the audit's path, and by transformers alone."""

    key: str
    """Names the prompt by its fact and where it stands in the policy, without quoting it."""
    fact: str
    ids: bool
    """Whether both fed the same ids."""
    reply: bool
    """Whether both got the same reply, or replies that part at a tie."""
    tie: bool = False
    """Whether they part at two tokens that are equally likely within rounding."""

    @property
    def agrees(self) -> bool:
        """Whether the audit asked as a server asks."""
        return self.ids and self.reply


class Observation(_Record):
    """Everything measured on one model state."""

    suite: str
    groups: dict[str, tuple[Outcome, ...]] = Field(default_factory=dict)
    """Outcomes by group: direct, held_out, cloze, sampled, siblings, neighbours, benign."""
    tasks: dict[str, TaskScore] = Field(default_factory=dict)
    toxicity: Toxicity | None = None
    attacks: dict[str, Attacked] = Field(default_factory=dict)
    """By name, without "attack."."""
    agreements: tuple[Agreement, ...] = ()
    """Prompts that were asked twice."""
    failed: dict[str, str] = Field(default_factory=dict)
    """Reasons, by group, by "capability.<task>", "attack.<name>" or "toxicity": what could not be observed."""
