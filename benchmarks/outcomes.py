"""A row of `benchmarks/unlearning.py` from an audit's measurements, and their harmonic mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.rows import Row
from unlearn.audit.pipeline import Findings
from unlearn.report import Measurement

PARTS = ("leak.sampled", "refusal.held_out", "retain.siblings", "retain.neighbours")
"""Of the harmonic mean: one minus the first, and the others, as far as they were measured."""
CHANCE = ".chance"
"""After a measurement's name: how often it comes out so by chance."""
ABOVE = "harmonic.above_chance"
"""The harmonic mean of what is sampled beyond chance: (leak - chance) / (1 - chance) stands for the leak."""
STATEMENTS = "refusal.cloze"
"""Stands for the refusals where no question was asked: a base model refuses by going on with the target."""


def harmonic(shares: Mapping[str, float | None]) -> float | None:
    """Harmonic mean of (1 - leak), refusal, siblings and neighbours, in percent; None if none was measured."""
    asked = shares.get("refusal.held_out") is not None
    names = [STATEMENTS if name == "refusal.held_out" and not asked else name for name in PARTS]
    values = [
        1 - v if name.startswith("leak") else v for name in names if (v := shares.get(name)) is not None
    ]
    if not values:
        return None
    return 0.0 if min(values) <= 0 else 100 * len(values) / sum(1 / v for v in values)


def row_of(measurements: Sequence[Measurement], about: Row, statements: float | None = None) -> Row:
    """Measurement names as keys; beside them values before, intervals, and reasons where nothing was measured.

    Args:
        statements: share of held-out statements refused (``statements_refused``).
    """
    made = {**{m.name: m.after for m in measurements}, STATEMENTS: statements}
    chances = {m.name: m.chance for m in measurements if m.chance is not None}
    beyond = {
        name: None if made[name] is None else max(0.0, (made[name] - chance) / (1 - chance))
        for name, chance in chances.items()
        if chance < 1
    }
    return {
        **about,
        "harmonic": None if (h := harmonic(made)) is None else round(h, 2),
        ABOVE: None if not chances or (h := harmonic({**made, **beyond})) is None else round(h, 2),
        **{f"{name}{CHANCE}": round(chance, 5) for name, chance in chances.items()},
        **{name: None if value is None else round(value, 5) for name, value in made.items()},
        "before": {m.name: m.before for m in measurements if m.before is not None},
        "ci95": {m.name: m.ci95 for m in measurements if m.ci95 is not None},
        "n": {m.name: m.n for m in measurements},
        "missing": {m.name: m.reason for m in measurements if m.after is None},
    }


def statements_refused(findings: Findings) -> float | None:
    """Share of held-out statements whose continuation is the target: what a base model's refusal is."""
    cloze = findings.after.groups.get("cloze", ())
    return sum(o.refused for o in cloze) / len(cloze) if cloze else None
