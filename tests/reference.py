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
    square = weight * second + earlier @ earlier.T + keys @ keys.T
    return torch.linalg.solve(square, keys @ residuals.T).T


def rome(key: Tensor, residual: Tensor, second: Tensor) -> Tensor:
    """ROME (Meng et al., 2022), equation 2: delta = r (C^-1 k)^T / (k^T C^-1 k); key k (d_in,), residual r (d_out,)."""
    direction = torch.linalg.solve(second, key)
    return torch.outer(residual, direction) / (key @ direction)


def emmet(keys: Tensor, residuals: Tensor, second: Tensor, ridge: float) -> Tensor:
    """EMMET (Gupta et al., 2024): delta = R (K^T C^-1 K + ridge I)^-1 K^T C^-1."""
    weighted = torch.linalg.solve(second, keys)  # C^-1 K
    small = keys.T @ weighted + ridge * torch.eye(keys.shape[1], dtype=keys.dtype)
    return residuals @ torch.linalg.solve(small, weighted.T)


def nse(
    keys: Tensor, residuals: Tensor, second: Tensor, weight: float, earlier: Tensor, neurons: list[int]
) -> Tensor:
    """NSE (Jiang et al., 2025): delta[:, S] = R K_S^T (lambda C_SS + (Kp Kp^T)_SS + K_S K_S^T)^-1, zero elsewhere."""
    delta = torch.zeros(len(residuals), len(second), dtype=keys.dtype)
    mine, theirs = keys[neurons], earlier[neurons]
    square = weight * second[neurons][:, neurons] + theirs @ theirs.T + mine @ mine.T
    delta[:, neurons] = torch.linalg.solve(square, mine @ residuals.T).T
    return delta


def chosen_neurons(keys: Tensor, share: float) -> list[int]:
    """NSE's selection, one neuron at a time: from the top while the cumulative score stays within the share."""
    scores = [(float(row.abs().sum()), -n) for n, row in enumerate(keys)]
    total, taken, sum_so_far = sum(score for score, _ in scores), [], 0.0
    for score, n in sorted(scores, reverse=True):
        sum_so_far += score
        if taken and share < 1 and sum_so_far > share * total:
            break
        taken.append(-n)
    return sorted(taken)


def alphaedit_plus(
    keys: Tensor,
    residuals: Tensor,
    second: Tensor,
    kept: int,
    ridge: float,
    least: float,
    step: int,
    earlier: Tensor,
    beta: float,
) -> tuple[Tensor, int]:
    """AlphaEdit+ (Liu et al., 2026): weights 1 - max |cos|, P widened while J falls enough; delta and directions kept.

    J(delta) = ||delta K - R||^2 + beta ||delta Kp Lambda^(1/2)||^2 + L2 ||delta||^2, with the dense update each time.
    """
    unit, other = keys / keys.norm(dim=0), earlier / earlier.norm(dim=0)
    weights = (
        torch.stack([1 - (unit.T @ column).abs().max() for column in other.T]) if other.shape[1] else other[0]
    )
    scaled = earlier * (beta * weights).sqrt()

    def loss(delta: Tensor) -> float:
        parts = (delta @ keys - residuals).square().sum() + (delta @ scaled).square().sum()
        return float(parts + ridge * delta.square().sum())

    delta = alphaedit(keys, residuals, projector(second, kept), ridge, scaled)
    while kept > 0:
        taken = min(step, kept)
        wider = alphaedit(keys, residuals, projector(second, kept - taken), ridge, scaled)
        before, after = loss(delta), loss(wider)
        if (before - after) / before <= least * taken / len(second):
            break
        delta, kept = wider, kept - taken
    return delta, kept


def projector(second: Tensor, kept: int) -> Tensor:
    """Dense P = U0 U0^T over all but the ``kept`` leading eigenvectors, from a full SVD as published."""
    vectors, _, _ = torch.linalg.svd(second)
    null = vectors[:, kept:]
    return null @ null.T


def ultra_edit(keys: list[Tensor], gradients: list[Tensor], lr: float, ridge: float = 1.0) -> Tensor:
    """UltraEdit (Gu et al., 2025), the last of several batches.

    Rows are (h, g) of everything seen so far; v = -lr |h^|^2 g^, delta = ((H^T H + ridge I)^-1 H^T V)^T.

    Args:
        keys: per batch, (d_in, n).
        gradients: per batch, (d_out, n).
        lr: the number in the formula.
        ridge: likewise (published: 1).
    """
    seen = torch.cat([torch.cat([k, g]).T for k, g in zip(keys, gradients, strict=True)]).double()
    rows = torch.cat([keys[-1], gradients[-1]]).T.double()
    hats = (rows - seen.mean(0)) / seen.std(0, correction=1)
    hidden, slope = hats.split([len(keys[-1]), len(gradients[-1])], 1)
    wanted = -lr * hidden.square().sum(1, keepdim=True) * slope
    inputs = keys[-1].T.double()
    square = inputs.T @ inputs + ridge * torch.eye(inputs.shape[1], dtype=torch.float64)
    return torch.linalg.solve(square, inputs.T @ wanted).T


def rep_select(gradient: Tensor, components: int) -> Tensor:
    """RepSelect's soft collapse (Sondej et al., 2026), by dense projectors on both sides.

    A side's projector divides what lies along the i-th of the leading singular vectors by s_i / s_last.
    """
    left, values, right = torch.linalg.svd(gradient.double())
    shrink = values[components - 1] / values[:components]

    def projector(vectors: Tensor) -> Tensor:
        factors = torch.ones(len(vectors), dtype=torch.float64)
        factors[:components] = shrink
        return vectors @ torch.diag(factors) @ vectors.T

    return projector(left) @ gradient.double() @ projector(right.T)
