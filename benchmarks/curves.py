"""Curves over the number of edits: what `benchmarks.editing` measured at its marks, as one drawing.

    python -m benchmarks.curves ROWS.json --out curves.svg

A line per method, the mean over its seeds with its 95 % interval: the score, efficacy on all facts so far and on those
of the first mark alone, neighbourhood, growth of the weights, and divergence.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.options import guarded
from benchmarks.rows import Row
from benchmarks.tables import interval, rows_of
from unlearn.charts.figures import Line, lines
from unlearn.charts.sheet import Panel, sheet
from unlearn.charts.svg import Look, look_of
from unlearn.errors import UnlearnError

PANELS = {
    "score": "score, percent",
    "efficacy": "efficacy on all facts so far, percent",
    "oldest": "efficacy on the facts of the first mark, percent",
    "neighbourhood": "neighbourhood, percent",
    "norm_growth": "growth of the most grown weight, share",
    "kl": "divergence on held-out text, nats per token",
}


def curves(rows: Sequence[Row]) -> str:
    """The drawing, as SVG.

    Raises:
        UnlearnError: the rows are of no benchmark that has marks.
    """
    rows = [row for row in rows if "efficacy" in row]
    if not rows:
        raise UnlearnError("no row has a number of edits; name what benchmarks.editing wrote with --json")
    names = list(dict.fromkeys(_name(row) for row in rows))
    looks = [look_of(number, name) for number, name in enumerate(names)]
    found = [
        Panel(title, lines([_line(rows, key, look) for look in looks], "edits"))
        for key, title in PANELS.items()
        if any(row.get(key) is not None for row in rows)
    ]
    return sheet("Edits one after another", found, 3, looks)


def _line(rows: Sequence[Row], key: str, look: Look) -> Line:
    mine = [row for row in rows if _name(row) == look.label]
    marks = sorted({row["edits"] for row in mine})
    values = [interval([row for row in mine if row["edits"] == mark], key) for mark in marks]
    low = [None if at is None or at[1] != at[1] else at[0] - at[1] for at in values]
    high = [None if at is None or at[1] != at[1] else at[0] + at[1] for at in values]
    return Line(look, marks, [None if at is None else at[0] for at in values], low, high)


def _name(row: Row) -> str:
    return str(row.get("label") or row["method"])


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the rows of the files; returns the exit code."""
    options = argparse.ArgumentParser(prog="curves", description=(__doc__ or "").partition("\n")[0])
    options.add_argument("files", type=Path, nargs="+", help="what --json wrote")
    options.add_argument("--out", type=Path, required=True, metavar="FILE.svg")
    args = options.parse_args(argv)
    return guarded(lambda: _main(args.files, args.out))


def _main(files: Sequence[Path], out: Path) -> None:
    drawn = curves(rows_of(files))
    try:
        out.write_text(drawn, encoding="utf-8")
    except OSError as problem:
        raise UnlearnError(f"{out} cannot be written: {problem.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
