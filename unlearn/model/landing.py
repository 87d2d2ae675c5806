"""From a wanted change of the stream to the residual of the down-projection's output, and back.

A block adds ``scale * y`` to the stream, ``y = W k + b`` being the output of its down-projection, or, in a post-norm
family (Gemma 2 and 3, OLMo 2), ``N(y) = g * y / sqrt(mean(y^2) + eps)``. The first lands exactly: the residual is
``wanted / scale``. The second cannot, because ``N`` fixes the length of what is added: its values are the points
``g * u`` with ``|u|^2 = d``, an ellipsoid. The residual then leads to the nearest of them (docs/families.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

HALVINGS = 90
"""Of a bracket of less than 70 nats: more than double precision can tell apart."""
ABOVE_EPS = 10.0
"""Outputs are kept at least this many times ``sqrt(eps)`` long, where ``eps`` no longer shortens what is added."""


@dataclass(frozen=True)
class Landing:
    """How the output of one layer's down-projection enters the stream."""

    scale: float = 1.0
    """What the output is multiplied by (Granite); 1 elsewhere."""
    gain: Tensor | None = None
    """(d_out,), float32: the weights of the RMS norm between the output and the stream; None where there is none."""
    eps: float = 0.0
    """The norm's ``eps``."""

    def added(self, outputs: Tensor) -> Tensor:
        """What the stream gains from outputs, both (d_out, n)."""
        if self.gain is None:
            return self.scale * outputs
        length = (outputs.square().mean(0) + self.eps).sqrt()
        return self.scale * self.gain.to(outputs)[:, None] * outputs / length

    def residual(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """What outputs must gain, so that the stream gains what is wanted, or the nearest to it that the norm lets in.

        Args:
            outputs: (d_out, n), the down-projection's outputs as they are; read only where there is a norm.
            wanted: (d_out, n), the wanted change of the stream.

        Returns:
            (d_out, n), in the dtype of ``wanted``; exactly zero where nothing is wanted. With a norm, the new outputs
            are as long as the old: of all outputs that the norm maps to the same point, those disturb no scale.
        """
        if self.gain is None:
            return wanted / self.scale
        now = outputs.double()
        length = now.square().mean(0).sqrt().clamp_min(ABOVE_EPS * self.eps**0.5)  # (n,)
        below = (length.square() + self.eps).sqrt()
        target = self.added(now) + wanted.double()
        unit = nearest(self.scale * self.gain.double(), target, len(now) ** 0.5 * length / below)
        moved = (unit * below - now).to(wanted.dtype)
        return torch.where((wanted != 0).any(0), moved, torch.zeros_like(moved))


def nearest(gain: Tensor, target: Tensor, radius: Tensor) -> Tensor:
    """The ``u`` of length ``radius`` that minimises ``|gain * u - target|``: a projection on an ellipsoid.

    Stationary points are ``u = gain * target / (gain^2 + m)``; the global minimum is the one whose multiplier is at
    least ``-min(gain^2)`` (Conn, Gould and Toint, Trust-Region Methods, 2000, section 7.2), and there ``|u|`` falls as
    ``m`` grows, so halving the bracket finds it.

    Args:
        gain: (d,), float64.
        target: (d, n), float64.
        radius: (n,), float64, above zero.

    Returns:
        (d, n), float64.
    """
    weakest = int(gain.abs().argmin())
    above = (gain.square() - gain[weakest].square())[:, None]
    pull = gain[:, None] * target
    high = (pull.norm(dim=0) / radius).clamp_min(1e-100)  # |u| <= radius here
    low = torch.maximum(
        pull[weakest].abs() / radius, high * 1e-30
    )  # |u| >= radius here, but for the hard case
    for _ in range(HALVINGS):
        middle = (low * high).sqrt()
        long = (pull / (above + middle)).norm(dim=0) > radius
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    found = pull / (above + high)
    # The hard case: no multiplier makes u long enough. What is missing goes where the norm's weight is the least.
    rest = (radius.square() - found.square().sum(0)).clamp_min(0).sqrt()
    short = rest > 1e-6 * radius
    sign = torch.where(target[weakest] < 0, -1.0, 1.0) * (1.0 if gain[weakest] >= 0 else -1.0)
    found[weakest] += torch.where(short, sign * rest, torch.zeros_like(rest))
    reached: Tensor = found * (radius / found.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny))
    return reached
