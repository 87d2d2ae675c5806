"""Rounding the weights to few bits, as everybody does who serves a model: small updates vanish in it.

After Zhang et al., "Catastrophic Failure of LLM Unlearning via Quantization" (ICLR 2025): an update that is smaller
than the rounding step may be rounded away, and what it hid comes back. All linear weights of the blocks are rounded to
nearest and back (fake quantisation); embeddings, head and norms stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.audit.attacks.scene import Attack, Scene, recovered, restored
from unlearn.audit.observation import Attacked
from unlearn.measurements import named
from unlearn.model.adapters import linears
from unlearn.model.editable import EditableModel
from unlearn.progress import NO_PROGRESS, Progress

ENTRIES = 1 << 24
"""Entries of a matrix that are rounded at a time: bounds the float32 copies."""


@dataclass(frozen=True)
class Rounding:
    """A format: groups of neighbouring inputs of one output share a step; codes are whole multiples of it."""

    bits: int
    group: int
    """Entries of a row that share a step; the last group of a row may be shorter."""
    lopsided: bool = False
    """How the step follows from the largest entry of the group: by its size, so that it is code 2^(b-1) - 1 with either
    sign; or, as in GGUF's Q4_0, so that it is the lowest code -2^(b-1), for which the step takes its sign and is stored
    in half precision."""

    def steps(self, groups: Tensor) -> Tensor:
        """Step of every group, (..., 1), from its entries (..., group); 0 for a group of zeros."""
        if not self.lopsided:
            return groups.abs().amax(-1, keepdim=True) / float(2 ** (self.bits - 1) - 1)
        largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
        return (largest / -float(2 ** (self.bits - 1))).half().float()

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Round a matrix and come back: what the format stands for, and the size of its steps.

        Args:
            weight: (rows, d_in), any float dtype.

        Returns:
            Rounded entries and steps, both (rows, d_in), float32.
        """
        rows, columns = weight.shape
        padded = torch.nn.functional.pad(weight.float(), (0, -columns % self.group))
        groups = padded.view(rows, -1, self.group)
        steps = self.steps(groups)
        low, high = -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        codes = torch.where(steps == 0, 0.0, groups / torch.where(steps == 0, 1.0, steps)).round()
        found = codes.clamp_(low, high) * steps
        sizes = steps.abs().expand_as(groups)
        return found.reshape(rows, -1)[:, :columns], sizes.reshape(rows, -1)[:, :columns]


INT8 = Rounding(bits=8, group=128)
INT4 = Rounding(bits=4, group=128)
Q4_0 = Rounding(bits=4, group=32, lopsided=True)


def slices(matrix: Tensor) -> Iterator[slice]:
    """Ranges of rows with at most `ENTRIES` entries each."""
    rows = max(1, ENTRIES // matrix.shape[1])
    for start in range(0, matrix.shape[0], rows):
        yield slice(start, start + rows)


@torch.no_grad()
def round_blocks(model: EditableModel, rounding: Rounding, progress: Progress = NO_PROGRESS) -> None:
    """Round every linear weight of the blocks in place, (d_out, d_in) in groups along d_in; experts' are among them."""
    anatomy = model.anatomy
    apart = [anatomy.routed_matrices(model.model, layer) for layer in range(anatomy.layers)]
    whole = [name for name in linears(model) if name.endswith(".weight")]
    weights = [*map(model.weight, whole), *(weight for each in apart for weight in each)]
    with progress.step("Rounding the weights", total=len(weights)) as bar:
        for weight in weights:
            _round(weight, rounding)
            bar.advance(1)


def _round(weight: Tensor, rounding: Rounding) -> None:
    for part in slices(weight):
        weight[part].copy_(rounding(weight[part])[0])


@torch.no_grad()
def lost(model: EditableModel, scene: Scene, rounding: Rounding) -> str:
    """How the update compares with the steps, in a sentence; empty where the update is not known.

    Of the changed matrices: the share of the update's entries below half a step; and how much of the update is left
    between the two rounded matrices, as their difference projected on it (1 would be all of it, 0 none).
    """
    update = scene.update
    if update is None:
        return ""
    small = entries = 0
    kept = whole = 0.0
    for name in update.names:
        weight, delta = model.weight(name), update.delta(name).to(model.device)
        for part in slices(weight):
            new, mine = weight[part].float(), delta[part]
            after, steps = rounding(new)
            before, _ = rounding(new - mine)
            small += int((mine.abs() < steps / 2).sum())
            entries += mine.numel()
            kept += float(((after - before) * mine).double().sum())
            whole += float(mine.double().square().sum())
    if whole == 0:
        return ""
    return (
        f"{100 * small / entries:.1f} % of the update's entries are smaller than half a rounding step; "
        f"{100 * kept / whole:.0f} % of the update is left between the rounded matrices."
    )


def attack(rounding: Rounding) -> Callable[[EditableModel, Scene, Progress], Attacked]:
    """An attack that rounds the weights and asks again."""

    def run(model: EditableModel, scene: Scene, progress: Progress) -> Attacked:
        # Before the weights are rounded, since the difference to the unedited model is taken from them.
        note = lost(model, scene, rounding)
        with restored(model):
            round_blocks(model, rounding, progress)
            return Attacked(outcomes=recovered(model, scene, progress), note=note)

    return run


ROUNDING = (
    Attack(named("attack.int8"), attack(INT8)),
    Attack(named("attack.int4"), attack(INT4)),
    Attack(named("attack.q4"), attack(Q4_0)),
)
