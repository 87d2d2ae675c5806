"""The published update formulas, dense and naive in float64: what the fast forms are checked against.

W is (d_out, d_in); K (d_in, n) keys, R (d_out, n) residuals, C (d_in, d_in) second moments, P a dense projector.
"""

from __future__ import annotations

import torch
from torch import Tensor


def alphaedit(keys: Tensor, residuals: Tensor, projector: Tensor, ridge: float, earlier: Tensor) -> Tensor:
    """AlphaEdit (Fang et al., 2025), equation 14: solve (P (K K^T + Kp Kp^T) + L2 I) X = P K R^T, delta = X^T."""
    square = keys @ keys.T + earlier @ earlier.T
    identity = torch.eye(len(projector), dtype=keys.dtype)
    return torch.linalg.solve(projector @ square + ridge * identity, projector @ keys @ residuals.T).T


def memit(keys: Tensor, residuals: Tensor, second: Tensor, weight: float, earlier: Tensor) -> Tensor:
    """MEMIT (Meng et al., 2023), equation 14: delta = R K^T (lambda C + Kp Kp^T + K K^T)^-1."""
    return residuals @ keys.T @ torch.linalg.inv(weight * second + earlier @ earlier.T + keys @ keys.T)


def rome(key: Tensor, residual: Tensor, second: Tensor) -> Tensor:
    """ROME (Meng et al., 2022), equation 2: delta = r (C^-1 k)^T / (k^T C^-1 k); key k (d_in,), residual r (d_out,)."""
    direction = torch.linalg.inv(second) @ key
    return torch.outer(residual, direction) / (key @ direction)


def projector(second: Tensor, kept: int) -> Tensor:
    """Dense P = U0 U0^T over all but the ``kept`` leading eigenvectors, from a full SVD as published."""
    vectors, _, _ = torch.linalg.svd(second)
    null = vectors[:, kept:]
    return null @ null.T
