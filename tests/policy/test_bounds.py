"""Numbers that nothing can be, and values that YAML cannot read, at their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.files import policy_text
from tests.policy.test_file import problems
from unlearn.errors import PolicyError
from unlearn.policy.file import load_policy


@pytest.mark.parametrize(
    ("name", "limit", "said"),
    [
        ("leak.direct", "2", "from 0 to 1 (0.02 is 2 %), got 2"),
        ("refusal.direct", "-1", "from 0 to 1, got -1"),
        ("attack.q4", "5", "(0.05 is 5 %)"),
        ("capability", "1.5", "from -1 to 1 (0.015 is 1.5 %)"),
        ("drift.kl", "-0.1", "of at least 0, got -0.1"),
    ],
)
def test_a_limit_that_everything_meets_is_refused(tmp_path: Path, name: str, limit: str, said: str) -> None:
    found = problems(tmp_path, policy_text(audit=f"audit: {{limits: {{{name}: {limit}}}}}"))
    assert len(found) == 2 and said in found[0] and f"audit.limits.{name}" in found[0]


def test_a_seed_is_no_longer_than_a_generator_takes(tmp_path: Path) -> None:
    assert "seed" in problems(tmp_path, policy_text(seed=f"seed: {2**64}"))[0]


NUMBERS = {
    "audit.limits.leak.direct": "audit: {{limits: {{leak.direct: {}}}}}",
    "audit.task_limit": "audit: {{task_limit: {}}}",
    "audit.seed": "audit: {{seed: {}}}",
    "statistics.tokens": "statistics: {{tokens: {}}}",
    "seed": "seed: {}",
    "method.steps": "method: {{name: alphaedit, steps: {}}}",
    "method.clamp": "method: {{name: alphaedit, clamp: {}}}",
    "method.layers[0]": "method: {{name: alphaedit, layers: [{}]}}",
    "method.rank": "method: {{name: lora, rank: {}}}",
    "method.beta": "method: {{name: npo, beta: {}}}",
    "keep.look_alikes": "keep: {{look_alikes: {}}}",
}


ABSURD = [
    *(".nan", ".inf", "-.inf", "-1e999", "1e999"),
    *(f"{sign}1{'0' * zeros}" for sign in ("", "-") for zeros in (25, 400, 5000)),
    f"0x{'f' * 400}",
    "!!int 1.5",
    "1:30",
]


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: value[:12])
@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_that_nothing_can_be_is_a_problem_at_its_place(tmp_path: Path, key: str, value: str) -> None:
    found = problems(tmp_path, policy_text(keep="", changed=NUMBERS[key].format(value)))
    assert len(found) == 2 and len(found[0]) < 700
    assert found[0].startswith(f"p:12 {key} ")


def test_numbers_up_to_their_bounds_are_right(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(policy_text(seed=f"seed: {2**63 - 1}", method="method: {name: lora, rank: 1_000_000}"))
    assert load_policy(path).seed == 2**63 - 1
    path.write_text(policy_text(method="method: {name: lora, rank: 1_000_001}"))
    with pytest.raises(PolicyError, match="method.rank  expected at most 1,000,000"):
        load_policy(path)
    with pytest.raises(PolicyError, match="--set seed  not allowed in a policy: a number beyond 64 bits"):
        load_policy(path, {"method": "{name: lora}", "seed": str(2**63)})


UNREADABLE = ["2020-13-45", '!!int ""', "!!bool maybe", "!!timestamp foo"]


@pytest.mark.parametrize("value", UNREADABLE)
def test_a_value_that_yaml_cannot_read_is_named_with_its_line(tmp_path: Path, value: str) -> None:
    text = policy_text(name=f"name: {value}")
    (found, _) = problems(tmp_path, text)
    assert found.startswith("p:2 name") and "in quotes" in found
    (found, _) = problems(tmp_path, policy_text(), name=value)
    assert found.startswith("--set name ") and "in quotes" in found
