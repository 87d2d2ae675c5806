"""Marks, batches that add up, rows that are not measured twice, and the command line, on a pico model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import editing, metrics, runner
from benchmarks.options import settings_of
from benchmarks.records import load_counterfact
from benchmarks.rows import Rows
from tests import pico
from tests.benchmarks import cases
from unlearn.edit import settling
from unlearn.errors import UnlearnError
from unlearn.model.editable import EditableModel
from unlearn.policy import StatisticsSpec

FAST = ["method.steps=3", "method.layers=[1, 2]", "method.look_up=subject"]


def plan(folder: Path, **changes: Any) -> runner.Plan:
    given: dict[str, Any] = {
        "benchmark": "counterfact",
        "judge": metrics.counterfact,
        "records": load_counterfact(cases.facts_file(folder)).records,
        "marks": (2, 4),
        "batch": 1,
        "kept": 9,
        "phrasings": False,
        "statistics": StatisticsSpec(corpus=str(cases.corpus_file(folder)), tokens=1500),
        "fluency": 1,
        "text": tuple(pico.LINES),
        "kl_tokens": 40,
    }
    return runner.Plan(**{**given, **changes})


def test_rows_hold_everything_and_are_not_measured_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = pico.pico("gpt2"), tmp_path / "out.json"
    identity = model.identity()
    method = settings_of("alphaedit", FAST)
    runner.run(model, plan(tmp_path), method, 0, Rows(path))
    assert model.identity() == identity
    rows = json.loads(path.read_text())
    assert [(row["method"], row["seed"], row["edits"]) for row in rows] == [
        ("alphaedit", 0, 2),
        ("alphaedit", 0, 4),
    ]
    keys = {"score", "efficacy", "paraphrase", "neighbourhood", "fluency", "norm_growth", "kl", "seconds"}
    for row in rows:
        assert keys < set(row) and all(row[key] is not None for key in keys)
        assert {"ci95", "before", "efficacy_magnitude", "efficacy_accuracy", "update_norm", "settings"} < set(
            row
        )
        assert set(row["ci95"]) == {"efficacy", "paraphrase", "neighbourhood", "score", "oldest"}
        assert row["update_norm"] > 0 and row["kl"] > 0 and row["prompts"] == "edit prompt alone"
        assert row["before"]["efficacy"] is not None
    assert rows[1]["seconds"] >= rows[0]["seconds"]
    assert rows[0]["oldest"] == rows[0]["efficacy"]  # all of them are the oldest then
    calls = []
    real = runner.edit
    monkeypatch.setattr(runner, "edit", lambda *given, **more: calls.append(more) or real(*given, **more))
    runner.run(model, plan(tmp_path), method, 0, Rows(path))
    assert not calls and json.loads(path.read_text()) == rows
    # A row that was lost is measured again, and comes out the same.
    path.write_text(json.dumps(rows[:1]))
    runner.run(model, plan(tmp_path), method, 0, Rows(path))
    again = json.loads(path.read_text())
    assert [call["earlier"] is None for call in calls] == [True, False]
    assert {**again[1], "seconds": 0} == {**rows[1], "seconds": 0}
    # Other settings are another run.
    other = settings_of("alphaedit", [*FAST, "method.ridge=0.1"])
    runner.run(model, plan(tmp_path, marks=(2,)), other, 0, Rows(path))
    assert len(json.loads(path.read_text())) == 3


def test_another_meaning_of_a_default_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = pico.pico("gpt2", chat=False), tmp_path / "rows.json"
    method = settings_of("alphaedit", FAST)
    for _ in range(2):
        runner.run(model, plan(tmp_path, marks=(2,)), method, 0, Rows(path))
    assert len(json.loads(path.read_text())) == 1
    changed = {name: {**rule, "kept": 0.25} for name, rule in settling.RULES.items()}
    monkeypatch.setattr(settling, "RULES", changed)
    runner.run(model, plan(tmp_path, marks=(2,)), method, 0, Rows(path))
    assert [row["settings"]["kept"] for row in json.loads(path.read_text())] == [0.5, 0.25]


def test_a_method_without_a_weight_changes_nothing(tmp_path: Path) -> None:
    rows = Rows(None)
    runner.run(pico.pico("gpt2"), plan(tmp_path, marks=(2,), kept=0), {"name": "none"}, 0, rows)
    (row,) = rows.rows
    assert (
        row["efficacy"] == row["before"]["efficacy"] and row["kl"] == 0 == row["norm_growth"] and row["joint"]
    )


def test_rows_in_lines_and_in_a_list(tmp_path: Path) -> None:
    for name, read in (
        ("a.jsonl", lambda t: [json.loads(line) for line in t.splitlines()]),
        ("a.json", json.loads),
    ):
        rows = Rows(tmp_path / name)
        for edits in (10, 50):
            rows.add({"method": "memit", "seed": 0, "edits": edits, "score": 80.0 + edits, "run": "x"})
        assert read((tmp_path / name).read_text()) == rows.rows == Rows(tmp_path / name).rows
    assert rows.find("x", 50) == rows.rows[1] and rows.find("x", 99) is None and rows.find("y", 50) is None
    (tmp_path / "b.json").write_text('{"not": "rows"}')
    with pytest.raises(UnlearnError, match=r"b\.json"):
        Rows(tmp_path / "b.json")


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # without a chat template: the command takes it off, and the tokenizer is shared between tests
    monkeypatch.setattr(EditableModel, "load", lambda *_: pico.pico("gpt2", chat=False))
    out = tmp_path / "rows.jsonl"
    given = [
        "--model", "pico", "--facts", str(cases.facts_file(tmp_path)), "--corpus", str(cases.corpus_file(tmp_path)),
        "--corpus-tokens", "1500", "--edits", "2", "--seeds", "5", "--fluency", "0", "--json", str(out),
    ]  # fmt: skip
    for change in FAST:
        given += ["--set", change]
    assert editing.main(["counterfact", *given]) == 0
    said = capsys.readouterr()
    assert "not the official one" in said.out and "the edit prompt alone (standard)" in said.out
    assert "alphaedit" in said.out.splitlines()[-1] and "seed 5 edits 2" in said.err
    assert json.loads(out.read_text())["kl"] > 0  # text_heldout.txt lies beside the corpus
    wrong = [*given[:2], "--facts", "none.jsonl", "--methods", "memmit"]
    assert editing.main(["counterfact", *wrong]) == 2
    assert "memmit" in capsys.readouterr().err
