"""The report of conflicts: what was measured before an edit, as lines for a log and warnings about the worst."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

log = logging.getLogger("unlearn")

NEAR = 0.95
"""Cosine in the metric above which two keys are said to conflict."""
THIN = 0.02
"""Share of a key inside the null space below which a confined editor can hardly write there."""
Pair = TypedDict("Pair", {"cosine": float, "of": str, "with": str | None})
"""The two whose keys are nearest: a request, and who else."""


class LayerConflicts(TypedDict):
    """What was measured in one layer."""

    between: Pair | None
    """The worst pair of requests."""
    earlier: Pair | None
    """The worst request with one of earlier edits."""
    kept: Pair | None
    """The worst request with a kept fact."""
    inside: dict[str, float] | None
    """Per request the mean share of its keys' squared length inside the null space; None without statistics, or where
    the update is not confined."""
    spread: float | None
    """What unlisted neighbours get of what a request gets (``reach``); None without statistics."""


class Conflicts(TypedDict):
    """What was measured before anything is written: JSON values."""

    metric: str
    """``null_space``, ``inverse`` or ``plain``."""
    layers: dict[str, LayerConflicts]
    warnings: list[str]
    """Sentences about the worst."""


KINDS: Mapping[Literal["between", "earlier", "kept"], str] = {
    "between": "requests", "earlier": "earlier edits", "kept": "kept facts",
}  # fmt: skip
"""With what a request may conflict."""


def lines_of(report: Conflicts) -> list[str]:
    """The report as lines for a log or a terminal, the warnings last."""
    named = {
        "null_space": "inside the null space",
        "inverse": "in the metric C^-1",
        "plain": "of the keys as they are (no cached statistics yet)",
    }
    lines = [f"conflicts, cosines {named[report['metric']]}:"]
    for layer, row in report["layers"].items():
        parts = []
        for kind, words in KINDS.items():
            worst = row[kind]
            if worst is not None:
                pair = worst["of"] if worst["with"] is None else f"{worst['of']} and {worst['with']}"
                parts.append(f"{words} at most {worst['cosine']:.2f} ({pair})")
        inside = row["inside"]
        if inside:
            least, share = min(inside.items(), key=lambda item: item[1])
            mean = sum(inside.values()) / len(inside)
            parts.append(
                f"{100 * mean:.1f} % of the keys inside the null space (least {100 * share:.1f} %, {least})"
            )
        if row["spread"] is not None:
            parts.append(f"an unlisted neighbour gets {row['spread']:.2f} of what a request gets")
        lines.append(f"  layer {layer}: " + ("; ".join(parts) or "nothing to compare"))
    return lines + [f"warning: {sentence}" for sentence in report["warnings"]]


def warnings_of(found: Mapping[str, LayerConflicts], unknown: Sequence[int], look_up: str) -> list[str]:
    """One sentence for the worst conflict of each kind."""
    sentences = []
    or_last = ", or look up at the last token" if look_up == "subject" else ""
    said = {
        "between": "the requests {of} and {with} have nearly one key in layer {layer} (cosine {cosine:.2f}): the edit "
        f"cannot tell them apart there; name the relation before the subject in their prompts{or_last}",
        "earlier": "the request {of} has nearly the key of an earlier edit in layer {layer} (cosine {cosine:.2f}): one "
        "of them gives way; alphaedit_plus lets the newer one win",
        "kept": "the request {of} has nearly the key of {with}, which is kept, in layer {layer} (cosine {cosine:.2f}): "
        f"that may move along; ask in a form that differs more{or_last}",
    }
    for kind in KINDS:
        pairs = [(pair, layer) for layer, row in found.items() if (pair := row[kind]) is not None]
        worst, layer = max(pairs, key=lambda one: one[0]["cosine"], default=(None, ""))
        if worst is not None and worst["cosine"] > NEAR:
            sentences.append(said[kind].format(**worst, layer=layer))
    shares = [
        (share, name, layer) for layer, row in found.items() for name, share in (row["inside"] or {}).items()
    ]
    if shares and min(shares)[0] < THIN:
        share, name, layer = min(shares)
        sentences.append(
            f"only {100 * share:.1f} % of the key of {name} lies inside the null space of layer {layer}: the edit will "
            "hardly reach it; lower method.null_space or choose other layers"
        )
    if unknown:
        sentences.append(
            f"the earlier edit has left no keys for layers {', '.join(map(str, unknown))}, so this one cannot keep it "
            "there; use the same layers for both"
        )
    return sentences


def write_to_log(report: Conflicts) -> None:
    """Write the report to the log."""
    for line in lines_of(report):
        (log.warning if line.startswith("warning") else log.info)("%s", line.removeprefix("warning: "))
