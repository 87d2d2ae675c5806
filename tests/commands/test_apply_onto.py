"""Policies one after another with `--onto`, conflicts in `--dry-run`, and warnings, on a pico model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.files import THREE, corpus_file, model_folder, pico_policy, run
from unlearn.files import sha256_of_file
from unlearn.patch import Patch
from unlearn.runs import manifest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico model, two policies for it, and a run of the first."""
    folder = tmp_path_factory.mktemp("onto")
    model, corpus = model_folder(folder / "model"), corpus_file(folder / "corpus.jsonl")
    model_folder(folder / "other", seed=1)
    (folder / "first.yaml").write_text(pico_policy(model, corpus))
    second = pico_policy(model, corpus, facts="facts:\n  - {id: second, subject: Quibblet, relation: recipe}")
    (folder / "second.yaml").write_text(second.replace("name: small", "name: later"))
    assert run("apply", folder / "first.yaml", "--out", folder / "first", "--quiet") == 3
    return folder


def test_the_sum_of_two_policies_is_audited_against_the_unedited_model(place: Path, tmp_path: Path) -> None:
    assert (
        run("apply", place / "second.yaml", "--onto", place / "first", "--out", tmp_path / "run", "-q") == 3
    )
    first, both = (Patch.load(folder / "patch.safetensors") for folder in (place / "first", tmp_path / "run"))
    (row,) = both.header["builds_on"]
    assert (row["policy"], row["method"], row["facts"]) == ("small", "alphaedit", 1)
    assert dict(both.base) == dict(first.base) and set(both.header["values"]) == {"second"}
    recorded = manifest.read(tmp_path / "run")
    digest = sha256_of_file(place / "first" / "patch.safetensors")
    assert recorded["onto"] == {"path": str(place / "first"), "sha256": digest}
    assert run("apply", place / "second.yaml", "--out", tmp_path / "alone", "-q") == 3
    alone = Patch.load(tmp_path / "alone" / "patch.safetensors")
    for name, delta in both.factors.items():
        new = delta.dense() - first.factors[name].dense()
        # On top of the first edit the second is nearly what it is alone, and not the same.
        assert 0 < float((new - alone.factors[name].dense()).norm()) < float(new.norm())
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "conflicts, cosines inside the null space:" in log and "earlier edits at most" in log
    third = place / "first.yaml", "--onto", tmp_path / "run" / "patch.safetensors"
    assert run("apply", *third, "--out", tmp_path / "three", "-q") == 3
    names = [
        row["policy"] for row in Patch.load(tmp_path / "three" / "patch.safetensors").header["builds_on"]
    ]
    assert names == ["small", "later"]


def drawn(run_dir: Path) -> dict[str, list[list[float]]]:
    """The curves over the number of edits in a report: places and values by name."""
    drawings = json.loads((run_dir / "report.json").read_text())["drawings"]
    return {d["name"]: [d["x"], d["y"]] for d in drawings if d["kind"] == "curve"}


def test_the_report_draws_what_becomes_of_the_model_while_edits_add_up(place: Path, tmp_path: Path) -> None:
    assert drawn(place / "first") == {}  # one batch, written at once
    assert "number of edits" not in (place / "first" / "report.html").read_text()
    batch = ("--set", "method.batch=1", "--set", "method.earlier=1")
    three = pico_policy(place / "model", place / "corpus.jsonl", facts=THREE)
    (tmp_path / "three.yaml").write_text(three)
    assert run("apply", tmp_path / "three.yaml", *batch, "--out", tmp_path / "three", "-q") == 3
    found = drawn(tmp_path / "three")
    assert {name: x for name, (x, _) in found.items()} == {
        "drift.norm_growth": [0, 1, 2, 3], "drift.hidden": [0, 1, 2, 3], "edit.oldest": [1, 2, 3],
    }  # fmt: skip
    report = json.loads((tmp_path / "three" / "report.json").read_text())
    growth = next(m["after"] for m in report["measurements"] if m["name"] == "drift.norm_growth")
    assert found["drift.norm_growth"][1][-1] == pytest.approx(growth, rel=1e-6)  # as the audit measures it
    page = (tmp_path / "three" / "report.html").read_text()
    for title in ("Norm growth", "Drift of the hidden states", "Retention of the oldest edits"):
        assert f"<h3>{title} by number of edits</h3>" in page
    assert run("verify", tmp_path / "three", "--files-only") == 0

    given = ("apply", place / "second.yaml", "--onto", tmp_path / "three", "--out", tmp_path / "four", "-q")
    assert run(*given) == 3
    longer = drawn(tmp_path / "four")
    assert set(longer) == {"drift.norm_growth", "drift.hidden"}  # the first policy's prompts are not here
    for name, (x, y) in longer.items():
        assert x == [0, 1, 2, 3, 4] and y[:4] == found[name][1]


def test_what_cannot_be_built_on_is_one_sentence(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = place / "second.yaml"
    assert run("apply", policy, "--onto", tmp_path / "nothing", "--out", tmp_path / "run", "-q") == 1
    assert capsys.readouterr().err == f"unlearn: there is no patch at {tmp_path / 'nothing'}\n"
    other = ("--model", place / "other", "--onto", place / "first", "--out", tmp_path / "run", "-q")
    assert run("apply", policy, *other) == 1
    assert "this patch was made for another model" in capsys.readouterr().err
    assert run("apply", policy, *other, "--dry-run") == 1
    assert "this patch was made for another model" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    onto = ("apply", policy, "--onto", place / "first", "-q", "--dry-run")
    for method in (("--method", "lora"), ("--method", "null_space_tuning")):
        assert run(*onto, *method) == run(*onto[:-1], *method, "--out", tmp_path / "run") == 2
        dry, real = capsys.readouterr().err.splitlines()
        assert dry == real and "earlier" in dry
    assert run(*onto, "--out", place / "first") == 2
    assert "is read for it" in capsys.readouterr().err


def test_a_dry_run_shows_conflicts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("apply", place / "second.yaml", "--onto", place / "first", "--dry-run", "--json", "-q") == 0
    found = json.loads(capsys.readouterr().out)["conflicts"]
    assert found["metric"] == "null_space" and set(found["layers"]) == {
        "1",
        "2",
    }  # statistics of the run before
    assert found["layers"]["1"]["earlier"]["of"] == "second"
    assert 0 < found["layers"]["1"]["inside"]["second"] < 1
    assert run("apply", place / "second.yaml", "--dry-run", "-q") == 0
    assert "conflicts, cosines inside the null space:" in capsys.readouterr().out
    assert run("apply", place / "second.yaml", "--dry-run", "-q", "--set", "statistics.tokens=1500") == 0
    assert "no cached statistics yet" in capsys.readouterr().out
    assert run("apply", place / "second.yaml", "--dry-run", "-q", "--method", "none") == 0
    assert "conflicts" not in capsys.readouterr().out


def test_a_collapse_is_told_aloud_or_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ("--set", "method.lr=100000", "--set", "method.clamp=1000000", "--set", "method.decay=0")
    assert run("apply", place / "first.yaml", *wild, "--out", tmp_path / "run") == 3
    assert "TIMES AS LONG AS THE WEIGHT" in capsys.readouterr().err
    assert "TIMES AS LONG AS THE WEIGHT" in (tmp_path / "run" / "log.txt").read_text()
    assert (
        run("apply", place / "first.yaml", *wild, "--set", "method.largest=5", "--out", tmp_path / "no") == 1
    )
    assert "more than method.largest (5) allows; nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
