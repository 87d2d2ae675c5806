"""AlphaEdit+'s null space that gives way: kept directions are handed back while that pays (Liu et al., 2026)."""

from __future__ import annotations

import torch
from torch import Tensor

from unlearn.algebra.moments import Projector, Spectrum
from unlearn.algebra.write import joined

STEP = 1 / 640
"""Directions handed back at a time, as a share of d_in: the published 10 of GPT2-XL's 6400."""


def relaxed(
    keys: Tensor,
    residuals: Tensor,
    spectrum: Spectrum,
    kept_directions: int,
    ridge: float,
    least: float,
    kept: Tensor | None = None,
    weights: Tensor | None = None,
    step: int | None = None,
) -> Projector:
    """Widen the null space greedily, in the order of ascending eigenvalues, until a step gains too little.

    The loss is ``J = ||delta K - R||^2 + sum_j w_j ||delta z_j||^2 + ridge ||delta||^2`` at its minimum over updates in
    the null space. By duality ``J = ridge tr([R|0] (ridge I + H^T P H)^-1 [R|0]^T)``, so a step costs one Cholesky
    factor of the columns and no update is ever formed.

    Args:
        keys: (d_in, n).
        residuals: (d_out, n).
        spectrum: of ``C``.
        kept_directions: how many leading directions the null space leaves out at the start.
        ridge: the number in the equation, above 0.
        least: a step of a share s of all directions is taken if J falls by more than ``least * s`` of itself.
        kept: (d_in, m), keys with zero residual.
        weights: (m,), of the kept keys.
        step: directions at a time; by default ``STEP`` of d_in.

    Returns:
        The projector on the widened null space.

    Raises:
        ValueError: ``ridge`` is not positive: without it every direction helps.
    """
    if ridge <= 0:
        raise ValueError("relaxation needs a ridge above 0")
    d_in, n = keys.shape
    step = step or max(1, round(STEP * d_in))
    columns = joined(keys, kept, weights).double()
    coordinates = spectrum.vectors.to(columns).T @ columns  # (d_in, n + m), largest eigenvalue first
    outside = coordinates[kept_directions:]
    gram = outside.T @ outside  # H^T P H
    best, count = _loss(gram, residuals, ridge), kept_directions
    while count > 0:
        taken = min(step, count)
        rows = coordinates[count - taken : count]
        wider = gram + rows.T @ rows
        now = _loss(wider, residuals, ridge)
        if best - now <= least * taken / d_in * best:
            break
        gram, best, count = wider, now, count - taken
    return Projector.null_space(spectrum, count)


def _loss(gram: Tensor, residuals: Tensor, ridge: float) -> float:
    """J at its minimum; ``gram`` is ``H^T P H``, (n + m, n + m)."""
    n = residuals.shape[1]
    wanted = torch.zeros(len(gram), len(residuals), dtype=gram.dtype, device=gram.device)
    wanted[:n] = residuals.T.to(gram)
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solved = torch.linalg.solve((gram + gram.T) / 2 + ridge * identity, wanted)
    return ridge * float((wanted * solved).sum())
