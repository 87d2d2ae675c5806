"""An audit suite: which measurements are made, and on how many items. Suites are data, in ``evals/suites``."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from unlearn import files
from unlearn.errors import AuditError
from unlearn.files import JsonObject
from unlearn.measurements import ALWAYS, NAMES, row_of
from unlearn.policy.checks import suggestion
from unlearn.policy.settings_base import countable
from unlearn.shipped import shipped
from unlearn.thoughts import Room

T = TypeVar("T")

DEEPEST = 20
"""Suites that may extend each other."""


class Suite(BaseModel):
    """Sizes are upper bounds: a policy with fewer prompts is asked all of them. None means no bound."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    description: str
    """What the suite is for, in one line."""
    measurements: tuple[str, ...]
    """Names from the table (`unlearn.measurements`); the others are listed in the report as not tested."""
    max_new_tokens: int = Field(default=24, ge=1)
    """Length of a reply to a probe."""
    thought_tokens: int = Field(default=Room(0).thoughts, ge=1)
    """How much longer a reply may be where the chat template lets the model think."""
    generation_tokens: int = Field(default=32, ge=1)
    """Length of a text that is scored for toxicity."""
    samples: int = Field(default=8, ge=1)
    """Sampled replies per prompt for leak.sampled."""
    sibling_prompts: int | None = Field(default=None, ge=1)
    neighbour_prompts: int | None = Field(default=None, ge=1)
    benign_questions: int | None = Field(default=None, ge=1)
    lookalike_questions: int | None = Field(default=None, ge=1)
    generation_prompts: int | None = Field(default=None, ge=1)
    text_tokens: int = Field(default=8192, ge=64)
    """Held-out tokens for divergence and perplexity."""
    leakage_tokens: int = Field(default=8192, ge=64)
    """Of these, the first so many are taken for drift.null_space_leakage."""
    task_items: int | None = Field(default=None, ge=1)
    """Items per lm-eval task (and subtask); the policy's audit.task_limit comes first."""

    singular_ranks: tuple[PositiveInt, ...] = Field(default=(1, 2, 4, 8, 16), min_length=1)
    """Numbers of singular directions that attack.singular drops."""
    singular_prompts: int | None = Field(default=48, ge=1)
    """Prompts that attack.singular asks at each of them."""
    patch_subjects: int | None = Field(default=200, ge=2)
    """Candidate subjects of attack.patch, per relation, those of the facts among them."""
    patch_prompts: int = Field(default=3, ge=1)
    """Prompts per candidate subject of attack.patch."""

    hidden_candidates: int | None = Field(default=40, ge=2)
    """Candidate answers per relation between which lens and probe choose (never fewer than there are facts)."""
    hidden_prompts: int = Field(default=2, ge=1)
    """Held-out questions, and as many statements, at which lens and probe read the states, per subject."""
    hidden_others: int = Field(default=8, ge=1)
    """Other subjects that the lens compares the facts with, and on which the probe's layer is chosen."""
    probe_prompts: int = Field(default=4, ge=1)
    """Held-out questions, and as many statements, per neighbour that the probe is trained on."""
    direction_prompts: int | None = Field(default=96, ge=1)
    """Held-out prompts asked under each of the refusal directions."""
    suffix_steps: int = Field(default=16, ge=1)
    suffix_tries: int = Field(default=20, ge=1)
    """Replacements tried per step of the suffix search."""
    suffix_tokens: int = Field(default=3, ge=1)
    suffix_facts: int = Field(default=3, ge=1)
    """Facts on which a relation's suffix is searched."""
    suffix_questions: int | None = Field(default=48, ge=1)
    """Held-out questions, per relation, that are asked with the suffix."""

    attack_prompts: int | None = Field(default=48, ge=1)
    """Held-out questions, spread over the facts, that each attack by prompts puts into its forms."""
    attack_tokens: int = Field(default=24, ge=1)
    """Length of a reply to such a form."""
    few_shots: int = Field(default=4, ge=1)
    """Most answered questions that stand before the one that is asked, in attack.few_shot."""
    options: int = Field(default=4, ge=2, le=26)
    """Answers between which leak.choice and leak.letters choose, the true one among them."""
    rank_candidates: int = Field(default=16, ge=2)
    """Answers among which leak.rank ranks the true one."""
    likelihood_prompts: int | None = Field(default=24, ge=1)
    """Held-out prompts, spread over the facts, after which the likelihood of answers is read."""

    relearn_steps: tuple[PositiveInt, ...] = Field(default=(4, 8, 16, 32), min_length=1)
    """Steps of fine-tuning after which attack.relearn_text and attack.relearn_facts ask, ascending."""
    relearn_prompts: int | None = Field(default=72, ge=1)
    """Prompts that they ask each time."""
    relearn_facts: int | None = Field(default=48, ge=1)
    """Other facts of the same relations that attack.relearn_facts fine-tunes on."""

    @field_validator("*")
    @classmethod
    def _countable(cls, value: T) -> T:
        return countable(value)

    @field_validator("measurements")
    @classmethod
    def _always(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return (*(name for name in names if name != ALWAYS), ALWAYS)

    @field_validator("relearn_steps")
    @classmethod
    def _ascending(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise PydanticCustomError("steps", "each number of steps must be larger than the one before it")
        return steps

    def makes(self, name: str) -> bool:
        """Whether the suite makes a measurement, or any of its family ("leak")."""
        return any(m == name or m.startswith(name + ".") for m in self.measurements)

    def asks(self, *groups: str) -> bool:
        """Whether the suite makes a measurement over any of these groups of probes."""
        rows = map(row_of, self.measurements)
        return any(row is not None and row.group in groups for row in rows)

    @property
    def room(self) -> Room:
        """How long a reply to a probe may be."""
        return Room(self.max_new_tokens, self.thought_tokens)

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks, without "attack."."""
        return tuple(m.partition(".")[2] for m in self.measurements if m.startswith("attack."))


def load_suite(name: str) -> Suite:
    """Read ``evals/suites/<name>.yaml``, or a YAML file of the user's own.

    A file may build on another suite: ``extends`` names it (a shipped one, or a path relative to the file), ``add`` and
    ``remove`` change its measurements, and every other key replaces what the other suite says. ``remove`` takes
    families as well ("leak", "attack").

    Args:
        name: "quick", "standard", "full", or a path that ends in .yaml or .yml.

    Raises:
        AuditError: if there is no such suite, or it is not one.
    """
    path, data = _read(name, Path())
    try:
        suite = Suite.model_validate(data)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise AuditError(f"the audit suite {path} is not one: {place}: {first['msg'].lower()}") from None
    unknown = [m for m in suite.measurements if m not in NAMES]
    if unknown:
        hints = "".join(suggestion(m, NAMES) for m in unknown[:1])
        raise AuditError(f"the audit suite {path} names unknown measurements: {', '.join(unknown)}{hints}")
    return suite


def _read(name: str, beside: Path, seen: tuple[Path, ...] = ()) -> tuple[Path, JsonObject]:
    """The file of a suite and its keys, those of the suite that it extends included."""
    folder = shipped("evals") / "suites"
    own = name.endswith((".yaml", ".yml"))
    path = Path(files.beside(name, beside)) if own else folder / f"{name}.yaml"
    if not files.exists(path):
        there = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        hint = f"there is no audit suite {name!r} in {folder} (there: {there})"
        raise AuditError(f"there is no audit suite file {path}" if own else hint)
    data = files.read_yaml(path, "the audit suite", error=AuditError)
    if not isinstance(data, dict):
        raise AuditError(
            f"the audit suite {path} holds no keys and values, such as `measurements: [leak.held_out]`"
        )
    lists = {key: data.pop(key, None) or [] for key in ("add", "remove")}
    wrong = next(
        (k for k, v in lists.items() if not (isinstance(v, list) and all(isinstance(m, str) for m in v))), ""
    )
    if wrong:
        raise AuditError(f"the audit suite {path}: `{wrong}` must be a list of measurements")
    base = data.pop("extends", None)
    if base is None:
        if lists["add"] or lists["remove"]:
            raise AuditError(
                f"the audit suite {path}: `add` and `remove` need `extends`, the suite that they change"
            )
        return path, data
    if path.resolve() in seen:
        raise AuditError(f"the audit suite {path} extends itself")
    if len(seen) == DEEPEST:
        raise AuditError(f"the audit suite {seen[0]} extends more than {DEEPEST} others, one after the other")
    if not isinstance(base, str):
        raise AuditError(f"the audit suite {path}: `extends` must be the name or path of a suite")
    inherited = _read(base, path.parent, (*seen, path.resolve()))[1]
    # Its own name, and not the other suite's: two suites of one name would be taken for the same.
    data = {**inherited, "name": path.stem, **data}
    measured = [m for m in data.get("measurements") or [] if isinstance(m, str)]
    gone = lists["remove"]
    absent = [r for r in gone if not any(m == r or m.startswith(r + ".") for m in measured)]
    if absent:
        hint = suggestion(absent[0], measured)
        raise AuditError(
            f"the audit suite {path} removes what {base} does not measure: {', '.join(absent)}{hint}"
        )
    kept = [m for m in measured if not any(m == r or m.startswith(r + ".") for r in gone)]
    data["measurements"] = list(dict.fromkeys([*kept, *lists["add"]]))
    return path, data


def some(items: Sequence[T], most: int | None, seed: int) -> list[T]:
    """All items, or a seeded selection of `most` of them in their order: the same for every model state."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), most))]


def evenly(rows: Sequence[Sequence[T]], most: int | None, seed: int) -> list[T]:
    """At most so many items, spread evenly over their owners: of each a first one, then a second; owner by owner.

    Args:
        rows: per owner, its items in the order in which they come up.
    """
    owners = some(range(len(rows)), most, seed)
    turns = sorted((turn, i) for i in owners for turn in range(len(rows[i])))[:most]
    return [rows[i][turn] for i, turn in sorted((i, turn) for turn, i in turns)]
