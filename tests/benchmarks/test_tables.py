"""Means and intervals of rows, worked out by hand."""

from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.rows import Row, Rows


def row(seed: int, score: float, half: float | None = None, **more: object) -> Row:
    ci95 = {} if half is None else {"score": (score - half, score + half)}
    return {
        "method": "memit",
        "seed": seed,
        "edits": 10,
        "efficacy": 50.0,
        "score": score,
        "ci95": ci95,
        **more,
    }


def test_the_interval_of_a_mean_over_seeds() -> None:
    mean, half = tables.interval([row(0, 80.0, 3.0), row(1, 90.0, 4.0)], "score") or (0, 0)
    assert mean == 85.0 and half == pytest.approx(2.5)  # sqrt(9 + 16) / 2
    mean, half = tables.interval([row(0, 80.0), row(1, 90.0), row(2, 85.0)], "score") or (0, 0)
    assert mean == 85.0 and half == pytest.approx(4.30 * 5.0 / 3**0.5)
    alone = tables.interval([row(0, 80.0)], "score")
    assert alone is not None and alone[1] != alone[1]
    assert tables.interval([row(0, 80.0)], "kl") is None


def test_a_table_has_a_line_per_method_and_number_of_edits_best_first() -> None:
    rows = [row(0, 80.0, 3.0), row(1, 90.0, 4.0), row(0, 99.0, 1.0, method="rome"), row(0, 1.0, 1.0, edits=2)]
    lines = tables.plain(rows).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["2", "memit", "1"],
        ["10", "rome", "1"],
        ["10", "memit", "2"],
    ]
    assert "85.0 ± 2.5" in lines[3] and "KL" not in lines[0]
    assert tables.markdown(rows).splitlines()[4].startswith("| 10 | `memit` | 2 | 85.0 ± 2.5 |")


def test_shares_of_unlearning_are_in_percent() -> None:
    found = {"method": "lora", "policy": "world:24", "seed": 0, "harmonic": 96.0, "leak.sampled": 0.02}
    text = tables.plain([{**found, "ci95": {"leak.sampled": (0.01, 0.04)}}])
    assert "2.0 ± 1.5" in text and "96.0" in text and "world:24" in text


def test_capability_is_the_task_that_lost_most() -> None:
    found = {"method": "lora", "policy": "world:24", "seed": 0, "harmonic": 96.0}
    found |= {"capability.sums": 0.90, "capability.order": 0.95}
    found["before"] = {"capability.sums": 0.92, "capability.order": 0.95, "leak.held_out": 1.0}
    other = {**found, "seed": 1, "capability.order": 0.91}
    lines = tables.plain([found]).splitlines()
    assert lines[0].split("  ")[-1] == "capability (points)" and lines[1].split()[-1] == "-2.0"
    mean, half = tables.interval([tables.with_capability(r) for r in (found, other)], "capability") or (0, 0)
    assert mean == pytest.approx(-0.03) and half == pytest.approx(12.71 * 0.01)
    for nothing in ({**found, "before": {}}, {**found, "capability.order": None}):
        assert "capability" not in tables.plain([nothing])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    Rows(file).add(row(0, 80.0))
    assert tables.main([str(file)]) == 0 and "| `memit` |" in capsys.readouterr().out
    assert tables.main([str(tmp_path / "none.json")]) == 1 and "no such file" in capsys.readouterr().err
    (tmp_path / "empty.json").write_text("[]")
    assert tables.main([str(tmp_path / "empty.json")]) == 1
