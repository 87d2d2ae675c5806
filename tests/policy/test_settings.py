"""What `auto` becomes, and what stays as it was said."""

from __future__ import annotations

from typing import get_args

import pytest

from unlearn.edit.settling import RULES, SEVERAL, settled
from unlearn.policy.settings import AlphaEdit, Automatic, Method, NullSpaceTuning, Rome
from unlearn.policy.settings_baselines import Lora


@pytest.mark.parametrize(
    ("chat", "forms", "look_up"),
    [
        (True, 1, "last"),
        (True, 9, "last"),
        (False, 1, "subject"),
        (False, SEVERAL - 1, "subject"),
        (False, SEVERAL, "both"),
    ],
)
def test_the_rule_follows_the_model_and_the_policy(chat: bool, forms: int, look_up: str) -> None:
    made = settled(AlphaEdit(), chat, forms)
    assert made.look_up == look_up
    assert {name: getattr(made, name) for name in RULES[look_up]} == RULES[look_up]
    assert settled(made, not chat) == made  # once settled, it stays


def test_what_is_said_stays_and_the_rest_follows_the_look_up() -> None:
    made = settled(AlphaEdit(look_up="subject", kept=7.0, hold=None), chat=True)
    assert (made.look_up, made.kept, made.hold) == ("subject", 7.0, None)
    assert made.null_space == RULES["subject"]["null_space"]
    assert settled(AlphaEdit(look_up="both"), chat=False).kept == RULES["both"]["kept"]
    assert settled(AlphaEdit(look_up="both"), chat=True).kept == RULES["last"]["kept"]
    assert settled(AlphaEdit(look_up="last"), chat=False).kept == RULES["last"]["kept"]


@pytest.mark.parametrize("kind", get_args(get_args(Method)[0]), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("chat", [True, False])
def test_nothing_but_layers_is_left_open_for_any_method(kind: type, chat: bool) -> None:
    if kind is Automatic:  # settled by what it chooses
        return
    made = settled(kind(), chat)
    still_open = {name for name, value in made if value == "auto"}
    # The first three need the model's depth, the guard's text and LoRA's steps the policy, a training its forms.
    policy = {"text", "steps"} if kind in (Lora, NullSpaceTuning) else {"text"}
    assert still_open <= {"layers", "layer", "window", *policy}
    type(made).model_validate(made.model_dump())


def test_the_published_look_up_of_rome_is_not_touched() -> None:
    assert settled(Rome(), chat=True) == Rome()


def test_mean_keys_are_not_held_by_default() -> None:
    assert settled(AlphaEdit(keys="mean"), chat=True).hold is None
    assert settled(AlphaEdit(), chat=True).hold == 0.7
    assert settled(AlphaEdit(keys="mean", hold=0.5), chat=True).hold == 0.5
