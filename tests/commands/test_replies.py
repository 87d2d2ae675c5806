"""`unlearn replies`: what it shows is what the report counted, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.files import THREE, pico_policy, run
from unlearn.measurements import REPLIES

SUITE = """
description: for tests
extends: quick
add: [leak.sampled, overrefusal.lookalike]
samples: 4
"""


def audited_by(place: Path, method: str) -> Path:
    """A run on facts that the pico model replies, with samples."""
    folder = place / f"by {len(method)}"
    folder.mkdir()
    (folder / "suite.yaml").write_text(SUITE)
    audit = f"audit: {{suite: suite.yaml, text: {place / 'corpus.jsonl'}}}"
    policy = folder / "policy.yaml"
    blocks = {"facts": THREE, "audit": audit, "method": f"method: {method}"}
    policy.write_text(pico_policy(place / "model", place / "corpus.jsonl", **blocks))
    assert run("apply", policy, "--out", folder / "run", "--quiet") == 3
    return folder


@pytest.fixture(scope="module")
def audited(place: Path) -> Path:
    return audited_by(place, "{name: alphaedit, steps: 2, layers: [1, 2]}")


@pytest.fixture(scope="module")
def guarded(place: Path) -> Path:
    """Of a guard, which stands before every prompt that the candidate gets."""
    return audited_by(place, '{name: guard, text: "Say nothing of it."}')


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run("replies", *arguments, "--json", "--quiet") == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("method", ["audited", "guarded"])
def test_as_many_prompts_are_shown_as_the_report_counted(
    method: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    audited: Path = request.getfixturevalue(method)
    report = json.loads((audited / "run" / "report.json").read_text())
    made = {m["name"]: m for m in report["measurements"] if m["name"] in REPLIES}
    several = [word for name in made for word in ("--of", name)]
    found = shown(capsys, audited / "run", *several)
    assert {one["measurement"] for one in found} == set(made)
    for one in found:
        m = made[one["measurement"]]
        if m["after"] is not None:
            against = m["hits"] if m["rule"] == "at most" else m["n"] - m["hits"]
            assert (one["prompts"], len(one["replies"])) == (m["n"], against), one["measurement"]
    assert next(one["reason"] for one in found if one["measurement"] == "retain.siblings")
    by_name = {one["measurement"]: one["replies"] for one in found}
    # The control: something was told before the edit, and something counts against it.
    assert made["leak.sampled"]["before"] > 0 and by_name["refusal.held_out"]
    assert {"Tell me what Stenmite is made from.", "Tell me what Mirl is made from."} <= {
        reply["asked"] for reply in by_name["refusal.held_out"]
    }


def test_of_a_run_those_are_shown_that_missed_their_limits(
    audited: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads((audited / "run" / "report.json").read_text())
    failed = {m["name"] for m in report["measurements"] if m["passed"] is False}
    assert failed - set(REPLIES) != failed
    found = shown(capsys, audited / "run")
    assert {one["measurement"] for one in found} == failed & set(REPLIES)


def test_a_patch_and_an_audit_of_it_show_the_same(
    audited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, patch = audited / "policy.yaml", audited / "run" / "patch.safetensors"
    of = ("--of", "refusal.held_out", "--of", "leak.sampled")
    first = shown(capsys, audited / "run", *of)
    assert shown(capsys, patch, "--policy", policy, *of) == first
    assert run("audit", patch, "--policy", policy, "--out", tmp_path / "audit", "--quiet") == 3
    assert shown(capsys, tmp_path / "audit", *of) == first


def test_in_words_and_nothing_is_written(audited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(os.walk(audited / "run"))
    assert run("replies", audited / "run", "--of", "refusal.held_out", "--most", "1", "--quiet") == 0
    first, asked, was, now, more = capsys.readouterr().out.splitlines()
    assert first.startswith("refusal.held_out: ") and first.endswith("prompts count against it")
    assert asked.startswith("  fact0/0  Tell me what Stenmite is made from.")
    assert was.startswith("      before  ") and now.startswith("      after   ")
    assert more.endswith("more (--most)")
    assert sorted(os.walk(audited / "run")) == before


def test_what_cannot_be_shown(audited: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("replies", audited / "run", "--of", "drift.kl") == 2
    assert "'drift.kl' is no share of replies" in capsys.readouterr().err
    assert run("replies", audited / "run", "--of", "leak.held-out") == 2
    assert "leak.held_out" in capsys.readouterr().err
    assert run("replies", audited / "run" / "patch.safetensors") == 2
    assert "give --policy" in capsys.readouterr().err
    assert run("replies", audited / "run", "--suite", "full") == 2
    assert "has the settings of its run" in capsys.readouterr().err
    assert run("replies", audited / "run", "--policy", place / "policy.yaml") == 2
    assert "is not the policy of this run" in capsys.readouterr().err


def test_text_that_the_command_line_of_a_run_held_has_to_be_given_again(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (place / "policy.yaml", "--set", "refusal=Ask somebody else.")
    assert run("apply", *given, "--out", tmp_path / "run", "--quiet") == 3
    capsys.readouterr()
    assert run("replies", tmp_path / "run", "--of", "overrefusal.benign") == 2
    assert "held text of the policy (--set), which no run keeps" in capsys.readouterr().err
    patch = tmp_path / "run" / "patch.safetensors"
    (found,) = shown(capsys, patch, "--policy", *given, "--of", "overrefusal.benign")
    assert found["prompts"] > 0


def test_a_run_that_was_changed_is_not_shown(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "report.json").write_text((copy / "report.json").read_text().replace("failed", "passed", 1))
    assert run("replies", copy) == 1
    assert "is not as its run left it" in capsys.readouterr().err


def test_replies_of_another_candidate_are_not_shown(
    audited: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "run" / "model", tmp_path / "judged")
    words = ("audit", tmp_path / "judged", "--policy", audited / "policy.yaml", "--out", tmp_path / "audit")
    assert run(*words, "--quiet") == 3
    assert shown(capsys, tmp_path / "audit", "--of", "leak.held_out")
    shutil.rmtree(tmp_path / "judged")
    assert run("replies", tmp_path / "audit") == 1
    assert "is not there" in capsys.readouterr().err
    shutil.copytree(place / "model", tmp_path / "judged")
    assert run("replies", tmp_path / "audit") == 1
    assert "its identity is another" in capsys.readouterr().err


def test_json_holds_no_more_prompts_than_asked_for(audited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, audited / "run", "--of", "refusal.held_out", "--most", "1")[0]["replies"][1:] == []
