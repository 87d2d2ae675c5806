"""The one equation of every closed-form editor.

Notation: ``K`` (d_in, n) one key per request column, ``R`` (d_out, n) what the output at that token must gain,
``Z`` (d_in, m) kept keys whose output must not change (zero residual), ``H = [K | Z]``, ``A`` the metric, and ``ridge``
a number >= 0. The update is

    delta = [R | 0] (ridge I + H^T A H)^-1 H^T A  =  left @ right,       left (d_out, n+m), right (n+m, d_in)

the minimiser of ``||delta K - R||^2 + ||delta Z||^2 + ridge tr(delta A^+ delta^T)`` over updates in the range of ``A``.
With ``A = P`` and ``Z`` the earlier keys it is AlphaEdit; with ``A = C^-1`` MEMIT; with one key and ridge 0 ROME, with
several EMMET; with ``A`` on a few neurons NSE. Weights of kept keys are factors of their columns.
The system is as large as the number of columns, or as d_in if there are more columns than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.moments import Metric


@dataclass(frozen=True)
class Kept:
    """``Z``, for writes that have it in common: what they need of its many columns is computed once."""

    columns: Tensor
    """(d_in, m)."""

    @cached_property
    def gram(self) -> Tensor:
        """``Z Z^T``, (d_in, d_in), in the columns' dtype."""
        return self.columns @ self.columns.T


def write(
    keys: Tensor,
    residuals: Tensor,
    metric: Metric,
    ridge: float,
    kept: Tensor | Kept | None = None,
    absolute: bool = False,
) -> LowRank:
    """Solve for the update; solved in float64, returned in the dtype of ``residuals``.

    Args:
        keys: (d_in, n).
        residuals: (d_out, n).
        metric: ``A``.
        ridge: relative to the keys: the number in the equation is ``ridge`` times the mean of ``k^T A k`` over the
            columns of ``keys``, so that one setting means the same on every model. 0 asks for equality.
        kept: (d_in, m), keys with zero residual, each times the root of its weight.
        absolute: take ``ridge`` as the number in the equation itself, as the papers do.

    Returns:
        Factors ``left`` (d_out, n) and ``right`` (n, d_in); the m kept columns have been eliminated, since their
        residuals are zero. With more columns than d_in, and n beyond d_out or d_in, d_out columns stand for the n.

    Raises:
        ValueError: the numbers of columns do not match.
    """
    if keys.shape[1] != residuals.shape[1]:
        raise ValueError(f"{keys.shape[1]} keys but {residuals.shape[1]} residuals")
    n = keys.shape[1]
    kept = Kept(kept) if isinstance(kept, Tensor) else kept
    still = kept.columns if kept else None
    own = keys.double()
    reached = metric.apply(own)  # A K
    ridge *= 1.0 if absolute else float((own * reached).sum(0).mean())
    if ridge > 0 and n + (0 if still is None else still.shape[1]) > len(keys):
        return _write_wide(keys, residuals, metric, ridge, _gram(keys, kept))
    columns = joined(keys, still).double()  # (d_in, n + m)
    weighted = torch.cat([reached, metric.apply(columns[:, n:])], 1)  # A H
    gram = columns.T @ weighted  # H^T A H, (n + m, n + m)
    gram = (gram + gram.T) / 2 + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    right = solve_rows(gram, n) @ weighted.T  # the first n rows of (ridge I + H^T A H)^-1 H^T A
    return LowRank(residuals.clone(), right.to(residuals.dtype))


def _write_wide(
    keys: Tensor,
    residuals: Tensor,
    metric: Metric,
    ridge: float,
    gram: Tensor,
) -> LowRank:
    """The same update for more columns than d_in, from ``(ridge I + H^T A H)^-1 H^T A = H^T (ridge I + A H H^T)^-1 A``.

    ``(ridge I + A H H^T)^-1 A`` is symmetric, so that its product with K, or with K R^T where that is narrower, is one
    solve. ``ridge`` is the number in the equation, > 0. ``gram`` is ``H H^T`` in the keys' dtype, the rest is float64.
    """
    system = metric.apply(gram.double())  # A H H^T, (d_in, d_in)
    system.diagonal().add_(ridge)
    few = keys.shape[1] <= min(len(residuals), len(keys))
    wanted = keys.double() if few else (keys @ residuals.T).double()  # (d_in, n or d_out)
    # The metric comes last, so that nothing at all is written outside its range.
    right = metric.apply(torch.linalg.solve(system.T, wanted)).T.to(residuals.dtype)
    # With d_out columns in place of n, the update itself is smaller than its factors.
    left = residuals.clone() if few else torch.eye(len(right), dtype=residuals.dtype, device=right.device)
    return LowRank(left, right)


def _gram(keys: Tensor, kept: Kept | None) -> Tensor:
    """``H H^T``, (d_in, d_in), in the dtype of the keys."""
    own = keys @ keys.T
    return own if kept is None else own + kept.gram.to(keys)


def joined(keys: Tensor, kept: Tensor | None) -> Tensor:
    """``H = [K | Z]``, (d_in, n + m), in the dtype of the keys."""
    return keys if kept is None else torch.cat([keys, kept.to(keys)], 1)


def solve_rows(gram: Tensor, n: int) -> Tensor:
    """The first n rows of the inverse of a symmetric positive semi-definite matrix.

    Cholesky where it is definite; otherwise (ridge 0 with dependent columns, such as two requests with one key) the
    pseudo-inverse, which gives the least-squares solution of least norm.
    """
    identity = torch.eye(len(gram), n, dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if not failed and float(factor.diagonal().min()) > 1e-7 * float(factor.diagonal().max()):
        found: Tensor = torch.cholesky_solve(identity, factor)
    else:
        found = torch.linalg.pinv(gram, hermitian=True) @ identity
    return found.T


def project(delta: LowRank, metric: Metric) -> LowRank:
    """``delta @ P``: AlphaEdit's plug-in for any editor (Fang et al., 2025, section 4.4). ``metric`` is ``P``."""
    right = metric.apply(delta.right.T.double()).T
    return LowRank(delta.left, right.to(delta.right.dtype))


def yielding(kept: Tensor, keys: Tensor) -> Tensor:
    """AlphaEdit+'s weights of kept keys: ``1 - max_i |cos(kept_j, key_i)|``, (m,), float64.

    A kept key that is nearly a request's own cannot stay and be changed at once: the newest request wins
    (Liu et al., 2026, conflict-aware weighting).
    """
    mine, theirs = keys.double(), kept.double()
    mine = mine / mine.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    theirs = theirs / theirs.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    apart: Tensor = 1 - (theirs.T @ mine).abs().amax(1)
    return apart.clamp_min(0)


def condense(columns: Tensor) -> Tensor:
    """At most d_in columns with the same ``Z Z^T``, the only way in which kept keys enter an update; (d_in, m).

    Many batches of earlier keys would otherwise make the system of the dual form larger than that of the primal one.
    """
    if columns.shape[1] <= columns.shape[0]:
        return columns
    wide = columns.double()
    values, vectors = torch.linalg.eigh(wide @ wide.T)
    used = values > values[-1] * len(values) * torch.finfo(torch.float64).eps
    fewer: Tensor = vectors[:, used] * values[used].sqrt()
    return fewer.to(columns.dtype)
