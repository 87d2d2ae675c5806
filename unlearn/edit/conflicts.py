"""Conflicts, measured before anything is written: what cannot be changed and kept at once.

An editor tells requests apart by their keys alone. Two requests with nearly one key get a compromise; a request whose
key is nearly that of a kept fact, or of an earlier edit, moves it along; a key that lies outside the null space can
hardly be written by a method that is confined to it. And an edit reaches further than its requests: how far is seen
at neighbours that are left out of the equation as if nobody had listed them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.algebra.moments import Metric, Whitener
from unlearn.edit.conflicts_told import Conflicts, LayerConflicts, Pair, say, spreads, tell, warnings_of
from unlearn.edit.descent import steps_for
from unlearn.edit.forms import prompts_of, where_of
from unlearn.edit.methods import METHODS, Method, Problem, null_space, solve
from unlearn.edit.sequence import Sofar
from unlearn.edit.statistics import Statistics
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.requests import Fact, Requests
from unlearn.policy.settings import AlphaEdit, Editor

__all__ = ["Conflicts", "measure", "say", "tell"]

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
    settings: Editor,
    sofar: Sofar,
) -> Conflicts:
    """Cosines of look-up keys in the metric, and the share of each key inside the null space.

    Args:
        model: unedited.
        requests: the facts to write, with siblings and neighbours.
        layers: to be written.
        statistics: per layer; None where they have not been computed, then keys are compared as they are.
        settings: of an editor.
        sofar: earlier edits, on top of which the keys are read.
    """
    method = METHODS[settings.name]
    looked = _looked(model, requests, layers, settings, sofar)
    found = {
        str(layer): _in_layer(
            looked,
            layer,
            method,
            settings,
            None if statistics is None else statistics[layer],
            sofar.keys.get(layer),
        )
        for layer in layers
    }
    kind = "plain"
    if statistics is not None and layers:
        kind = "null_space" if method.confined else "inverse"
    confined = method.confined or settings.project == "null_space"
    unknown = [layer for layer in layers if layer not in sofar.keys] if sofar.factors else []
    steps = _descent(found, settings, sofar, steps_for(looked.prompts, len(looked.names)))
    return {
        "metric": kind,
        "layers": found,
        "descent": steps,
        "warnings": warnings_of(found, confined, unknown, settings.look_up, steps),
    }


@dataclass(frozen=True)
class _Looked:
    """Keys at the look-up tokens of the requests' prompts, and then of the kept facts'."""

    keys: Mapping[int, Tensor]
    """Per layer (d_in, columns)."""
    owner: Tensor
    """(columns of requests,), the request of each."""
    whose: Tensor
    """(columns of kept facts,), the fact of each."""
    near: Tensor
    """(columns of kept facts,), which of them are of neighbours."""
    names: Sequence[str]
    """Of the requests."""
    labels: Sequence[str]
    """Of the kept facts. Subjects are not named: these go into logs, reports and the patch's header."""
    prompts: int
    """Of the requests."""


def _looked(
    model: EditableModel, requests: Requests, layers: Sequence[int], settings: Editor, sofar: Sofar
) -> _Looked:
    kept = (*requests.siblings, *requests.neighbours)
    labels = [f"a sibling ({fact.relation})" for fact in requests.siblings]
    labels += [f"a neighbour ({fact.relation})" for fact in requests.neighbours]
    every = max(1, -(-len(kept) // MOST_KEPT))
    kept, labels = kept[::every], labels[::every]
    mine = _places(model, requests, requests.facts, settings.look_up)
    theirs = _places(model, requests, kept, settings.look_up)
    rows = [*mine, *theirs]
    with model.patched(sofar.deltas()):
        keys = read(model, [ids for _, ids, _ in rows], [at for *_, at in rows], layers).keys
    near = [kept[i] in requests.neighbours for i, _, at in theirs for _ in at]
    return _Looked(
        keys,
        torch.tensor([i for i, _, at in mine for _ in at]),
        torch.tensor([i for i, _, at in theirs for _ in at]),
        torch.tensor(near, dtype=torch.bool),
        [fact.id for fact in requests.facts],
        labels,
        len(mine),
    )


def _in_layer(
    looked: _Looked,
    layer: int,
    method: Method,
    settings: Editor,
    statistics: Statistics | None,
    earlier: Tensor | None,
) -> LayerConflicts:
    """The conflicts in one layer, with the keys of earlier edits there."""
    owner, names = looked.owner, looked.names
    columns = looked.keys[layer].double()
    own, lent = columns[:, : len(owner)], columns[:, len(owner) :]
    metric: Metric = _Plain()
    inside = spread = None
    if statistics is not None:
        spread = _spread(looked, layer, method, statistics, settings)
        projector = null_space(statistics, settings)
        share = (projector.apply(own).square().sum(0) / own.square().sum(0).clamp_min(1e-30)).cpu()
        inside = {name: round(float(share[owner == i].mean()), 4) for i, name in enumerate(names)}
        metric = projector if method.confined else Whitener(statistics.spectrum)
    return {
        "between": _between(own, owner, metric, names),
        "earlier": _worst(own, owner, earlier, None, metric, names, None),
        "kept": _worst(own, owner, lent, looked.whose, metric, names, looked.labels),
        "inside": inside,
        "spread": spread,
    }


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


def _between(own: Tensor, owner: Tensor, metric: Metric, names: Sequence[str]) -> Pair | None:
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
) -> Pair | None:
    if other is None or not other.shape[1]:
        return None
    cosines = _cosines(own, other.to(own), metric)
    row, column = divmod(int(cosines.argmax()), cosines.shape[1])
    partner = others[int(whose[column])] if others is not None and whose is not None else None
    return {"cosine": round(float(cosines.max()), 4), "of": names[int(owner[row])], "with": partner}


def _spread(
    looked: _Looked, layer: int, method: Method, statistics: Statistics, settings: Editor
) -> float | None:
    """What neighbours get of an update that does not know them, relative to what its requests get.

    All requests are to gain one and the same value, as a refusal is. Each half of the neighbours is left out in turn,
    and the kept facts that remain are kept as firmly as the settings say.

    Args:
        looked: the keys.
        layer: where.
        method: an editor.
        statistics: of the layer.
        settings: of the editor.

    Returns:
        The mean over the neighbours, or None with fewer than two of them.
    """
    keys, requests, whose, near = looked.keys[layer], len(looked.owner), looked.whose, looked.near
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


def _descent(found: Mapping[str, LayerConflicts], settings: Editor, sofar: Sofar, steps: int) -> int:
    """Steps of training in place of the closed form; 0 for the closed form."""
    if not isinstance(settings, AlphaEdit):
        return 0
    if settings.descent != "auto":
        return settings.descent
    return steps if spreads(found, settings.look_up) and not sofar.factors else 0
