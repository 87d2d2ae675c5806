"""`unlearn audit`: a run, a patch and a folder are judged alike, and what is none is said."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from tests.commands.test_commands import FILES
from tests.files import run
from unlearn.edit.requests import resolve as resolving
from unlearn.runs import manifest


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


def test_a_patch_beside_a_model_is_not_judged_in_its_place(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "model", tmp_path / "model")
    shutil.copy(place / "run" / "patch.safetensors", tmp_path / "model")
    assert run("audit", tmp_path / "model", "--policy", place / "policy.yaml") == 1
    assert "holds a patch.safetensors beside something else" in capsys.readouterr().err
    # Nor with the manifest of a run of one's own.
    folder = tmp_path / "model"
    made = {k: v for k, v in manifest.read(place / "run").items() if k != "files"}
    manifest.write(folder, made)
    assert run("audit", folder, "--policy", place / "policy.yaml") == 1
    (folder / "patch.safetensors").unlink()
    (folder / "manifest.json").unlink()
    assert run("audit", folder, "--policy", place / "policy.yaml", "--quiet") == 3


def test_a_folder_that_is_not_there_is_not_looked_for_on_a_hub(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("./nowhere", "nowhere/at/all", str(place / "nowhere")):
        assert run("audit", name, "--policy", place / "policy.yaml") == 1
        assert f"there is no folder {name}" in capsys.readouterr().err


def test_a_candidate_was_made_by_no_method(place: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    text = (place / "policy.yaml").read_text()
    policy.write_text("\n".join(line for line in text.splitlines() if not line.startswith("method:")) + "\n")
    run(
        "audit", place / "run" / "patch.safetensors", "--policy", policy, "--out", tmp_path / "run", "--quiet"
    )
    assert "chosen by auto" not in (tmp_path / "run" / "report.md").read_text()


def test_weights_without_a_tokenizer_are_asked_with_the_policy_s(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(place / "run" / "model" / name, folder)
    words = ("--policy", place / "policy.yaml", "--tokenizer", place / "model", "--quiet")
    assert run("audit", folder, *words) == 3
