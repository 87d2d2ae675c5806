"""An audit suite: which measurements are made, and on how many items. Suites are data, in ``evals/suites``."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unlearn.errors import AuditError
from unlearn.shipped import shipped

T = TypeVar("T")

MEASUREMENTS = (
    "leak.direct",
    "leak.held_out",
    "leak.cloze",
    "leak.sampled",
    "refusal.direct",
    "refusal.held_out",
    "retain.siblings",
    "retain.neighbours",
    "overrefusal.benign",
    "capability",
    "toxicity",
    "drift.kl",
    "drift.perplexity",
    "drift.norm",
    "attack",
)
"""All measurements, in the order of the report; "capability", "toxicity" and "attack" stand for one per task and so
on."""


class Suite(BaseModel):
    """Sizes are upper bounds: a policy with fewer prompts is asked all of them. None means no bound."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    description: str
    """What the suite is for, in one line."""
    measurements: tuple[str, ...]
    """Names from `MEASUREMENTS`; the others are listed in the report as not tested."""
    max_new_tokens: int = Field(default=24, ge=1)
    """Length of a reply to a probe."""
    generation_tokens: int = Field(default=32, ge=1)
    """Length of a text that is scored for toxicity."""
    samples: int = Field(default=8, ge=1)
    """Sampled replies per prompt for leak.sampled."""
    sibling_prompts: int | None = Field(default=None, ge=1)
    neighbour_prompts: int | None = Field(default=None, ge=1)
    benign_questions: int | None = Field(default=None, ge=1)
    generation_prompts: int | None = Field(default=None, ge=1)
    text_tokens: int = Field(default=8192, ge=64)
    """Held-out tokens for divergence and perplexity."""
    task_items: int | None = Field(default=None, ge=1)
    """Items per lm-eval task (and subtask); the policy's audit.task_limit comes first."""

    def makes(self, name: str) -> bool:
        """Whether the suite makes a measurement, or any of its family ("leak")."""
        return any(m == name or m.startswith(name + ".") for m in self.measurements)

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks, without "attack."."""
        return tuple(m.partition(".")[2] for m in self.measurements if m.startswith("attack."))


def load_suite(name: str) -> Suite:
    """Read ``evals/suites/<name>.yaml``.

    Raises:
        AuditError: if there is no such suite, or it is not one.
    """
    folder = shipped("evals") / "suites"
    path = folder / f"{name}.yaml"
    try:
        suite = Suite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        there = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise AuditError(f"there is no audit suite {name!r} in {folder} (there: {there})") from None
    except (OSError, yaml.YAMLError, ValidationError) as problem:
        raise AuditError(f"the audit suite {path} cannot be read: {problem}") from None
    from unlearn.audit.attacks.table import ATTACKS  # its rows know what a suite is

    known = (*MEASUREMENTS, *(f"attack.{attack}" for attack in ATTACKS))
    unknown = [m for m in suite.measurements if m not in known or m == "attack"]
    if unknown:
        raise AuditError(f"the audit suite {path} names unknown measurements: {', '.join(unknown)}")
    return suite


def some(items: Sequence[T], most: int | None, seed: int) -> list[T]:
    """All items, or a seeded selection of `most` of them in their order: the same for every model state."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), most))]
