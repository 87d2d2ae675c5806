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
    step: int | None = None,
) -> Projector:
    """Widen the null space greedily, in the order of ascending eigenvalues, until a step gains too little.

    Args:
        keys: (d_in, n).
        residuals: (d_out, n).
        spectrum: of ``C``.
        kept_directions: how many leading directions the null space leaves out at the start.
        ridge: the number in the equation, above 0.
        least: a step of a share s of all directions is taken if J falls by more than ``least * s`` of itself.
        kept: (d_in, m), keys with zero residual, each times the root of its weight.
        step: directions at a time; by default ``STEP`` of d_in.

    Returns:
        The projector on the widened null space.

    Raises:
        ValueError: ``ridge`` is not positive: without it every direction helps.
    """
    if ridge <= 0:
        raise ValueError("relaxation needs a ridge above 0")
    d_in = len(keys)
    step = step or max(1, round(STEP * d_in))
    loss = losses(keys, residuals, spectrum, ridge, kept).tolist()
    count = kept_directions
    while count > 0:
        taken = min(step, count)
        wider, best = loss[d_in - count + taken], loss[d_in - count]
        if best - wider <= least * taken / d_in * best:
            break
        count -= taken
    return Projector.null_space(spectrum, count)


def losses(
    keys: Tensor,
    residuals: Tensor,
    spectrum: Spectrum,
    ridge: float,
    kept: Tensor | None = None,
) -> Tensor:
    """The least ``J = ||delta K - R||^2 + ||delta Z||^2 + ridge ||delta||^2`` for null spaces of any width.

    In a null space ``U`` it is ``||R||^2 - ||L^-1 U^T K R^T||^2`` with the factor ``L L^T = U^T H H^T U + ridge I``. In
    the order of ascending eigenvalues the factor of a narrower space is the leading block of a wider one's, so that one
    factorisation serves all widths. Arguments as in ``relaxed``.

    Returns:
        (d_in + 1,), float64, by the number of directions with the least eigenvalues in which the update may write.
    """
    columns = joined(keys, kept)
    ascending = spectrum.vectors.to(columns.device).flip(1)
    gram = ascending.T @ (columns @ columns.T).to(ascending) @ ascending  # (d_in, d_in)
    gram.diagonal().add_(ridge)
    wanted = ascending.T @ (keys @ residuals.T).to(ascending)  # (d_in, d_out)
    gained = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), wanted, upper=False).square().sum(1)
    return residuals.to(gained).square().sum() - torch.cat([gained.new_zeros(1), gained.cumsum(0)])
