"""The pictures of `unlearn compare`; importing this imports matplotlib."""

from __future__ import annotations

from matplotlib.figure import Figure

from unlearn.charts import Cloud, Line, Panel, clouds, curves, dots
from unlearn.compare.document import Comparison
from unlearn.compare.table import COLUMNS, spread_of


def measurements(found: Comparison) -> Figure:
    """Curves over the number of facts, or one dot per method where there is one step."""
    single = found.steps == 1
    panels = []
    methods = [method for method in found.methods if found.edits(method)]
    for column in COLUMNS:
        lines = []
        for method in methods:
            edits = found.edits(method)
            groups = [found.at(method, count) for count in edits]
            values = [spread_of(group, column.name)[0] for group in groups]
            low: list[float | None] = []
            high: list[float | None] = []
            for group in groups:
                ends: list[float] = []
                if len(found.seeds) > 1:
                    ends = [v for p in group if (v := p.value(column.name)) is not None]
                elif single and (interval := group[0].interval(column.name)) is not None:
                    ends = list(interval)
                low.append(min(ends, default=None))
                high.append(max(ends, default=None))
            lines.append(Line(method, edits, values, low, high))
        reference = max(found.points, key=lambda p: p.edits).before(column.name)
        panels.append(Panel(column.title, lines, column.better, column.percent, reference))
    about = f"{_named(found)}: {found.facts} facts"
    if single:
        spread = "range over seeds" if len(found.seeds) > 1 else "95 % interval"
        return dots(panels, f"{about}, written at once ({spread})")
    seeds = f" (mean and range over {len(found.seeds)} seeds)" if len(found.seeds) > 1 else ""
    return curves(panels, "facts written", f"{about} in {found.steps} steps{seeds}")


def hidden_states(found: Comparison) -> Figure | None:
    """Hidden states before and after, per method at its last step with the first seed; None if there are none."""
    panels = {}
    for method in found.methods:
        mine = [p for p in found.points if p.method == method and p.plane is not None]
        if not mine:
            continue
        last = max(mine, key=lambda p: (p.edits, -found.seeds.index(p.seed)))
        plane = last.plane
        assert plane is not None
        groups = [Cloud(f"{name} prompts", plane.before[name], plane.after[name]) for name in plane.before]
        first, second = (round(100 * share) for share in plane.explained)
        panels[method] = groups, f"layer {plane.layer}; {first} % and {second} % of the variance"
    return clouds(panels, f"Hidden states at the last prompt token, {_named(found)}") if panels else None


def _named(found: Comparison) -> str:
    # Of a folder or a hub id the last part: a title has one line.
    return f"{found.policy} on {found.model.rstrip('/').rpartition('/')[2]}"
