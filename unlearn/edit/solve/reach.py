"""How far the closed form reaches beyond its requests: what an unlisted neighbour gets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unlearn.algebra.write import Kept
from unlearn.edit.look_up_keys import LookUpKeys
from unlearn.edit.settings import ClosedForm
from unlearn.edit.solve.terms import Problem, update
from unlearn.edit.statistics import Statistics


def unlisted(compared: LookUpKeys, layer: int, statistics: Statistics, form: ClosedForm) -> float | None:
    """What neighbours get of an update that does not know them, relative to what its requests get.

    All requests are to gain one and the same value, as a refusal is. Each half of the neighbours is left out in turn,
    and the kept facts that remain are kept as firmly as the form says.

    Returns:
        The mean over the neighbours, or None with fewer than two of them.
    """
    own, kept, whose, near = compared.own(layer), compared.kept(layer), compared.whose, compared.near
    order = whose[near].unique()
    if len(order) < 2:
        return None
    wanted = torch.ones(1, own.shape[1], device=own.device, dtype=own.dtype)
    got: list[Tensor] = []
    for half in (order[::2], order[1::2]):
        left_out = (near & torch.isin(whose, half)).to(own.device)
        still = Kept(form.kept**0.5 * kept[:, ~left_out]) if form.kept else None
        delta, _ = update(Problem(statistics, own, wanted, still, 0), form)
        reached = (delta.left @ (delta.right @ own)).mean()
        got.append((delta.left @ (delta.right @ kept[:, left_out]))[0] / reached)
    found = float(torch.cat(got).mean())
    return round(found, 4) if math.isfinite(found) else None
