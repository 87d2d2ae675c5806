"""A run whose hashes all fit is verified only if its parts agree: one forgery after another, on a real run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.commands.forgeries import LEAK, NUMBERS, ON_THE_MODEL, RECORDS, looser
from tests.commands.forging import Forger, judged, small_run
from tests.files import run
from unlearn import embedded
from unlearn.audit.consistency import contradictions
from unlearn.audit.expected import unexpected
from unlearn.audit.suite import load_suite
from unlearn.model.editable import EditableModel
from unlearn.policy.file import load_policy
from unlearn.report import Measurement, Report
from unlearn.runs import manifest

pytestmark = pytest.mark.skipif(
    not (embedded.path() / "model.safetensors").is_file(),
    reason="the embedded model has not been trained here",
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody has touched."""
    return small_run(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def forger(sound: Path, tmp_path: Path) -> Forger:
    """A copy of it, taken apart."""
    return Forger(Path(shutil.copytree(sound, tmp_path / "run")))


@pytest.fixture(scope="module")
def model() -> EditableModel:
    return EditableModel.load("embedded")


def verified(run_dir: Path, capsys: pytest.CaptureFixture[str], *options: str | Path) -> list[str]:
    """What `verify` names; the exit code agrees with it."""
    capsys.readouterr()
    code = run("verify", run_dir, "--json", *options)
    said = json.loads(capsys.readouterr().out)
    found = [f"{key}: {line}" for key, lines in said["problems"].items() for line in lines]
    assert code == (3 if found else 0) and said["verified"] is not bool(found)
    return found


def test_a_sound_run_is_verified_as_it_is_and_written_anew(
    sound: Path, forger: Forger, capsys: pytest.CaptureFixture[str]
) -> None:
    assert forger.row(LEAK)["passed"] is False and forger.row("leak.held_out")["passed"] is True
    assert verified(sound, capsys) == []
    assert run("verify", sound, "--files-only") == 0
    assert "not checked: weights: --files-only" in capsys.readouterr().out
    forger.seal()  # which drops the page's texts, and changes nothing else
    assert verified(forger.run, capsys, "--files-only") == []


@pytest.mark.parametrize("what", [*NUMBERS, *RECORDS])
def test_a_forgery_whose_hashes_all_fit_is_named(
    forger: Forger, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    forge, sentence = {**NUMBERS, **RECORDS}[what]
    forge(forger)
    forger.seal()
    found = verified(forger.run, capsys, "--files-only")
    assert re.search(sentence, " ".join(found)), found
    assert not any(line.startswith("files") for line in found), found


@pytest.mark.parametrize("what", ON_THE_MODEL)
def test_what_only_shows_on_the_model_is_named(
    forger: Forger,
    model: EditableModel,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    forge, sentence = ON_THE_MODEL[what]
    forge(forger)
    forger.seal()
    assert verified(forger.run, capsys, "--files-only") == []
    monkeypatch.setattr("unlearn.commands.verify.load_model", lambda *_: model)  # the same, loaded once
    found = verified(forger.run, capsys)
    assert re.search(sentence, " ".join(found)) and all(line.startswith("weights") for line in found), found


@pytest.mark.parametrize(
    "name", [LEAK, "leak.choice", "attack.prefill", "capability.unlearn_kept_facts", "drift.norm"]
)
def test_no_number_is_too_odd_to_be_judged(forger: Forger, sound: Path, name: str) -> None:
    policy, row = load_policy(sound.parent / "policy.yaml"), dict(forger.row(name))
    suite = load_suite(policy.audit.suite)
    odd: list[Any] = [None, -1, 0, 0.5, 3, 10**9, 10**15, 1e300, (2.0, -1.0), {}]
    named = 0
    for key, value in ((key, value) for key in row for value in odd):
        try:
            made = Report.of([Measurement.model_validate(judged({**row, key: value}))])
        except (ValidationError, AssertionError):
            continue
        named += bool([*contradictions(made), *unexpected(made, policy, suite, True)])
    assert named > 20


@pytest.mark.parametrize("change", ["passed", "verdict"])
def test_a_mark_that_the_numbers_contradict_is_named(
    forger: Forger, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    forger.report["verdict"] = "passed"
    if change == "passed":
        for row in forger.report["measurements"]:
            row["passed"] = True
    forger.seal(anew=False)
    (found,) = verified(forger.run, capsys, "--files-only")
    assert "which its own numbers contradict" in found or "does not follow from the measurements" in found


@pytest.mark.parametrize("name", ["report.html", "report.md", "junit.xml", "model-card.md", "log.txt"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_documents_that_show_something_else_or_are_gone_are_named(
    forger: Forger, name: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = forger.run / name
    if how == "gone":
        file.unlink()
    else:
        text = file.read_text(encoding="utf-8")
        forged = re.sub(r"failed|FAILED|Failed|failures=\"\d+\"", "passed", text)
        assert forged != text
        file.write_text(forged, encoding="utf-8")
    forger.hash()
    said = "is not listed in manifest.json" if how == "gone" else "does not show what is in report.json"
    assert verified(forger.run, capsys, "--files-only") == [f"documents: {name} {said}"]


def test_the_manifest_in_the_report_is_the_manifest(
    forger: Forger, capsys: pytest.CaptureFixture[str]
) -> None:
    forger.manifest["hardware"]["device"] = "an abacus"
    forger.hash()
    found = verified(forger.run, capsys, "--files-only")
    assert "report: report.json was written for another manifest" in found


def test_without_its_policy_the_limits_are_said_to_be_unchecked(
    forger: Forger, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forger.manifest["policy"]["file"] = str(tmp_path / "moved.yaml")
    forger.row(LEAK)["limit"] = 0.9
    forger.seal()
    assert run("verify", forger.run, "--files-only") == 0
    said = capsys.readouterr().out
    assert (
        "not checked: policy: " in said and "give it with --policy" in said and "not checked: limits" in said
    )
    found = verified(forger.run, capsys, "--files-only", "--policy", sound.parent / "policy.yaml")
    assert found == [f"numbers: {LEAK}: its limit is 0.9, and the policy's 0.1"]
    (wrong,) = verified(forger.run, capsys, "--files-only", "--policy", sound.parent / "suite.yaml")
    assert wrong.endswith("is not the policy of this run")


def test_limits_from_the_command_line_are_the_policys_and_are_said(
    forger: Forger, sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, value = f"audit.limits.{LEAK}", "0.5"
    policy = load_policy(sound.parent / "policy.yaml", {key: value})
    forger.manifest["argv"] += ["--set", f"{key}={value}"]
    forger.manifest["settings"] = manifest.settings(policy)
    forger.manifest["policy"]["effective_sha256"] = manifest.effective_sha256(policy)
    forger.row(LEAK)["limit"] = 0.5
    forger.seal()
    assert run("verify", forger.run, "--files-only") == 0
    assert f"--set {key}={value}" in capsys.readouterr().out


def test_a_run_without_its_report_is_no_trace(forger: Forger, capsys: pytest.CaptureFixture[str]) -> None:
    for file in forger.run.iterdir():
        if file.name not in ("patch.safetensors", "manifest.json"):
            file.unlink()
    forger.manifest.pop("times")
    forger.hash()
    assert any(line.startswith("report") for line in verified(forger.run, capsys, "--files-only"))
    capsys.readouterr()
    assert run("export", forger.run, forger.run.parent / "exported") == 1
    assert "report.json is not among its files" in capsys.readouterr().err


def test_limits_are_the_policy_s_wherever_its_suite_lies(
    forger: Forger, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (policy := tmp_path / "policy.yaml").write_bytes((sound.parent / "policy.yaml").read_bytes())
    looser(forger)
    forger.seal()
    found = verified(forger.run, capsys, "--files-only", "--policy", str(policy))
    assert any("its limit is" in line for line in found), found
    # Where a run is honest, that its suite was not there is said, and nothing else.
    capsys.readouterr()
    assert run("verify", sound, "--files-only", "--policy", policy) == 0
    assert "not checked: suite: there is no audit suite file" in capsys.readouterr().out


def test_a_policy_that_is_not_there_is_no_forgery(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", sound, "--files-only", "--policy", sound.parent / "nowhere.yaml") == 2
    assert "does not exist" in capsys.readouterr().err
