"""Conflicts, measured before anything is written: what cannot be changed and kept at once.

An editor tells requests apart by their keys alone. Two requests with nearly one key get a compromise; a request whose
key is nearly that of a kept fact, or of an earlier edit, moves it along; a key that lies outside the null space can
hardly be written by a method that is confined to it. And an edit reaches further than its requests: how far is seen
at neighbours that are left out of the equation as if nobody had listed them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unlearn.algebra.moments import Metric, Whitener
from unlearn.edit.descent import steps_for
from unlearn.edit.forms import prompts_of, where_of
from unlearn.edit.methods import METHODS, Method, Problem, null_space, solve
from unlearn.edit.sequence import Sofar
from unlearn.edit.statistics import Statistics
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.requests import Fact, Requests

log = logging.getLogger("unlearn")

NEAR = 0.95
"""Cosine in the metric above which two keys are said to conflict."""
THIN = 0.02
"""Share of a key inside the null space below which a confined editor can hardly write there."""
FAR, FAR_BOTH = 0.5, 0.3
"""What an unlisted neighbour gets of what a request gets, above which the edit is said to spread; the second with
values at the subject and at the last token (docs/benchmarks.md has the closed form and the training at both sides)."""
MOST_KEPT = 128
"""Kept facts that are compared with the requests; of more, every so-manieth."""


class _Plain:
    """The plain inner product, where there are no statistics yet."""

    rank = 0

    def apply(self, columns: Tensor) -> Tensor:
        return columns


def measure(
    model: EditableModel,
    requests: Requests,
    layers: Sequence[int],
    statistics: Mapping[int, Statistics] | None,
    settings: Any,
    sofar: Sofar,
) -> dict[str, Any]:
    """Cosines of look-up keys in the metric, and the share of each key inside the null space.

    Args:
        model: unedited.
        requests: the facts to write, with siblings and neighbours.
        layers: to be written.
        statistics: per layer; None where they have not been computed, then keys are compared as they are.
        settings: of an editor.
        sofar: earlier edits, on top of which the keys are read.

    Returns:
        JSON values. ``metric``: ``null_space``, ``inverse`` or ``plain``. ``layers``: per layer ``between`` (the worst
        pair of requests), ``earlier`` and ``kept`` (the worst request with one of them), each ``{cosine, of, with}`` or
        None, ``inside``: per request the mean share of its keys' squared length inside the null space, and ``spread``:
        ``_spread`` (both None without statistics). ``descent``: steps of training that the settings ask for, given the
        spread. ``warnings``: sentences about the worst.
    """
    method = METHODS[settings.name]
    kept = (*requests.siblings, *requests.neighbours)
    # Subjects are not named: these lines go into logs, reports and the patch's header.
    labels = [f"a sibling ({fact.relation})" for fact in requests.siblings]
    labels += [f"a neighbour ({fact.relation})" for fact in requests.neighbours]
    every = max(1, -(-len(kept) // MOST_KEPT))
    kept, labels = kept[::every], labels[::every]
    mine = _places(model, requests, requests.facts, settings.look_up)
    theirs = _places(model, requests, kept, settings.look_up)
    rows = [*mine, *theirs]
    with model.patched(sofar.deltas()):
        keys = read(model, [ids for _, ids, _ in rows], [at for *_, at in rows], layers).keys
    owner = torch.tensor([i for i, _, at in mine for _ in at])
    other = torch.tensor([i for i, _, at in theirs for _ in at])
    near = torch.tensor([kept[i] in requests.neighbours for i, _, at in theirs for _ in at], dtype=torch.bool)
    names = [fact.id for fact in requests.facts]
    found: dict[str, Any] = {}
    kind = "plain"
    for layer in layers:
        columns = keys[layer].double()
        own, lent = columns[:, : len(owner)], columns[:, len(owner) :]
        metric: Metric = _Plain()
        inside = spread = None
        if statistics is not None:
            spread = _spread(keys[layer], len(owner), near, other, method, statistics[layer], settings)
            projector = null_space(statistics[layer], settings)
            share = (projector.apply(own).square().sum(0) / own.square().sum(0).clamp_min(1e-30)).cpu()
            inside = {name: round(float(share[owner == i].mean()), 4) for i, name in enumerate(names)}
            kind = "null_space" if method.confined else "inverse"
            metric = projector if method.confined else Whitener(statistics[layer].spectrum)
        earlier = sofar.keys.get(layer)
        found[str(layer)] = {
            "between": _between(own, owner, metric, names),
            "earlier": _worst(own, owner, earlier, None, metric, names, None),
            "kept": _worst(own, owner, lent, other, metric, names, labels),
            "inside": inside,
            "spread": spread,
        }
    confined = method.confined or settings.project == "null_space"
    unknown = [layer for layer in layers if layer not in sofar.keys] if sofar.factors else []
    steps = _descent(found, settings, sofar, steps_for(len(mine), len(names)))
    report = {"metric": kind, "layers": found, "descent": steps}
    return {**report, "warnings": _sentences(found, confined, unknown, settings.look_up, steps)}


def tell(report: Mapping[str, Any]) -> list[str]:
    """The report as lines for a log or a terminal, the warnings last."""
    named = {
        "null_space": "inside the null space",
        "inverse": "in the metric C^-1",
        "plain": "of the keys as they are (no cached statistics yet)",
    }
    lines = [f"conflicts, cosines {named[report['metric']]}:"]
    for layer, row in report["layers"].items():
        parts = []
        for kind, words in (("between", "requests"), ("earlier", "earlier edits"), ("kept", "kept facts")):
            worst = row[kind]
            if worst is not None:
                pair = worst["of"] if worst["with"] is None else f"{worst['of']} and {worst['with']}"
                parts.append(f"{words} at most {worst['cosine']:.2f} ({pair})")
        if row["inside"]:
            least = min(row["inside"], key=lambda name: row["inside"][name])
            mean = sum(row["inside"].values()) / len(row["inside"])
            parts.append(
                f"{100 * mean:.1f} % of the keys inside the null space "
                f"(least {100 * row['inside'][least]:.1f} %, {least})"
            )
        if row["spread"] is not None:
            parts.append(f"a neighbour that nobody lists gets {row['spread']:.2f} of what a request gets")
        lines.append(f"  layer {layer}: " + ("; ".join(parts) or "nothing to compare"))
    return lines + [f"warning: {sentence}" for sentence in report["warnings"]]


def _places(
    model: EditableModel, requests: Requests, facts: Sequence[Fact], look_up: str
) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """(fact, ids, positions) of the look-up tokens of every prompt; target tokens are left out, they all look alike."""
    found = []
    for index, fact in enumerate(facts):
        where = where_of(requests.policy, fact.relation, look_up)
        for _, prompt in prompts_of(model, requests, fact):
            last = None if where == "subject" else prompt.last
            subject = None if where == "last" else prompt.subject_last
            at = tuple(sorted({place for place in (last, subject) if place is not None}))
            if at:
                found.append((index, prompt.ids, at))
    return found


def _cosines(one: Tensor, other: Tensor, metric: Metric) -> Tensor:
    """Absolute cosines in the metric, (columns of one, columns of other); 0 where a key has no part in it."""
    weighted_one, weighted_other = metric.apply(one), metric.apply(other)
    tiny = torch.finfo(torch.float64).tiny
    lengths = (
        (one * weighted_one).sum(0).clamp_min(tiny).sqrt(),
        (other * weighted_other).sum(0).clamp_min(tiny).sqrt(),
    )
    return ((one.T @ weighted_other).abs() / lengths[0][:, None] / lengths[1]).clamp_max(1).cpu()


def _between(own: Tensor, owner: Tensor, metric: Metric, names: Sequence[str]) -> dict[str, Any] | None:
    cosines = _cosines(own, own, metric)
    cosines[owner[:, None] == owner[None]] = -1
    worst = float(cosines.max())
    if worst < 0:
        return None
    row, column = divmod(int(cosines.argmax()), cosines.shape[1])
    return {"cosine": round(worst, 4), "of": names[int(owner[row])], "with": names[int(owner[column])]}


def _worst(
    own: Tensor,
    owner: Tensor,
    other: Tensor | None,
    whose: Tensor | None,
    metric: Metric,
    names: Sequence[str],
    others: Sequence[str] | None,
) -> dict[str, Any] | None:
    if other is None or not other.shape[1]:
        return None
    cosines = _cosines(own, other.to(own), metric)
    row, column = divmod(int(cosines.argmax()), cosines.shape[1])
    partner = others[int(whose[column])] if others is not None and whose is not None else None
    return {"cosine": round(float(cosines.max()), 4), "of": names[int(owner[row])], "with": partner}


def _spread(
    keys: Tensor,
    requests: int,
    near: Tensor,
    whose: Tensor,
    method: Method,
    statistics: Statistics,
    settings: Any,
) -> float | None:
    """What neighbours get of an update that does not know them, relative to what its requests get.

    All requests are to gain one and the same value, as a refusal is. Each half of the neighbours is left out in turn,
    and the kept facts that remain are kept as firmly as the settings say.

    Args:
        keys: (d_in, columns), of the requests and then of the kept facts.
        requests: how many columns are of requests.
        near: (kept columns,), which of them are of neighbours.
        whose: (kept columns,), the fact of each.
        method: an editor.
        statistics: of the layer.
        settings: of the editor.

    Returns:
        The mean over the neighbours, or None with fewer than two of them.
    """
    own, kept = keys[:, :requests], keys[:, requests:]
    if len(whose[near].unique()) < 2:
        return None
    wanted = torch.ones(1, requests, device=keys.device, dtype=keys.dtype)
    got: list[Tensor] = []
    order = whose[near].unique()
    for half in (order[::2], order[1::2]):
        left_out = (near & torch.isin(whose, half)).to(keys.device)
        still = settings.kept**0.5 * kept[:, ~left_out] if settings.kept else None
        delta, _ = solve(method, Problem(statistics, own, wanted, still, 0), settings)
        reached = (delta.left @ (delta.right @ own)).mean()
        got.append((delta.left @ (delta.right @ kept[:, left_out]))[0] / reached)
    found = float(torch.cat(got).mean())
    return round(found, 4) if math.isfinite(found) else None


def _reach(found: Mapping[str, Any]) -> float:
    """What unlisted neighbours get at least, in the layer that tells them best from the requests."""
    return min((row["spread"] for row in found.values() if row["spread"] is not None), default=0.0)


def _spreads(found: Mapping[str, Any], look_up: str) -> bool:
    return _reach(found) > (FAR_BOTH if look_up == "both" else FAR)


def _descent(found: Mapping[str, Any], settings: Any, sofar: Sofar, steps: int) -> int:
    """Steps of training in place of the closed form; 0 for the closed form."""
    asked = getattr(settings, "descent", 0)
    if asked != "auto":
        return int(asked)
    return steps if _spreads(found, settings.look_up) and not sofar.factors else 0


def _sentences(
    found: Mapping[str, Any], confined: bool, unknown: Sequence[int], look_up: str, descent: int
) -> list[str]:
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
    for kind, sentence in said.items():
        rows = [{**row[kind], "layer": layer} for layer, row in found.items() if row[kind] is not None]
        worst = max(rows, key=lambda row: row["cosine"], default=None)
        if worst is not None and worst["cosine"] > NEAR:
            sentences.append(sentence.format(**worst))
    shares = [
        (share, name, layer) for layer, row in found.items() for name, share in (row["inside"] or {}).items()
    ]
    if confined and shares and min(shares)[0] < THIN:
        share, name, layer = min(shares)
        sentences.append(
            f"only {100 * share:.1f} % of the key of {name} lies inside the null space of layer {layer}: the edit will "
            "hardly reach it; lower method.null_space or choose other layers"
        )
    reach = _reach(found)
    if _spreads(found, look_up):
        sentences.append(
            f"a neighbour that nobody lists would get at least {100 * reach:.0f} % of what a request gets: the "
            "keys hardly tell the requests from other subjects of their relations; "
            + (
                f"the update is trained in {descent} steps instead of solved for (method.descent)"
                if descent
                else "list more neighbours, or forget less of one relation"
            )
        )
    if unknown:
        sentences.append(
            f"the earlier edit has left no keys for layers {', '.join(map(str, unknown))}, so this one cannot keep it "
            "there; use the same layers for both"
        )
    return sentences


def say(report: Mapping[str, Any]) -> None:
    """Write the report to the log."""
    for line in tell(report):
        (log.warning if line.startswith("warning") else log.info)("%s", line.removeprefix("warning: "))
