"""Values of the command line in the place of a policy's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.files import policy_text
from tests.policy.test_file import problems
from unlearn.policy.file import load_policy


def test_overrides_stand_in_for_the_file(small_policy: Path) -> None:
    policy = load_policy(
        small_policy, {"method.name": "rome", "audit.limits.leak.direct": "0.5", "seed": "3"}
    )
    assert (policy.method.name, policy.audit.limits, policy.seed) == ("rome", {"leak.direct": 0.5}, 3)


def test_another_method_drops_the_settings_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(policy_text(method="method: {name: alphaedit, null_space: 0.5}"))
    assert load_policy(path, {"method.name": "rome"}).method.name == "rome"
    assert load_policy(path, {"method.name": "alphaedit"}).method.model_dump()["null_space"] == 0.5


def test_a_wrong_override_is_named_as_such(tmp_path: Path) -> None:
    found = problems(tmp_path, policy_text(), method__name="rmoe", seed="x", name__deep="1")
    assert sum(line.startswith("--set ") for line in found) == 3


def test_what_an_override_says_is_not_looked_for_in_the_file(tmp_path: Path) -> None:
    found = problems(tmp_path, policy_text(), relations__recipe__prompts='["no place"]')
    assert found[0].startswith("--set relations.recipe.prompts[0] ") and "{subject}" in found[0]
    fact = "[{id: a, subject: 12, relation: recipe}]"
    found = problems(tmp_path, policy_text(), facts=fact)
    assert found[0].startswith("--set facts[0].subject ") and 'got a number: write "12" in quotes' in found[0]
    found = problems(tmp_path, policy_text(), method="{name: rome, layers: x}")
    assert found[0].startswith("--set method.layers ")
    assert problems(tmp_path, policy_text(), method__steps="x")[0].startswith("--set method.steps ")


@pytest.mark.parametrize("key", ["audit.limits.leak.direct", "seed", "method.largest"])
def test_a_boolean_is_no_number_in_an_override_either(tmp_path: Path, key: str) -> None:
    found = problems(tmp_path, policy_text(), **{key: "yes"})
    assert found[0].startswith(f"--set {key} ") and "got a boolean (yes)" in found[0]
