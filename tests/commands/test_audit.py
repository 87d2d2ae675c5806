"""`unlearn audit`: a run, a patch and a folder are judged alike, and what is none is said."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from tests.commands.test_commands import FILES
from tests.files import run
from unlearn.edit.requests import resolve as resolving


def test_a_run_a_patch_and_a_folder_are_judged_alike(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for name in ("run", "run/patch.safetensors", "run/model"):
        assert run("audit", place / name, "--policy", place / "policy.yaml", "--json") == 3
        out = json.loads(capsys.readouterr().out)
        said[name] = {
            m["name"]: (m["before"], m["after"]) for m in out["measurements"] if m["name"] != "drift.norm"
        }
    first = said["run"]
    assert first == said["run/patch.safetensors"]
    assert first.keys() == said["run/model"].keys()
    for name, values in first.items():
        for mine, other in zip(values, said["run/model"][name], strict=True):
            # A folder holds the sum, rounded once; a patch its two factors.
            assert (mine is None) == (other is None) and other == (mine and pytest.approx(mine, rel=1e-4)), (
                name
            )


def test_an_audit_writes_a_run_directory_when_asked(place: Path, tmp_path: Path) -> None:
    assert run("audit", place / "run", "-p", place / "policy.yaml", "--out", tmp_path / "run") == 3
    assert sorted(os.listdir(tmp_path / "run")) == [name for name in FILES if name != "patch.safetensors"]
    assert run("verify", tmp_path / "run") == 0


def test_what_an_audit_without_a_log_warns_of_is_told_but_under_quiet(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    resolve = resolving.resolve

    def warning(*given: object) -> object:
        logging.getLogger("unlearn").warning("mind the %s", "gap")
        return resolve(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(resolving, "resolve", warning)
    audit = ("audit", place / "run", "-p", place / "policy.yaml")
    assert run(*audit) == 3
    assert capsys.readouterr().err.startswith("unlearn: warning: mind the gap\n")
    for silent in ("--quiet", "--json"):
        assert run(*audit, silent) == 3
        assert capsys.readouterr().err == ""
    assert run(*audit, "--out", tmp_path / "run") == 3
    assert capsys.readouterr().err == ""
    assert "WARNING unlearn: mind the gap" in (tmp_path / "run" / "log.txt").read_text()


def test_an_audit_needs_a_policy_and_the_right_one(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("audit", place / "run") == 2
    changed = tmp_path / "policy.yaml"
    changed.write_text((place / "policy.yaml").read_text() + "seed: 4\n")
    assert run("audit", place / "run", "--policy", changed) == 2
    assert "is not the policy that this run was made with" in capsys.readouterr().err


def test_a_candidate_that_is_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", "nowhere/at-all", "--policy", place / "policy.yaml") == 1
    assert capsys.readouterr().err.startswith("unlearn: cannot load the model 'nowhere/at-all'")
