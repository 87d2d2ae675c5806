"""Curves over the number of edits: a line per method, at its marks, with intervals; by the real command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import curves
from benchmarks.rows import Row


def row(method: str, edits: int, oldest: float, **more: float) -> Row:
    ci95 = {"oldest": (oldest - 2, oldest + 2)}
    return {
        "method": method,
        "seed": 0,
        "edits": edits,
        "efficacy": 90.0,
        "oldest": oldest,
        "ci95": ci95,
        **more,
    }


ROWS = [
    row("memit", 10, 99.0),
    row("memit", 50, 70.0),
    row("rome", 10, 80.0, kl=0.1),
    row("rome", 50, 20.0, kl=0.2),
]


def test_every_method_has_a_line_with_its_interval_in_every_panel_that_was_measured(tmp_path: Path) -> None:
    file, out = tmp_path / "rows.json", tmp_path / "curves.svg"
    file.write_text(json.dumps(ROWS), encoding="utf-8")
    assert curves.main([str(file), "--out", str(out)]) == 0
    drawn = out.read_text(encoding="utf-8")
    assert all(word in drawn for word in ("memit", "rome", curves.PANELS["oldest"], curves.PANELS["kl"]))
    assert curves.PANELS["neighbourhood"] not in drawn  # nobody measured it
    assert drawn.count("<polyline") == 5  # two in two panels, and one divergence
    assert len(re.findall(r'class="range[^"]*"', drawn)) == 2  # of the oldest facts alone
    steep = curves.curves([row("memit", 10, 99.0), row("memit", 50, 99.0)])
    assert steep != curves.curves([row("memit", 10, 99.0), row("memit", 50, 70.0)])


def test_other_rows_and_files_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.json"
    cases = [
        ([{"method": "lora", "policy": "world:24"}], "no row has a number of edits"),
        (ROWS, "cannot be"),
    ]
    for rows, sentence in cases:
        file.write_text(json.dumps(rows), encoding="utf-8")
        assert curves.main([str(file), "--out", str(tmp_path / "none" / "curves.svg")]) != 0
        assert sentence in capsys.readouterr().err
