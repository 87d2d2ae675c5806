"""The words of earlier versions: each is answered with the one of today, at its place."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.files import policy_text
from tests.policy.test_file import problems
from unlearn.errors import PolicyProblems
from unlearn.measurements import NAMES
from unlearn.policy import Policy
from unlearn.policy.file import load_policy
from unlearn.policy.former import RENAMED
from unlearn.policy.method import Kind

FORMER = {
    "hold": ("method", "method: {{name: alphaedit, {}: 0.5}}"),
    "remnant": ("method", "method: {{name: alphaedit, {}: null}}"),
    "suppress": ("method", "method: {{name: alphaedit, {}: 0.1}}"),
    "silence": ("method", "method: {{name: null_space_tuning, {}: 6}}"),
    "witnesses": ("method", "method: {{name: alphaedit, {}: 0}}"),
    "witnessed": ("method", "method: {{name: alphaedit, {}: 10}}"),
    "more_forms": ("", "{}: {{templates: 2}}"),
    "attack.prefix": ("audit.limits", "audit: {{limits: {{{}: 0.1}}}}"),
}


@pytest.mark.parametrize("word", RENAMED)
def test_a_former_word_is_answered_with_the_one_of_today(tmp_path: Path, word: str) -> None:
    place, text = FORMER[word]
    key = place.partition(".")[0] or word
    said = problems(tmp_path, policy_text(**{key: text.format(word)}))
    where = f"{place}.{word}".removeprefix(".")
    assert len(said) == 2 and f":13 {where}  " in said[0]
    assert said[0].endswith(f"; it is called `{RENAMED[word]}` now")
    path = tmp_path / "today.yaml"
    path.write_text(policy_text(**{key.replace(word, RENAMED[word]): text.format(RENAMED[word])}))
    load_policy(path)


def test_a_former_word_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(policy_text())
    for key in ("method.hold", "more_forms.templates"):
        over = {"method.name": "alphaedit", key: "1"}
        with pytest.raises(PolicyProblems, match="it is called `(target_probability|prompt_variants)` now"):
            load_policy(path, over)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("{name: auto, hold: 0.5}", "to set this, called `target_probability` now, name one that has it: alphaedit"),
        ("{name: auto, silence: 4}", "called `unlikelihood_margin` now, name one that has it: alphaedit, null_space"),
        ("{name: auto, target_probability: 0.5}", "to set this, name one that has it: alphaedit"),
    ],
)  # fmt: skip
def test_where_the_method_is_chosen_the_word_and_the_methods_are_named(
    tmp_path: Path, method: str, said: str
) -> None:
    assert said in problems(tmp_path, policy_text(method=f"method: {method}"))[0]


def test_a_former_word_where_nothing_of_today_stands_is_an_unknown_key(tmp_path: Path) -> None:
    assert problems(tmp_path, policy_text(method="method: {name: rome, witnesses: 3}"))[0].endswith(
        "unknown key"
    )


def test_every_word_of_today_is_one() -> None:
    settings = {field for kind in get_args(Kind) for field in kind.model_fields}
    today = {*settings, *Policy.model_fields, *NAMES}
    assert set(RENAMED.values()) <= today and not set(RENAMED) & today
