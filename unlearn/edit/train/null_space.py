"""Training the update where the closed form cannot tell the requests from their neighbours.

One solve per layer sees the keys alone, as they are: where a linear function of them does not separate requests from
unlisted subjects, it refuses both. Descending on the same matrices inside the same null space may use what
the layers make of each other's outputs. The loss of a step is, in nats,

    mean over forms of W * [sum_t max(0, NLL_t - SLACK)  +  AWAY * max(0, log p(B) + margin)]
    +  KEEP * mean over kept prompts of KL(before || now), over the reply  +  TEXT * KL per token of the corpus

with B the first tokens of what the model said before the edit, and W by how hard the forms of a relation are
(`Pressure`): what forgets capitals leaves opposites half learnt (docs/notes/lab.md). Kept prompts are about siblings,
listed neighbours and words of the vocabulary, with the unedited model's own replies; what it says to questions about
anything counts as the corpus does (`taught`). Measured against the closed form in docs/benchmarks.md.

Only what can change is computed (`model.upper`): rows enter at the first layer that is trained, what the unedited model
says to kept rows is read once, and what all chats begin with is read once. So that this is exact, the keys of that
beginning are left out of the null space. Matrices are multiplied in bfloat16 where the machine is much quicker in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.moments import Directions
from unlearn.edit import forms
from unlearn.edit.columns import Columns
from unlearn.edit.forms import Row
from unlearn.edit.plan import Made, Plan
from unlearn.edit.probabilities import BEGINS, reply_probabilities
from unlearn.edit.sequence import Reached, Sofar, Written
from unlearn.edit.settings import Tuning
from unlearn.edit.train.seen import Seen, front_of
from unlearn.edit.train.step_loss import Pressure, parts_of, slope
from unlearn.edit.train.taught import Taught, taught
from unlearn.model.adapters import Adapter, dense
from unlearn.model.budget import token_budget
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.narrow import dtype_of_products, quick_passes
from unlearn.model.requests import Requests
from unlearn.model.standing import in_step
from unlearn.model.training import descend
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.sums import Seat

RATE, WARM, BETAS = 0.03, 20, (0.9, 0.99)
"""Longest step of Adam relative to the weights (root mean square), and the steps until it is reached; then it falls
linearly to zero."""
FEW = 3
"""Layers that take steps of this length; more take shorter ones, so that all together move the output no further."""
DECAY = 2.4
"""Weight decay of all steps together, were all as long as the longest. As their lengths fall, what no row asks for any
more fades to a third."""


def null_space_tuning(
    plan: Plan, tuning: Tuning, model: EditableModel, requests: Requests, progress: Progress
) -> Made:
    """Train one update per layer inside its null space, over all facts at once.

    Args:
        plan: with the layers and their statistics.
        tuning: of the plan.
        model: unedited; unchanged on return.
        requests: the policy with its answers.
        progress: where to show it.

    Returns:
        The updates, how likely each target has become on its worst form, and the keys that later edits keep: those of
        the closed form.

    Raises:
        ModelError: the loss is not finite.
    """
    steps, alone = tuning.steps, tuning.spared
    laid = forms.build(model, requests, requests.facts, tuning.look_up, keeps=False)
    rows = taught(model, requests, laid, plan.corpus, steps)
    front = front_of(model)
    spectra = {layer: there.spectrum for layer, there in plan.statistics.items()}
    bases = _bases(model, {layer: alone.directions(there) for layer, there in spectra.items()}, front)
    training = Training(
        rows,
        len(requests.facts),
        bases,
        min(plan.layers),
        front,
        steps,
        tuning.unlikelihood_margin,
        token_budget(model, gradients=True),
        dtype_of_products(model),
    )
    # A gradient is as large as the weights: to take it from a GPU to the host takes longer than a step.
    standing = model.standing() if model.device.type == "cpu" else None
    factors, reached = in_step(model, training, standing, progress)
    columns = Columns.of(laid, model.device)
    looked = read(model, columns.ids, columns.positions, plan.layers).keys
    keys = {layer: found * columns.weights.sqrt() for layer, found in looked.items()}
    ranks = {layer: alone.projector(spectrum).rank for layer, spectrum in spectra.items()}
    return Made(Sofar().plus(Written(factors, keys, ranks)), [reached])


class Update(NamedTuple):
    """What a training gave."""

    factors: Mapping[str, LowRank]
    """By weight name."""
    reached: Reached


@dataclass(frozen=True)
class Training:
    """What an update is trained on, and how."""

    rows: Taught
    requests: int
    bases: Mapping[str, Directions]
    """By weight name the directions to which its update is confined."""
    first: int
    """The lowest layer that is trained."""
    front: Sequence[int]
    """Ids with which rows in the chat template begin."""
    steps: int
    margin: float
    """Of the unlikelihood, in nats."""
    budget: int
    """Tokens of a pass."""
    dtype: torch.dtype
    """In which matrices are multiplied."""

    def done(self, model: EditableModel, seat: Seat, progress: Progress = NO_PROGRESS) -> Update:
        """Train, together with the other processes that do so now.

        Raises:
            UnlearnError: another process cannot go on.
            ModelError: the loss is not finite.
        """
        parts = parts_of(self.rows)
        every = [row for part in parts for row in part.rows.rows]
        forget = self.rows.forget.rows
        with dense(model, list(self.bases), self.bases) as adapter:
            pressure = Pressure(self.rows.relations)
            longest = max(len(row.ids) for row in every)
            with quick_passes(model, self.first, longest, self.dtype):
                seen = Seen(model, forget, every[len(forget) :], self.first, self.front, self.budget)
                optimiser = torch.optim.AdamW(_groups(adapter, self.steps), betas=BETAS)
                adapter.follow(optimiser)
                descend(
                    lambda: slope(seen, parts, self.rows.first, self.margin, pressure, seat, adapter.read),
                    optimiser,
                    lambda step: min(1, (step + 1) / WARM) * (1 - step / self.steps),
                    self.steps,
                    progress,
                    "Training the update",
                )
            factors = dict(adapter.factors())
            return Update(factors, _reached(model, self.rows.forms, self.requests, self.steps))


def _bases(
    model: EditableModel, inside: Mapping[int, Directions], front: Sequence[int]
) -> dict[str, Directions]:
    """By weight name the directions of each layer's null space, to which the front's keys are orthogonal.

    So nothing is added at the front's tokens in any layer, and what enters the layers above them stays as well.
    """
    found = {layer: basis.to(basis.blocks[0].device) for layer, basis in inside.items()}
    if front:
        keys = read(model, [front], [range(len(front))], list(inside)).keys
        found = {layer: basis.orthogonal_to(keys[layer]) for layer, basis in found.items()}
    return {model.anatomy.weight_name(layer): basis for layer, basis in found.items()}


def _groups(adapter: Adapter, steps: int) -> list[dict[str, object]]:
    """Each update with the rate at which its longest step is as long as it may be, and its decay, which goes along."""
    longest = RATE * min(1.0, (FEW / len(adapter.groups)) ** 0.5)
    rates = [longest * group["scale"] for group in adapter.groups]
    return [
        {"params": group["params"], "lr": rate, "weight_decay": DECAY / (steps * rate)}
        for group, rate in zip(adapter.groups, rates, strict=True)
    ]


def _reached(model: EditableModel, rows: Sequence[Row], requests: int, steps: int) -> Reached:
    """Per request the NLL of its target per token, the worst of its forms, as the model stands."""
    worst = [0.0] * requests
    mute: set[int] = set()
    for row, tokens in zip(rows, reply_probabilities(model, rows).targets, strict=True):
        worst[row.request] = max(worst[row.request], float(-tokens.clamp_min(1e-30).log().mean()))
        if bool((tokens < BEGINS).any()):
            mute.add(row.request)
    return Reached(tuple(worst), (0.0,) * requests, (steps,) * requests, tuple(sorted(mute)))
