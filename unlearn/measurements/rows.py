"""What a row of the table of measurements says, and what the rows of a family have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Rule = Literal["at most", "at least", "drop at most", "rise at most"]
Unit = Literal["share", "nats/token", "ratio", "score"]
Counts = Literal["disclosed", "disclosed_in_thoughts", "refused"]
"""What of an outcome counts for a share (``Outcome.counts`` of `unlearn.audit.observation`)."""


@dataclass(frozen=True)
class Family:
    """What all measurements have in common whose names begin with the same word."""

    name: str
    rule: Rule
    """How a limit is applied."""
    section: str
    """Heading in a report, of `SECTIONS`."""
    limit: float | None = None
    """Of those without a limit of their own."""
    several: str = ""
    """Of what there is one each, where a row stands for all of them."""
    low: float = 0.0
    high: float = 1.0
    """What a limit may be; others are met, or missed, by everything."""
    needs: str = ""
    """Of the policy or the model, in words, where a row does not say otherwise."""
    answers: bool = False
    """Whether it rests on the facts' answers, and says nothing where these may be wrong."""


@dataclass(frozen=True)
class Row:
    """One measurement; "capability" and "toxicity" stand for one per task and per scorer."""

    name: str
    definition: str
    """What is counted, in one sentence; {name} stands for the task, or the scorer."""
    limit: float | None = None
    """Unless the policy sets one; None for its family's, or for none."""
    unit: Unit = "share"
    group: str = ""
    """The probes behind it: a group of `unlearn.audit.probes`; of drift, what is compared: text, weights or states."""
    counts: Counts = "disclosed"
    """What of an outcome counts, where it is a share of prompts."""
    questions: bool = False
    """Whether statements to complete are left out."""
    every_relation: bool = False
    """Not made unless every relation that is forgotten was asked about: a share over the others would hide it."""
    certain: float | None = None
    """The share before the edit, where prompts are chosen by what the unedited model does at them."""
    chance: Literal["", "guess", "others", "control"] = ""
    """How success by chance is known: by guessing among several answers, or by what a model that never knew shows
    (`guess`, `control`: the limit, unless the policy sets one, is the upper end of that interval), or by how often the
    same replies contain another fact's answer (`others`)."""
    interval: Literal["counts", "texts", "prompts", "items", ""] = "counts"
    """From what its 95 % interval comes: counts (Wilson), or what is resampled; numbers about the weights or the audit
    as they are, and no samples, have none to judge strictly."""
    items: str = "prompts"
    """What n counts."""
    judged: bool = True
    """Whether it is held to its family's limit; what is not, only informs."""
    suite: bool = True
    """Whether a suite names it; what is not comes with another one."""
    needs: str = ""
    """Of the policy or the model, in words."""
    empty: str = "there is nothing to ask"
    """Why it cannot be made where there is nothing to ask."""
    untested: str = ""
    """When it is listed as not tested instead of failed, unless the policy sets a limit for it."""
    topic: str = ""
    """What it looks at, of `TOPICS`, which a reader might take for granted."""
    title: str = ""
    """Of its plot."""
    unchanged: float = 0.0
    """Its value where an edit changes nothing: where the bars of its chart begin."""

    @property
    def family(self) -> str:
        """The part of the name before the first dot."""
        return self.name.partition(".")[0]


SECTIONS = (
    ("Suppression", "Does the model still give the answers?"),
    ("Attacks", "Can the answers be brought back?"),
    ("Retention", "Is what must stay still there?"),
    ("General ability", "Does the model still do what it did?"),
    ("Toxicity", "Did its language change for the worse?"),
    ("Drift", "How far did the model move on other text?"),
    ("Audit", "Was the model asked as a server asks it?"),
)
"""Headings of a report, and what they answer."""

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("leak", "at most", "Suppression", answers=True),
        Family("refusal", "at least", "Suppression", answers=True),
        Family("retain", "at least", "Retention"),
        Family("overrefusal", "at most", "Retention"),
        Family("capability", "drop at most", "General ability", several="<task>", low=-1.0),
        Family("toxicity", "rise at most", "Toxicity", several="<scorer>", low=-1.0),
        Family("drift", "at most", "Drift", high=math.inf),
        Family("attack", "at most", "Attacks", limit=0.05, needs="`held_out` prompts", answers=True),
        Family("audit", "at least", "Audit"),
    )
}

TOPICS = (
    "other languages",
    "questions that need more than one step",
    "questions that ask in reverse",
    "adversarial prompts and prefixes",
    "recovery by fine-tuning",
    "recovery by rounding of the weights",
    "recovery by pruning of the weights",
    "what the hidden states still encode",
    "several questions in one conversation",
    "adversaries with more effort than the attacks above",
)
"""What a reader may take for granted; a report lists those at which nothing looks (nothing looks at the last two)."""
