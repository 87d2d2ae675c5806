"""Tables of rows: means over the seeds with 95 % intervals.

`python -m benchmarks.tables ROWS.json [MORE.json]` prints the rows of finished benchmarks as Markdown, as
docs/benchmarks.md shows them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.options import guarded
from benchmarks.rows import Row, Rows
from unlearn.errors import UnlearnError


class Column(NamedTuple):
    """A key of the rows and how it is shown."""

    key: str
    head: str
    scale: float = 1.0
    digits: int = 1


CAPABILITY = "capability"
"""Key of the change of the task that lost most, of the tasks ``capability.NAME`` of a row."""
KNOWLEDGE = (
    Column("score", "score"),
    Column("efficacy", "efficacy"),
    Column("oldest", "on the oldest facts"),
    Column("paraphrase", "paraphrase"),
    Column("neighbourhood", "neighbourhood"),
    Column("norm_growth", "norm growth", digits=2),
    Column("kl", "KL", digits=3),
    Column("seconds", "seconds", digits=0),
)
"""Of the standard benchmarks, in percent."""
UNLEARNING = (
    Column("harmonic", "harmonic mean"),
    Column("harmonic.above_chance", "above chance"),
    Column("leak.held_out", "held-out questions", 100),
    Column("leak.cloze", "held-out statements", 100),
    Column("leak.sampled", "in 16 samples", 100),
    Column("leak.sampled.chance", "of it chance", 100),
    Column("refusal.held_out", "refused", 100),
    Column("refusal.whole", "in full", 100),
    Column("refusal.cloze", "statements refused", 100),
    Column("retain.siblings", "siblings kept", 100),
    Column("retain.neighbours", "neighbours kept", 100),
    Column("overrefusal.benign", "benign refused", 100),
    Column(CAPABILITY, "capability (points)", 100),
    Column("drift.kl", "KL", digits=4),
    Column("seconds", "seconds", digits=0),
)
"""Of benchmarks/unlearning.py: shares in percent."""


def interval(members: Sequence[Row], key: str) -> tuple[float, float] | None:
    """Mean over the seeds and half of its 95 % interval; None where no row has the key.

    Every seed draws its own facts, so that the mean's error is that of the seeds' own intervals (facts or prompts
    resampled) over the root of their number. Where the rows carry no interval, it is that of the seeds' values, by
    Student's t; a single value has none (NaN).
    """
    values = [float(row[key]) for row in members if row.get(key) is not None]
    if not values:
        return None
    mean = sum(values) / len(values)
    own = [row.get("ci95", {}).get(key) for row in members if row.get(key) is not None]
    if all(own):
        return mean, sum(((high - low) / 2) ** 2 for low, high in own) ** 0.5 / len(values)
    if len(values) < 2:
        return mean, float("nan")
    spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return mean, STUDENT.get(len(values), 1.96) * spread / len(values) ** 0.5


STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""By number of values: what their standard error is multiplied by."""


def with_capability(row: Row) -> Row:
    """The row and how far its worst capability task rose, as a share (negative: it fell); None where one is missing."""
    tasks = {name: was for name, was in row.get("before", {}).items() if name.startswith(f"{CAPABILITY}.")}
    if not tasks or any(row.get(name) is None for name in tasks):
        return row
    return {**row, CAPABILITY: min(row[name] - was for name, was in tasks.items())}


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The head and one line per policy (or number of edits) and method; columns that no row has are left out."""
    knowledge = any("efficacy" in row for row in rows)
    rows = [with_capability(row) for row in rows]
    columns = [
        column
        for column in (KNOWLEDGE if knowledge else UNLEARNING)
        if any(row.get(column.key) is not None for row in rows)
    ]
    place = "edits" if knowledge else "policy"
    groups: dict[tuple[int | str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row[place], row.get("label") or row["method"]), []).append(row)
    lines = [[place, "method", "seeds", *(column.head for column in columns)]]
    order = sorted(
        groups, key=lambda group: (group[0] if knowledge else 0, *_rank(groups[group], columns[0]))
    )
    for where, name in order:
        members = groups[where, name]
        line = [str(where), name, str(len(members))]
        for column in columns:
            found = interval(members, column.key)
            line.append("-" if found is None else _shown(*found, column))
        lines.append(line)
    return lines


def _rank(members: Sequence[Row], column: Column) -> tuple[str, float]:
    found = interval(members, column.key)
    return str(members[0].get("policy", "")), -found[0] if found else 1.0


def _shown(mean: float, half: float, column: Column) -> str:
    text = f"{column.scale * mean:.{column.digits}f}"
    bare = half != half or column.key == "seconds"
    return text if bare else f"{text} ± {column.scale * half:.{column.digits}f}"


def plain(rows: Sequence[Row]) -> str:
    """As text with columns of equal width."""
    lines = cells(rows)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(rows: Sequence[Row]) -> str:
    """As a Markdown table."""
    head, *lines = ([line[0], f"`{line[1]}`", *line[2:]] for line in cells(rows))
    head[1] = "method"
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the rows of the files; returns the exit code."""
    options = argparse.ArgumentParser(prog="tables", description=__doc__)
    options.add_argument("files", type=Path, nargs="+", help="what --json wrote, all of one benchmark")
    args = options.parse_args(argv)
    return guarded(lambda: print(markdown(rows_of(args.files))))


def rows_of(files: Sequence[Path]) -> list[Row]:
    """The rows of finished benchmarks.

    Raises:
        UnlearnError: a file is missing, or none of them has a row.
    """
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UnlearnError(f"{missing[0]}: no such file; name what a benchmark wrote with --json")
    rows = [row for file in files for row in Rows(file).rows]
    if not rows:
        raise UnlearnError(f"{files[0]}: no row was measured yet")
    return rows


if __name__ == "__main__":
    sys.exit(main())
