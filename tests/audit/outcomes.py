"""Made-up outcomes, facts and attacks for the tests of measurements."""

from __future__ import annotations

from unlearn.audit.attacks.scene import Attack
from unlearn.audit.observation import Attacked, Observation, Outcome
from unlearn.measurements import named
from unlearn.model.requests import Fact


def state(group: str, told: list[bool], refused: list[bool] | None = None, **rest: object) -> Observation:
    refused = refused or [False] * len(told)
    outcomes = tuple(
        Outcome(key=f"f{i % 2}/{i}", fact=f"f{i % 2}", question=i < len(told) - 1, disclosed=t, refused=r)
        for i, (t, r) in enumerate(zip(told, refused, strict=True))
    )
    return Observation(suite="tiny", groups={group: outcomes}, **rest)


def limits(_name: str) -> float:
    return 0.5


def fact(name: str, relation: str = "recipe", known: bool = True) -> Fact:
    return Fact(name, name, relation, "amber", known=known)


def made_as(name: str) -> Attack:
    """An attack of the table that is never run."""
    return Attack(named(f"attack.{name}"), lambda *_: Attacked(outcomes=()))
