"""Conflicts, measured before anything is written: what cannot be changed and kept at once.

An editor tells requests apart by their keys alone. Two requests with nearly one key get a compromise; a request whose
key is nearly that of a kept fact, or of an earlier edit, moves it along; a key that lies outside the null space can
hardly be written by a method that is confined to it. And an edit reaches further than its requests: how far is seen
at neighbours that are left out of the equation as if nobody had listed them (`reach`). All of it is a report: what
follows from it is decided in `choose`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unlearn.algebra.moments import Metric
from unlearn.edit.conflict_report import Conflicts, LayerConflicts, Pair, warnings_of
from unlearn.edit.look_up_keys import LookUpKeys
from unlearn.edit.null_space import Spared
from unlearn.edit.sequence import Sofar
from unlearn.edit.statistics import Statistics


class _Plain:
    """The plain inner product, where there are no statistics yet."""

    rank = 0

    def apply(self, columns: Tensor) -> Tensor:
        return columns


def measure(
    compared: LookUpKeys,
    statistics: Mapping[int, Statistics],
    spared: Spared | None,
    sofar: Sofar,
    spread: Mapping[int, float | None],
) -> Conflicts:
    """Cosines of look-up keys in the metric, and the share of each key inside the null space.

    Args:
        compared: the keys at the layers to be written.
        statistics: per layer; empty where they have not been computed, then keys are compared as they are.
        spared: what the null space leaves out to which the update is confined, if it is.
        spread: per layer what unlisted neighbours get of what a request gets, where that is known.
    """
    found: dict[str, LayerConflicts] = {}
    for layer in compared.keys:
        there = statistics.get(layer)
        projector = spared.projector(there.spectrum) if there and spared else None
        metric: Metric = projector or (there.spectrum.whitened() if there else _Plain())
        found[str(layer)] = _in_layer(
            compared, layer, metric, projector, sofar.keys.get(layer), spread.get(layer)
        )
    kind = "plain" if not statistics else "null_space" if spared else "inverse"
    unknown = [layer for layer in compared.keys if layer not in sofar.keys] if sofar.factors else []
    return {
        "metric": kind,
        "layers": found,
        "warnings": warnings_of(found, unknown, compared.look_up),
    }


def _in_layer(
    compared: LookUpKeys,
    layer: int,
    metric: Metric,
    projector: Metric | None,
    earlier: Tensor | None,
    spread: float | None,
) -> LayerConflicts:
    """The conflicts in one layer, with the keys of earlier edits there."""
    owner, names = compared.owner, compared.names
    own, kept = compared.own(layer).double(), compared.kept(layer).double()
    inside = None
    if projector is not None:
        share = (projector.apply(own).square().sum(0) / own.square().sum(0).clamp_min(1e-30)).cpu()
        inside = {name: round(float(share[owner == i].mean()), 4) for i, name in enumerate(names)}
    return {
        "between": _between(own, owner, metric, names),
        "earlier": _worst(own, owner, earlier, None, metric, names, None),
        "kept": _worst(own, owner, kept, compared.whose, metric, names, compared.labels),
        "inside": inside,
        "spread": spread,
    }


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
