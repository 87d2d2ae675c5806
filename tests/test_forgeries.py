"""A run whose hashes all fit is verified only if its parts agree: one forgery after another, on a real run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.files import run
from tests.forging import Forger, judged, small_run
from unlearn import embedded, manifest
from unlearn.algebra.low_rank import LowRank
from unlearn.audit.consistency import contradictions
from unlearn.audit.expected import unexpected
from unlearn.audit.suite import load_suite
from unlearn.model.editable import EditableModel
from unlearn.policy_file import load_policy
from unlearn.report import Measurement, Report

pytestmark = pytest.mark.skipif(
    not (embedded.path() / "model.safetensors").is_file(),
    reason="the embedded model has not been trained here",
)
LEAK = "leak.cloze"  # fails its limit in this run
Forgery = Callable[[Forger], Any]


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
    assert "not checked" not in capsys.readouterr().out
    forger.seal()  # which drops the page's texts, and changes nothing else
    assert verified(forger.run, capsys, "--files-only") == []


def every(forger: Forger, **changes: Any) -> None:
    for row in forger.report["measurements"]:
        row |= {key: value for key, value in changes.items() if row[key] is not None}


def unknown(forger: Forger) -> None:
    for fact in forger.report["facts"]:
        fact["known"] = False
    forger.manifest["facts"]["known"] = 0
    at = next(i for i, item in enumerate(forger.report["not_tested"]) if "(" not in item)
    forger.report["not_tested"].insert(at, "2 of 2 facts, which the unedited model does not know")


def fact_gone(forger: Forger) -> None:
    forger.report["facts"].pop()
    forger.manifest["facts"] = {"total": 1, "known": 1}


def looser(forger: Forger) -> None:
    forger.manifest["settings"]["audit"]["limits"][LEAK] = 0.5
    forger.row(LEAK)["limit"] = 0.5


def shorter(forger: Forger, also_header: bool) -> None:
    for name in ("drift.norm", "drift.norm_growth"):
        row = forger.row(name)
        row["by_weight"] = {key: value / 10 for key, value in row["by_weight"].items()}
        row["after"] /= 10
    if also_header and forger.patch is not None:
        weights = {
            name: {**row, "relative_norm": row["relative_norm"] / 10}
            for name, row in forger.patch.header["weights"].items()
        }
        forger.patch = replace(forger.patch, header={**forger.patch.header, "weights": weights})


def header(forger: Forger, **changes: Any) -> None:
    assert forger.patch is not None
    forger.patch = replace(forger.patch, header={**forger.patch.header, **changes})


def other_factors(forger: Forger) -> None:
    assert forger.patch is not None
    torch.manual_seed(0)
    factors = {n: LowRank(torch.randn_like(f.left), f.right) for n, f in forger.patch.factors.items()}
    forger.patch = replace(forger.patch, factors=factors)


def control(forger: Forger, high: float) -> None:
    row = forger.row("leak.choice")
    row |= {"control_ci95": (row["control_ci95"][0], high), "limit": high}


def other_row(forger: Forger) -> None:
    forger.report["measurements"].append(dict(forger.row("leak.direct")))


def paired_again(forger: Forger) -> None:
    forger.row("capability.unlearn_kept_facts")["change_ci95"] = (-0.01, 0.01)


NUMBERS: dict[str, tuple[Forgery, str]] = {
    "a limit is dropped": (lambda f: f.row(LEAK).update(limit=None), "its limit is none, and the policy's 0.1"),
    "a limit is loosened": (lambda f: f.row(LEAK).update(limit=0.5), f"{LEAK}: its limit is 0.5"),
    "a rule is flipped": (lambda f: f.row(LEAK).update(rule="at least"), "the rule of its limit is 'at most'"),
    "a unit is changed": (lambda f: f.row("drift.kl").update(unit="ratio"), "it is counted in 'nats/token'"),
    "a share is lowered": (lambda f: f.row(LEAK).update(after=0.0), "0 after the edit is not 1 of 6"),
    "a share and its hits": (lambda f: f.row(LEAK).update(after=0.0, hits=0), "after the edit is not that of 0 of 6"),
    "a share, its hits and interval": (lambda f: f.count(LEAK, 0), "its facts' rows add up to 6 before and 1 after"),
    "a share of more items": (lambda f: f.count(LEAK, 1, 60), "no pairing of 6 and 1 of 60|facts' rows"),
    "hits are left out": (lambda f: f.row(LEAK).update(hits=None, after=0.0), "a share without the counts behind it"),
    "a share before the edit": (lambda f: f.row("refusal.direct").update(before=0.5), "0.5 before the edit is not 0"),
    "what is certain before": (
        lambda f: f.row("retain.siblings").update(before=0.9, before_hits=9),
        "before the edit it is 1 by the choice of its prompts",
    ),
    "a p-value": (lambda f: f.row(LEAK).update(p_value=0.9), "has the p-value 0.9"),
    "an interval of a change": (paired_again, "no pairing of 8 and 8 of 8 items has this interval"),
    "a part": (lambda f: f.row(LEAK)["parts"]["recipe"].update(after=0), "its parts do not add up"),
    "a row of a fact": (
        lambda f: [fact["counts"][LEAK].update(after=0) for fact in f.report["facts"]],
        "its facts' rows add up to 6 before and 0 after",
    ),
    "a fact is gone": (fact_gone, r"its facts are not the policy's \(1 for 2; kosdine-recipe is gone\)"),
    "facts are called unknown": (unknown, "glipvex-recipe is called unknown, and the unedited model tells it"),
    "facts are unknown in one place": (
        lambda f: f.report["facts"][0].update(known=False),
        "the facts in manifest.json are not those of report.json",
    ),
    "a measurement is gone": (
        lambda f: f.report["measurements"].remove(f.row(LEAK)),
        f"{LEAK} is not there: the suite suite makes it",
    ),
    "an attack is gone": (
        lambda f: f.report["measurements"].remove(f.row("attack.prefix")),
        "attack.prefix is not there",
    ),
    "a limited task is gone": (
        lambda f: f.report["measurements"].remove(f.row("capability.unlearn_kept_facts")),
        "capability.unlearn_kept_facts is not there: the policy names the task",
    ),
    "a measurement is there twice": (other_row, "the measurement leak.direct is there 2 times"),
    "a measurement of no kind": (lambda f: f.row(LEAK).update(name="leaks.cloze"), "'leaks.cloze' is not a"),
    "a definition": (lambda f: f.row(LEAK).update(definition="Fine."), "its definition is another one"),
    "judged otherwise": (lambda f: every(f, judged="strict"), "by 'strict', and the policy says 'point'"),
    "nothing was left out": (lambda f: f.report.update(not_tested=[]), "what it lists as not tested is not"),
    "the control is gone": (lambda f: every(f, control=None, control_ci95=None), "leak.direct: the control is gone"),
    "chance is raised": (lambda f: control(f, 0.99), "the interval of the control is not that of a share"),
    "text drifts less": (lambda f: f.row("drift.kl").update(after=1e-9), "lies outside its interval"),
    "states drift less": (lambda f: f.row("drift.hidden").update(after=1e-9), "its definition does not name 0.0000"),
    "the worst weight": (lambda f: f.row("drift.norm").update(after=0.1), "0.1 is not the worst of its weights"),
    "a weight is left out": (
        lambda f: f.row("drift.norm")["by_weight"].pop("model.layers.4.mlp.down_proj.weight"),
        "drift.norm and drift.norm_growth are about different weights",
    ),
}  # fmt: skip
"""Numbers: what is forged, and the sentence that names it; no model is needed for any."""

RECORDS: dict[str, tuple[Forgery, str]] = {
    "the suite is renamed": (
        lambda f: f.manifest["settings"]["audit"].update(suite="full"),
        "settings.audit.suite in manifest.json is not the policy's",
    ),
    "limits are loosened in both": (looser, "settings.audit.limits in manifest.json is not the policy's"),
    "the effective policy": (
        lambda f: f.manifest["policy"].update(effective_sha256="00" * 32),
        "policy.effective_sha256 in manifest.json is not that",
    ),
    "the policy's name": (
        lambda f: f.manifest["policy"].update(name="other"),
        "gives the policy another name",
    ),
    "the method's settings": (
        lambda f: f.manifest["settings"]["method"].update(steps=99),
        "settings.method.steps in manifest.json.*other settings of the method",
    ),
    "the seed": (lambda f: f.manifest["settings"].update(seed=5), "its header names another .* seed"),
    "the command line": (
        lambda f: f.manifest.update(argv=["unlearn"]),
        "it is no command line of apply or audit",
    ),
    "a search that nobody asked for": (
        lambda f: f.manifest.update(tuning={"trials": 3}),
        "tells of a search that its command line did not ask for",
    ),
    "a method of no kind": (
        lambda f: f.manifest["settings"].update(method="memit"),
        "other settings of the method",
    ),
    "weights of another model": (
        lambda f: f.manifest["base"]["weights"].update({"model.layers.2.mlp.down_proj.weight": "00" * 32}),
        "it was made for other weights than manifest.json names",
    ),
    "a manifest without its model": (
        lambda f: f.manifest["base"].pop("identity"),
        "`base.identity` is missing",
    ),
    "a patch of nothing": (
        lambda f: setattr(f, "patch", f.scaled(0.0)),
        "are not those that its header describes",
    ),
    "a patch of another seed": (lambda f: header(f, seed=7), "its header names another model, policy, seed"),
    "a patch of other facts": (
        lambda f: header(f, values={"first": {}}),
        "about other facts than the policy",
    ),
    "a patch without its sizes": (lambda f: header(f, weights={}), "its header is about other weights"),
    "the patch is gone": (lambda f: setattr(f, "patch", None), "names neither a patch nor a candidate"),
    "an update is called shorter": (
        lambda f: shorter(f, also_header=False),
        "drift.norm in report.json is not what its header says",
    ),
}
"""What the numbers are about: the manifest and the patch; no model is needed for any."""

ON_THE_MODEL: dict[str, tuple[Forgery, str]] = {
    "an update is called shorter everywhere": (
        lambda f: shorter(f, also_header=True),
        r"drift.norm in report.json is 0.17\d+, and the patch gives 1.7",
    ),
    "a weaker patch": (lambda f: setattr(f, "patch", f.scaled(0.1)), "drift.norm in report.json is 1.7"),
    "another patch": (other_factors, "drift.norm in report.json is 1.7"),
    "another model": (
        lambda f: f.manifest["base"].update(identity="00" * 32),
        "base.identity in manifest.json is not that of embedded",
    ),
}
"""What only shows on the model."""


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
    "name", [LEAK, "leak.choice", "attack.prefix", "capability.unlearn_kept_facts", "drift.norm"]
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
