"""Runs of every kind are verified as they are: what `verify` derives is what the other commands write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.files import run


@pytest.fixture(scope="module")
def first(pico_files: Path) -> Path:
    """A run with its model, for others to build on and to judge."""
    policy = pico_files / "policy.yaml"
    assert run("apply", policy, "--out", pico_files / "first", "--save-model", "--quiet") == 3
    return pico_files / "first"


KINDS: dict[str, tuple[str, ...]] = {
    "a baseline": ("apply", "POLICY", "--method", "ft_m", "--set", "method.steps=2"),
    "no edit": ("apply", "POLICY", "--method=none"),
    "a guard whose text is hidden": (
        "apply",
        "POLICY",
        "--method",
        "guard",
        "--set",
        "method.text=Tell nobody.",
    ),
    "a hidden refusal": ("apply", "POLICY", "--set=refusal=No way.", "--set", "seed=3"),
    "judged strictly": ("apply", "POLICY", "--set", "audit.judge=strict", "--set", "audit.limits.drift.kl=9"),
    "built on another": ("apply", "POLICY", "--onto", "FIRST"),
    "an audit of a run": ("audit", "FIRST", "--policy", "POLICY"),
    "an audit of a folder": ("audit", "FIRST/model", "-p", "POLICY", "--show-text"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_run_is_verified(
    kind: str, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = str(first.parent / "policy.yaml")
    words = [word.replace("FIRST", str(first)).replace("POLICY", policy) for word in KINDS[kind]]
    assert run(*words, "--out", tmp_path / "run", "--quiet") == 3
    capsys.readouterr()
    assert run("verify", tmp_path / "run", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verified"] and not any(said["problems"].values())
    assert said["not_checked"].keys() == ({"candidate"} if words[0] == "audit" else set())
    assert {"files", "report", "policy", "numbers", "documents", "weights"} <= said["problems"].keys()
    assert bool(said["overrides"]) is any("--set" in word or "--method" in word for word in words)
    assert "No way" not in json.dumps(said) and "nobody" not in json.dumps(said)
