"""Trainable updates of a model whose own weights stay where they are (LoRA's are in ``factors``).

They are entered as context managers and leave the model as it was, bit for bit: a dense update is added to a layer's
output while it is being trained, never to its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.moments import Directions
from unlearn.model.editable import EditableModel
from unlearn.model.experts import DOWN, is_tapped
from unlearn.model.forward import block_output, hooked, stopped_at


class Group(TypedDict):
    """Parameters that are trained with steps of one length."""

    params: list[Tensor]
    scale: float
    """What a step relative to the weights is multiplied by."""


@dataclass(frozen=True)
class Adapter:
    """What is being trained."""

    groups: Sequence[Group]
    """Parameter groups of an optimiser: ``params``, and as ``scale`` the size of what they are added to, to which a
    learning rate is relative."""
    factors: Callable[[], Mapping[str, LowRank]]
    """The update as it stands, by weight name; copies."""
    off: Callable[[], AbstractContextManager[None]]
    """For as long as it is entered, the model answers as if nothing had been trained."""
    read: Sequence[Tensor] = ()
    """Of dense updates, the matrices (d_out, d_in) that rows are multiplied by: gradients arrive there."""
    follow: Callable[[torch.optim.Optimizer], None] = lambda _optimiser: None
    """Lets an update that is confined to directions follow the steps of the optimiser of its groups. Its rows are read
    by a whole matrix, which is quicker than going through the directions, and passed on once per step."""


def linears(model: EditableModel, part: str = "all", layers: Sequence[int] | None = None) -> list[str]:
    """Names of the weights of the linear layers inside the blocks, in the model's order.

    Of experts it is that of their down-projections, which are one matrix of one input.

    Args:
        part: ``attention``, ``mlp`` (whatever is not attention), or ``all``.
        layers: of these blocks only.
    """
    family = model.anatomy.family
    found = []
    for layer in range(model.anatomy.layers) if layers is None else layers:
        for path, module in model.anatomy.block(model.model, layer).named_modules():
            kind = "attention" if path.startswith(family.attention) else "mlp"
            experts = is_tapped(module)
            if (experts or isinstance(module, nn.Linear | Conv1D)) and part in ("all", kind):
                found.append(f"{family.blocks}.{layer}.{path}.{DOWN if experts else 'weight'}")
    return found


class _Update:
    """What is added to one weight while it is trained, float32."""

    def __init__(self, weight: Tensor, basis: Directions | None, device: torch.device) -> None:
        rows, columns = weight.shape
        self.on = True
        self.basis = None if basis is None else basis.to(device)
        self.whole = torch.zeros(rows, columns, device=device, requires_grad=True)
        """(d_out, d_in), as rows are multiplied by it."""
        self.trained = self.whole
        """What an optimiser steps: the whole, or its part in the directions to which it is confined, (d_out, r)."""
        if self.basis is not None:
            self.trained = torch.zeros(rows, self.basis.rank, device=device, requires_grad=True)
        # What is trained is float32, whatever passes multiply in.
        self._exactly = torch.autocast(device.type, enabled=False)

    def added(self, _module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """A layer's output with what the update adds to it, as long as it is on."""
        if not self.on:
            return out
        # Under autocast the product has its dtype, whatever goes in.
        narrow = torch.is_autocast_enabled(out.device.type)
        given = args[0] if narrow else args[0].float()
        return out + (given @ self.whole.to(given.device).T).to(out.dtype)

    @torch.no_grad()
    def gather(self, *_: object) -> None:
        """Before a step: the gradient of what is trained, from that of the whole."""
        if self.basis is None:
            return
        gradient, self.whole.grad = self.whole.grad, None
        with self._exactly:
            self.trained.grad = None if gradient is None else self.basis.inside(gradient)

    @torch.no_grad()
    def spread(self, *_: object) -> None:
        """After a step: the whole, from what is trained."""
        if self.basis is not None:
            with self._exactly:
                self.whole.copy_(self.basis.outside(self.trained))


@contextmanager
def dense(
    model: EditableModel, names: Sequence[str], bases: Mapping[str, Directions] | None = None
) -> Iterator[Adapter]:
    """Train whole weights: one full update (d_out, d_in) each, float32, at zero to begin with.

    Args:
        model: its weights are not written.
        bases: by name the directions of the inputs to which the update is confined.
    """
    updates = {name: _Update(model.weight(name), (bases or {}).get(name), model.device) for name in names}

    @contextmanager
    def off() -> Iterator[None]:
        for update in updates.values():
            update.on = False
        try:
            yield
        finally:
            for update in updates.values():
                update.on = True

    def follow(optimiser: torch.optim.Optimizer) -> None:
        for update in updates.values():
            optimiser.register_step_pre_hook(update.gather)
            optimiser.register_step_post_hook(update.spread)

    def factors() -> dict[str, LowRank]:
        return {name: exact(update.whole.detach()) for name, update in updates.items()}

    groups: list[Group] = [
        {"params": [update.trained], "scale": float(model.weight(name).float().square().mean().sqrt())}
        for name, update in updates.items()
    ]
    handles = [
        model.anatomy.projection(model.model, name).listener.register_forward_hook(update.added)
        for name, update in updates.items()
    ]
    with hooked(handles):
        yield Adapter(groups, factors, off, [update.whole for update in updates.values()], follow)


def exact(update: Tensor) -> LowRank:
    """A dense update as factors, exactly: itself and an identity on its narrower side."""
    rows, columns = update.shape
    eye = torch.eye(min(rows, columns), device=update.device)
    return LowRank(eye, update.clone()) if rows <= columns else LowRank(update.clone(), eye)


def stream_at(model: EditableModel, rows: Sequence[tuple[int, ...]], layer: int) -> tuple[Tensor, Tensor]:
    """The output of block ``layer``, (rows, T, d_model), float32, and the mask (rows, T); the pass ends there."""
    _, mask, out = stopped_at(model, rows, layer)
    return block_output(out).float(), mask
