"""Muon (Jordan et al., 2024): momentum whose update of each matrix is brought near an orthogonal one.

Rare directions, such as those of a fact that is seen some hundred times, are learnt in fewer steps than by AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(stack: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Return the nearly orthogonal factor of each matrix of ``stack`` (n, rows, columns), rows <= columns.

    Newton-Schulz iteration of degree five; singular values end between about 0.7 and 1.2. In bfloat16 on a GPU; a
    processor without units for it was measured at 15 to 35 times the time that float32 takes.
    """
    x = stack.bfloat16() if stack.device.type == "cuda" else stack.float()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(stack.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update of each matrix is orthogonalised; weight decay is decoupled.

    A step has the root mean square ``lr / sqrt(columns)``.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter] | Iterable[dict[str, object]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        """Take 2-D parameters only."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix, those of one shape together."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[tuple[torch.nn.Parameter, torch.Tensor, bool]]] = defaultdict(
                list
            )
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "buffer" not in state:
                    state["buffer"] = torch.zeros_like(p)
                state["buffer"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(state["buffer"], group["momentum"])
                flip = p.shape[0] > p.shape[1]
                update = update.mT if flip else update
                shapes[update.shape[0], update.shape[1]].append((p, update, flip))
            for rows in shapes.values():
                done = orthogonalise(torch.stack([update for _, update, _ in rows]))
                for (p, _, flip), update in zip(rows, done, strict=True):
                    update = update.mT if flip else update
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)
