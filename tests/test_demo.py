"""The whole path on the embedded model, which really knows its facts: known before, gone after, the rest in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.files import run
from unlearn.runs import manifest
from unlearn.shipped import shipped

pytestmark = pytest.mark.slow


def demo(folder: Path, facts: int, **audit: Any) -> Path:
    """The demo policy with fewer facts and a smaller audit."""
    data = yaml.safe_load((shipped("policies") / "demo.yaml").read_text())
    data["facts"] = data["facts"][:facts]
    data["keep"] = {**data["keep"], "look_alikes": 40}
    data["audit"] = {**data["audit"], "suite": "quick", "tasks": ["unlearn_kept_facts"], **audit}
    data["audit"]["limits"] = {**data["audit"]["limits"], **audit.get("limits", {})}
    for name in (
        "toxicity",
        "toxicity.demo.share",
        "overrefusal.lookalike",
    ):  # not in the quick suite: a limit without a measurement fails
        data["audit"]["limits"].pop(name, None)
    path = folder / "demo.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a demo of six facts."""
    folder = tmp_path_factory.mktemp("demo")
    code = run("apply", demo(folder, 6), "--out", folder / "run", "--save-model", "--quiet")
    (folder / "code").write_text(str(code))
    return folder


@pytest.fixture(scope="module")
def report(place: Path) -> dict[str, Any]:
    return json.loads((place / "run" / "report.json").read_text())


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {measurement["name"]: measurement for measurement in report["measurements"]}


def test_the_facts_were_known_before(report: dict[str, Any]) -> None:
    assert report["manifest"]["facts"] == {"total": 6, "known": 6}
    found = by_name(report)
    assert found["leak.direct"]["before"] >= 0.95
    assert found["leak.held_out"]["before"] >= 0.9
    assert found["refusal.held_out"]["before"] <= 0.05


def test_and_are_gone_after_while_the_rest_stays(place: Path, report: dict[str, Any]) -> None:
    failed = {name: m["after"] for name, m in by_name(report).items() if m["passed"] is False}
    assert failed == {}
    assert (report["verdict"], (place / "code").read_text()) == ("passed", "0")


def test_the_saved_model_is_judged_like_the_patch(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", place / "run" / "model", "--policy", place / "demo.yaml", "--json") == 0
    found = by_name(json.loads(capsys.readouterr().out))
    for name, measurement in by_name(json.loads((place / "run" / "report.json").read_text())).items():
        assert found[name]["after"] == pytest.approx(measurement["after"], rel=1e-3), name


def test_the_unedited_model_fails_its_own_audit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from unlearn import embedded

    assert run("audit", embedded.path(), "--policy", place / "demo.yaml", "--json") == 3
    found = by_name(json.loads(capsys.readouterr().out))
    assert found["leak.direct"]["passed"] is False
    assert found["leak.direct"]["after"] == found["leak.direct"]["before"]
    assert found["drift.kl"]["after"] == pytest.approx(0, abs=1e-6)
    assert found["retain.siblings"]["after"] == 1


def test_an_impossible_limit_exits_3(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = demo(tmp_path, 6, limits={"drift.norm": 0.0})
    code = run("audit", place / "run" / "patch.safetensors", "--policy", policy)
    assert code == 3
    out = capsys.readouterr().out
    assert out.startswith("FAILED")
    assert "Failed limit: drift.norm." in " ".join(out.split())


def test_the_run_verifies_and_holds_no_text(place: Path) -> None:
    assert run("verify", place / "run", "--policy", place / "demo.yaml") == 0
    policy = yaml.safe_load((place / "demo.yaml").read_text())
    names = [fact["subject"].encode() for fact in policy["facts"]]
    for name in ("log.txt", "manifest.json", "report.json", "report.html"):
        raw = (place / "run" / name).read_bytes()
        assert not [subject for subject in names if subject in raw], name
    assert manifest.read(place / "run")["settings"]["facts"] == 6
