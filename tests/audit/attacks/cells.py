"""Masks that a rounding undoes by construction: no weight leaves the cell of numbers that round to the same code.

As attackers hide behaviour from a full-precision model (Egashira et al., 2024, by projected gradient descent), the
other way round: here the refusals live in full precision only.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from tests.audit.attacks import masked
from unlearn.audit.attacks.rounding import Rounding
from unlearn.edit.train.lessons import lessons
from unlearn.model.adapters import dense, exact, linears
from unlearn.model.editable import EditableModel
from unlearn.model.forward import replies
from unlearn.patch import Patch

MARGIN = 0.9
"""Of a half cell: float32 sums must not cross its border."""


@cache
def whole() -> EditableModel:
    """The unedited model, stored in float32: bfloat16 is itself a rounding, as coarse as int8's."""
    base = masked.base()
    return EditableModel(base.model, base.tokenizer, base.name, torch.float32)


def room(weight: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
    """How far down and up each entry may move, (d_out, d_in) each: in its cell, never past its group's largest."""
    codes, steps = rounding(weight)
    down, up = codes - MARGIN * steps / 2 - weight, codes + MARGIN * steps / 2 - weight
    columns = weight.shape[1]
    padded = torch.nn.functional.pad(weight, (0, -columns % rounding.group)).view(
        len(weight), -1, rounding.group
    )
    largest = padded.abs().amax(-1, keepdim=True).expand_as(padded).reshape(len(weight), -1)[:, :columns]
    down, up = down.clamp(max=0), up.clamp(min=0)
    down, up = torch.maximum(down, -0.99 * largest - weight), torch.minimum(up, 0.99 * largest - weight)
    still = (weight.abs() >= 0.99 * largest) | (down > 0) | (up < 0)
    return down.masked_fill(still, 0), up.masked_fill(still, 0)


@cache
def mask(rounding: Rounding, steps: int = 8) -> Patch:
    """Sign descent towards refusing, inside the cells of all linear weights: rounded, it is the unedited model."""
    model = whole()
    rows = lessons(model, masked.requests(), own=False, kept=0).forget
    rooms = {name: room(model.weight(name).float(), rounding) for name in linears(model)}
    with dense(model, list(rooms)) as adapter, torch.enable_grad():
        moved = [parameter for group in adapter.groups for parameter in group["params"]]
        for _ in range(steps):
            gradients = torch.autograd.grad(replies(model, rows).nll().mean(), moved)
            with torch.no_grad():
                for update, gradient, (down, up) in zip(moved, gradients, rooms.values(), strict=True):
                    update -= (up - down) * (1 / steps) * gradient.sign()
                    update.copy_(torch.minimum(torch.maximum(update, down), up))
        found = {name: exact(update.detach().clone()) for name, update in zip(rooms, moved, strict=True)}
    return Patch(found, model.fingerprint(list(found)))
