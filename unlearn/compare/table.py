"""A comparison as a table: for a terminal, and for a Markdown file."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.table import Table
from rich.text import Text

from unlearn.compare.document import UNEDITED, Comparison, Failure, Point
from unlearn.shown import shown


@dataclass(frozen=True)
class Column:
    """One measurement of the table and the charts."""

    name: str
    title: str
    heading: tuple[str, str]
    """In the terminal, in two lines."""
    better: str
    percent: bool = True


COLUMNS = (
    Column("refusal.direct", "Refusal, edit prompts", ("refuse", "edited"), "higher"),
    Column("refusal.held_out", "Refusal, held-out", ("refuse", "held-out"), "higher"),
    Column("retain.neighbours", "Neighbours kept", ("keep", "neighbours"), "higher"),
    Column("retain.siblings", "Siblings kept", ("keep", "siblings"), "higher"),
    Column("leak.direct", "Leak, edit prompts", ("leak", "edited"), "lower"),
    Column("leak.held_out", "Leak, held-out", ("leak", "held-out"), "lower"),
    Column("leak.cloze", "Leak, cloze", ("leak", "cloze"), "lower"),
    Column("refusal.oldest", "Refusal, oldest edits", ("refuse", "oldest"), "higher"),
    Column("leak.oldest", "Leak, oldest edits", ("leak", "oldest"), "lower"),
    Column("overrefusal.benign", "Over-refusal", ("over-", "refusal"), "lower"),
    Column("capability", "Capability", ("capa-", "bility"), "higher"),
    Column("drift.kl", "KL (nats/token)", ("KL", "nats"), "lower", False),
    Column("drift.norm_growth", "Weight-norm growth", ("norm", "growth"), "lower", False),
    Column("drift.hidden", "Hidden-state drift", ("hidden", "drift"), "lower", False),
)


def columns(found: Comparison) -> list[Column]:
    """The columns of a comparison."""
    return [column for column in COLUMNS if found.measures(column.name)]


def spread_of(points: Sequence[Point], name: str) -> tuple[float | None, float | None]:
    """Mean over the seeds' points and their standard deviation (None with fewer than two)."""
    values = [p.value(name) for p in points]
    known = [v for v in values if v is not None]
    if not known or len(known) < len(values):
        return None, None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


def cell(column: Column, value: float | None, deviation: float | None = None) -> str:
    """A value for people, with its standard deviation over seeds."""
    if value is None:
        return "-"
    if column.percent:
        return f"{100 * value:.1f}" + ("" if deviation is None else f" ±{100 * deviation:.1f}")
    return _short(value) + ("" if deviation is None else f" ±{_short(deviation)}")


def _short(value: float) -> str:
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.3g}"
    return f"{value:.0e}"


def rows(found: Comparison, last_only: bool) -> list[list[str]]:
    """Rows of the table: method, edits, the columns, limits, seconds; the unedited model first, failures last."""
    lines, shown = [], columns(found)
    last = [p for p in found.points if p.edits == max(q.edits for q in found.points)]
    if last:
        known = [cell(c, last[0].before(c.name)) for c in shown]
        lines.append([UNEDITED, "0", *known, "", ""])
    for method in found.methods:
        reached = found.edits(method)
        for edits in reached[-1:] if last_only else reached:
            points = found.at(method, edits)
            cells = [cell(c, *spread_of(points, c.name)) for c in shown]
            met, judged = (round(statistics.fmean(p.judged[i] for p in points), 1) for i in (0, 1))
            lines.append(
                [
                    method,
                    str(edits),
                    *cells,
                    f"{met:g}/{judged:g}",
                    f"{statistics.fmean(p.seconds for p in points):.1f}",
                ]
            )
    return lines


def _headline(found: Comparison) -> str:
    plural = "" if found.steps == 1 else "s"
    seeds = (
        f", seeds {', '.join(map(str, found.seeds))} (mean ± standard deviation)"
        if len(found.seeds) > 1
        else ""
    )
    return f"{found.policy} on {found.model}: {found.facts} facts in {found.steps} step{plural}{seeds}"


def table(found: Comparison) -> Group:
    """The table for a terminal: every method at its last step."""
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    grid.add_column("method", no_wrap=True)
    heads = [("", "facts"), *(c.heading for c in columns(found)), ("limits", "met"), ("edit", "s")]
    for first, second in heads:
        grid.add_column(f"{first}\n{second}", justify="right", no_wrap=True)
    for number, line in enumerate(rows(found, last_only=True)):
        grid.add_row(*(Text(shown(cell)) for cell in line), style="dim" if number == 0 else "")
    failed = [Text(shown(failure(f)), "red") for f in found.failures]
    note = Text("shares in %; - was not measured", "dim")
    return Group(
        Text(shown(_headline(found)), "bold"), Text(""), grid, *([Text("")] if failed else []), *failed, note
    )


def failure(found: Failure) -> str:
    """One sentence about a method that could not go on."""
    where = f"failed in step {found.step} (seed {found.seed})" if found.step else "not run"
    return f"{found.method}: {where}: {found.reason}"


def markdown(found: Comparison, pictures: Sequence[str]) -> str:
    """The same as a Markdown page: every step of every method, the failures, the pictures, and what is measured."""
    heads = ["method", "facts", *(c.title for c in columns(found)), "limits met", "seconds"]
    lines = [f"# {_headline(found)}", "", _row(heads), _row(["---", *["---:"] * (len(heads) - 1)])]
    lines += [_row(line) for line in rows(found, last_only=False)]
    lines += ["", "Shares are in %; `-` was not measured. Every step is judged on the facts written by then."]
    redone = sorted({p.method for p in found.points if p.from_scratch and p.step > 1})
    if redone:
        lines.append(
            f"Made anew from the unedited model at every step, on all facts so far: {', '.join(redone)}."
        )
    if found.failures:
        lines += ["", "## Failed", "", *(f"- {failure(f)}" for f in found.failures)]
    lines += ["", *(f"![{name.partition('.')[0]}]({name})" for name in pictures)]
    reasons: dict[tuple[str, str], dict[str, None]] = {}
    for method in found.methods:
        for point in found.at(method, max(found.edits(method), default=0)):
            for m in point.measurements:
                if m.after is None:
                    reasons.setdefault((m.name, str(m.reason)), {})[method] = None
    if reasons:
        lines += ["", "## Not measured", ""]
        lines += [f"- `{name}` ({', '.join(who)}): {reason}" for (name, reason), who in reasons.items()]
    definitions = {m.name: m.definition for p in found.points for m in p.measurements if m.definition}
    lines += ["", "## Measurements", "", *(f"- `{name}`: {text}" for name, text in definitions.items())]
    return "\n".join(map(shown, lines)) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
