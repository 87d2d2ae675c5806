"""RepSelect's selection: what a gradient shares with everything else is damped (Sondej, Yang and Mahdi, 2026)."""

from __future__ import annotations

import torch
from torch import Tensor


def damped(gradient: Tensor, components: int) -> Tensor:
    """A gradient whose leading principal components no longer lead.

    With its singular values ``s_1 >= s_2 >= ...`` and the last damped one ``s_c``, the i-th of the leading components
    is multiplied by ``s_c / s_i`` on the side of the inputs (right singular vectors), and so again on that of the
    outputs (left ones). What they do not span stays.

    Args:
        gradient: (d_out, d_in).
        components: c, at most; those of singular value 0 are none.

    Returns:
        (d_out, d_in), in the gradient's dtype; solved in float64.
    """
    wide = gradient.double()
    left, values, right = torch.linalg.svd(wide, full_matrices=False)
    used = min(components, int((values > values[0] * len(values) * torch.finfo(wide.dtype).eps).sum()))
    if not used:
        return gradient.clone()
    left, values, right = left[:, :used], values[:used], right[:used]
    gone = 1 - values[-1] / values
    wide = wide - (wide @ right.T * gone) @ right
    selective: Tensor = wide - left @ (gone[:, None] * (left.T @ wide))
    return selective.to(gradient.dtype)
