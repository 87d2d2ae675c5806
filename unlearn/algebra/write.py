"""The one equation of every closed-form editor.

Notation: ``K`` (d_in, n) one key per request column, ``R`` (d_out, n) what the output at that token must gain,
``Z`` (d_in, m) kept keys whose output must not change (zero residual), ``H = [K | Z]``, ``A`` the metric, and ``ridge``
a number >= 0. The update is

    delta = [R | 0] (ridge I + H^T A H)^-1 H^T A  =  left @ right,       left (d_out, n+m), right (n+m, d_in)

the minimiser of ``||delta K - R||^2 + ||delta Z||^2 + ridge tr(delta A^+ delta^T)`` over updates in the range of ``A``.
With ``A = P`` and ``Z`` the earlier keys it is AlphaEdit; with ``A = C^-1`` MEMIT; with one key and ridge 0 ROME.
Nothing of size d_in x d_in is solved: the system is as large as the number of columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.moments import Metric


def write(
    keys: Tensor, residuals: Tensor, metric: Metric, ridge: float, kept: Tensor | None = None
) -> LowRank:
    """Solve for the update; computed in float64, returned in the dtype of ``residuals``.

    Args:
        keys: (d_in, n).
        residuals: (d_out, n).
        metric: ``A``.
        ridge: relative to the keys: the number in the equation is ``ridge`` times the mean of ``k^T A k`` over the
            columns of ``keys``, so that one setting means the same on every model. 0 asks for equality.
        kept: (d_in, m), keys with zero residual.

    Returns:
        Factors of rank at most n: ``left`` (d_out, n) and ``right`` (n, d_in). The m kept columns have been eliminated
        from the factors, since their residuals are zero.
    """
    if keys.shape[1] != residuals.shape[1]:
        raise ValueError(f"{keys.shape[1]} keys but {residuals.shape[1]} residuals")
    n = keys.shape[1]
    columns = keys.double() if kept is None else torch.cat([keys, kept.to(keys)], 1).double()  # (d_in, n + m)
    weighted = metric.apply(columns)  # A H
    gram = columns.T @ weighted  # H^T A H, (n + m, n + m)
    scale = float(gram.diagonal()[:n].mean())
    gram = (gram + gram.T) / 2 + ridge * scale * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    right = solve_rows(gram, n) @ weighted.T  # the first n rows of (ridge I + H^T A H)^-1 H^T A
    return LowRank(residuals.clone(), right.to(residuals.dtype))


def solve_rows(gram: Tensor, n: int) -> Tensor:
    """The first n rows of the inverse of a symmetric positive semi-definite matrix.

    Cholesky where it is definite; otherwise (ridge 0 with dependent columns, such as two requests with one key) the
    pseudo-inverse, which gives the least-squares solution of least norm.
    """
    identity = torch.eye(len(gram), n, dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if not failed and float(factor.diagonal().min()) > 1e-7 * float(factor.diagonal().max()):
        return torch.cholesky_solve(identity, factor).T
    return (torch.linalg.pinv(gram, hermitian=True) @ identity).T
