"""How far a group of vectors moved, in units of how far they lay apart."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Shift:
    """How the states of a group of prompts moved at one layer, relative to their spread before the edit."""

    prompts: int
    mean: float
    """Distance between the mean before and the mean after."""
    each: float
    """Root mean square distance that a prompt's own state moved."""
    spread: float
    """Root mean square distance of the states before the edit from their mean: the unit of the two others."""


def shift(before: Tensor, after: Tensor) -> Shift | None:
    """Compare states of the same prompts.

    Args:
        before: (prompts, d_model).
        after: the same prompts in the same order.

    Returns:
        The shift; None for fewer than two prompts, or states that do not differ from each other: there is no spread.
        Of states that are not finite it is not finite either.
    """
    old, new = before.double(), after.double()
    if len(old) < 2:
        return None
    spread = float((old - old.mean(0)).square().sum(1).mean().sqrt())
    if spread == 0:
        return None
    return Shift(
        prompts=len(old),
        mean=float((new.mean(0) - old.mean(0)).norm()) / spread,
        each=float((new - old).square().sum(1).mean().sqrt()) / spread,
        spread=spread,
    )
