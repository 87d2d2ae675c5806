"""What a search of settings goes through: the fields of a method, and what each of them takes."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from tests import pico
from tests.audit.scripted import requests
from unlearn.edit.choose import settle
from unlearn.edit.settling import settled
from unlearn.policy.method import Method
from unlearn.policy.settings import AlphaEdit, Rome
from unlearn.policy.settings_base import Settings
from unlearn.policy.settings_trained import NullSpaceTuning
from unlearn.search import space
from unlearn.search.space import Span


def test_what_is_searched_is_what_the_method_has() -> None:
    def names(method: Method, chat: bool = True) -> set[str]:
        return set(space.searched(settled(method, chat)))

    assert {"ridge", "null_space", "kept", "target_probability", "clamp", "old_answer_ceiling"} <= names(
        AlphaEdit()
    )
    assert "target_probability" not in names(AlphaEdit(target_probability=None)) and "kept" not in names(
        AlphaEdit(kept=0)
    )
    # What `auto` switches off is off.
    assert "old_answer_ceiling" not in names(AlphaEdit(), chat=False)
    assert "ridge" not in names(Rome())
    trained = space.searched(settled(NullSpaceTuning(steps=600), True))
    assert set(trained) == {"null_space", "steps"} and trained["steps"] == Span(200, 1800, True, True)


def test_a_span_is_what_its_field_takes() -> None:
    class Odd(Settings):
        name: str = "odd"
        kept: int = Field(default=5, ge=3, lt=9)
        steps: int | None = Field(default=2, gt=0)
        null_space: Literal["auto"] | Annotated[float, Field(gt=0.6, le=0.9)] = 0.7
        target_probability: float = Field(default=0.5, lt=0.9)

    assert space.searched(Odd()) == {
        "kept": Span(3, 8, True, True),
        "steps": Span(1, 6, True, True),
        "null_space": Span(math.nextafter(0.6, 1), 0.9, False),
        "target_probability": Span(0.3, math.nextafter(0.9, 0), False),
    }


def test_a_base_models_own_settings_are_a_point_of_the_space() -> None:
    base = pico.pico("gpt2", chat=False)
    asked = requests(method={"name": "alphaedit", "layers": [1, 2]})
    own = settle(base, asked.policy, asked.policy.method, asked.facts)
    point = space.start(base, own, (1, 2))
    assert "ridge" in point and "old_answer_ceiling" not in point
