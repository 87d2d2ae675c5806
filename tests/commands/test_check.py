"""`unlearn check`: what a policy asks for, or every problem of it, before any model is loaded."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.files import policy_text, run
from unlearn.audit.known import known_audit
from unlearn.audit.suite import load_suite
from unlearn.errors import PolicyError
from unlearn.policy.file import load_policy
from unlearn.shipped import shipped


def test_check_says_what_a_policy_asks_for(small_policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", small_policy) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{small_policy}: ok\n")
    assert re.search(r"recipe +forget +1 +1 \+ 1 +1 \+ 1", out)
    assert re.search(r"leak\.held_out +0\.05 +\(default\)", out)


def test_check_as_json(small_policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", small_policy, "--json", "--method", "rome") == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["method"]["name"] == "rome"
    assert found["relations"]["colour"]["kept"] is True


@pytest.mark.parametrize("name", ["demo", "template"])
def test_check_defaults_prints_a_policy_that_loads(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", shipped("policies") / f"{name}.yaml", "--defaults") == 0
    once = capsys.readouterr().out
    again = tmp_path / "again.yaml"
    again.write_text(once)
    assert run("check", again, "--defaults") == 0
    assert capsys.readouterr().out == once


def test_check_lists_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(policy_text(facts="facts:\n- {id: a, subject: No, relation: recip}", seed="sed: 1"))
    assert run("check", path) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 4
    assert err.endswith("3 problems, nothing was loaded.\n")


def test_a_suite_that_is_not_there_is_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(policy_text(audit="audit: {suite: nosuch.yaml}"))
    for command in (("check", path), ("apply", path, "--out", tmp_path / "run")):
        assert run(*command) == 2
        assert f"audit.suite: there is no audit suite file {tmp_path}/nosuch.yaml" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("benign", "{} cannot be read: No such file or directory"),
        ("lookalike", "{} cannot be read: No such file or directory"),
        ("text", "the held-out text {} cannot be read: No such file or directory"),
    ],
)
def test_a_file_of_the_audit_that_is_not_there_stops_before_the_edit(
    small_policy: Path, tmp_path: Path, key: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / ("nope.csv" if key == "lookalike" else "nope")
    for command in (
        ("apply", small_policy, "--out", tmp_path / "run"),
        ("audit", "somewhere", "--policy", small_policy),
        ("compare", small_policy, "--methods", "none", "--out", tmp_path / "run"),
    ):
        assert run(*command, "--set", f"audit.{key}={gone}") == 2
        assert capsys.readouterr().err == f"unlearn: audit.{key}: {said.format(gone)}\n"
    assert not (tmp_path / "run").exists()


def test_a_file_that_the_suite_does_not_ask_for_need_not_be_there(small_policy: Path) -> None:
    policy = load_policy(
        small_policy, {"audit.suite": "quick", "audit.lookalike": "nope.csv", "audit.benign": "nope"}
    )
    suite = load_suite("quick")
    assert suite.makes("overrefusal.benign") and not suite.makes("overrefusal.lookalike")
    with pytest.raises(PolicyError, match="audit.benign"):
        known_audit(policy)
    known_audit(load_policy(small_policy, {"audit.suite": "quick", "audit.lookalike": "nope.csv"}))


def test_a_limit_of_no_attack_is_refused(
    small_policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", small_policy, "--set", "audit.limits.attack.int44=0.1") == 2
    assert run("check", small_policy, "--suite", "full", "--set", "audit.limits.attack.int44=0.1") == 2
    said = "no measurement of this name; did you mean `attack.int4`?"
    assert capsys.readouterr().err.count(said) == 2
    for known in ("attack", "attack.int4", "attack.relearn_facts"):
        assert run("check", small_policy, "--set", f"audit.limits.{known}=0.1") == 0


def test_check_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--schema") == 0
    assert yaml.safe_load(capsys.readouterr().out)["title"] == "unlearn policy"


def test_check_answers_without_torch(small_policy: Path, root: Path) -> None:
    code = (
        "import sys\n"
        "from unlearn.cli import run\n"
        f"assert run(['check', {str(small_policy)!r}]) == 0\n"
        "heavy = {'torch', 'transformers', 'datasets', 'lm_eval', 'numpy', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
