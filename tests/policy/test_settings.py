"""What `auto` becomes, and what stays as it was said."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import get_args

import pytest
from pydantic import ValidationError

from unlearn.edit import settings as parts
from unlearn.edit.settling import RULES, SEVERAL, algorithm, settled
from unlearn.policy.method import METHOD_NAMES, Automatic, Kind
from unlearn.policy.presets import PRESETS, PUBLISHED
from unlearn.policy.settings import AlphaEdit, Editor, Memit, Rome
from unlearn.policy.settings_base import Settings
from unlearn.policy.settings_trained import FineTune, Lora, NullSpaceTuning


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
    made = settled(AlphaEdit(look_up="subject", kept=7.0, target_probability=None), chat=True)
    assert (made.look_up, made.kept, made.target_probability) == ("subject", 7.0, None)
    assert made.null_space == RULES["subject"]["null_space"]
    assert settled(AlphaEdit(look_up="both"), chat=False).kept == RULES["both"]["kept"]
    assert settled(AlphaEdit(look_up="both"), chat=True).kept == RULES["last"]["kept"]
    assert settled(AlphaEdit(look_up="last"), chat=False).kept == RULES["last"]["kept"]


@pytest.mark.parametrize("kind", get_args(Kind), ids=lambda kind: kind.__name__)
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
    assert settled(AlphaEdit(keys="mean"), chat=True).target_probability is None
    assert settled(AlphaEdit(), chat=True).target_probability == 0.7
    assert settled(AlphaEdit(keys="mean", target_probability=0.5), chat=True).target_probability == 0.5


def test_methods_that_differ_by_numbers_alone_are_presets() -> None:
    found = {name: Memit.model_validate({"name": name}) for name in ("memit", "memit_seq", "emmet")}
    assert {name: (made.ridge, made.earlier) for name, made in found.items()} == {
        "memit": (0.1, 0.0), "memit_seq": (0.1, 1.0), "emmet": (1e-4, 0.0),
    }  # fmt: skip
    assert Memit(name="emmet", ridge=0.3).ridge == 0.3  # what is said wins
    assert Memit() == found["memit"] != found["memit_seq"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_are_settings_of_the_method_and_what_is_said_wins(name: str) -> None:
    kind = next(kind for kind in get_args(Kind) if name in get_args(kind.model_fields["name"].annotation))
    made = kind.model_validate({"name": name, "published": True})
    assert issubclass(kind, Editor)
    assert {key: getattr(made, key) for key in PUBLISHED[name]} == PUBLISHED[name]
    assert kind.model_validate({"name": name, "published": True, "clamp": 9.0}).clamp == 9.0
    plain = kind.model_validate({"name": name})  # the control
    assert plain != made and not plain.published
    assert kind.model_validate(made.model_dump()) == made


def test_presets_are_of_methods_that_there_are() -> None:
    assert {*PRESETS, *PUBLISHED} < set(METHOD_NAMES)


def test_a_field_exists_only_where_the_method_uses_it() -> None:
    def having(field: str) -> set[str]:
        return {kind.__name__ for kind in get_args(Kind) if field in kind.model_fields}

    assert having("hard_negatives") == having("unlikelihood") == having("old_answer_ceiling") == {"AlphaEdit"}
    assert having("target_probability") == {"AlphaEdit", "AlphaEditPlus", "AnyEdit"}
    assert having("null_space") == having("target_probability") | {"NullSpaceTuning"}
    assert having("project") == {"Memit", "Nse", "Rome"}
    assert having("kept") >= {"Memit", "AlphaEdit", "Lora"} and "Rome" not in having("kept")
    assert having("unlikelihood_margin") == {"AlphaEdit", "NullSpaceTuning"}
    assert len(having("largest")) == len(get_args(Kind))


PUT_TOGETHER = {"values", "space", "spared", "threshold", "chunks", "easing"}
"""Fields of parts that are parts themselves, by a name of their own."""


def test_what_an_algorithm_is_told_are_settings_of_a_policy() -> None:
    """A part takes a setting by its name, and its own default where there is none: both must have one name."""
    named = {field for kind in get_args(Kind) for field in kind.model_fields}
    kinds = [
        kind for kind in vars(parts).values() if is_dataclass(kind) and kind.__module__ == parts.__name__
    ]
    told = {field.name for kind in kinds for field in fields(kind)}
    assert len(kinds) > 10 and "unlikelihood" in told
    assert told - named == PUT_TOGETHER


@pytest.mark.parametrize(
    ("left_open", "told"),
    [
        (Lora(kept=3), {"steps": 5}),
        (NullSpaceTuning(null_space=0.9, look_up="last"), {"steps": 5}),
        (NullSpaceTuning(steps=5, look_up="last"), {"null_space": 0.9}),
    ],
)
def test_what_is_trained_takes_its_settings_as_they_are_when_nothing_is_open(
    left_open: Settings, told: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        algorithm(left_open)
    named = left_open.model_copy(update=told)
    found = algorithm(named)
    assert isinstance(found, Settings) and found.model_dump() == named.model_dump()


def test_fine_tuning_alone_holds_nothing() -> None:
    assert parts.retained(parts.Refusing(steps=5, keep=0.5, kept=3)) == (0.5, 3)
    assert parts.retained(FineTune()) == (0.0, 0)
