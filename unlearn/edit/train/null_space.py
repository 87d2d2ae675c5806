"""Training the update where the closed form cannot tell the requests from their neighbours.

One solve per layer sees the keys alone, as they are: where a linear function of them does not separate requests from
unlisted subjects, it refuses both. Descending on the same matrices inside the same null space may use what
the layers make of each other's outputs. The loss of a step is, in nats,

    W * mean over forms of [sum_t max(0, NLL_t - SLACK)  +  AWAY * max(0, log p(B) + margin)]
    +  KEEP * mean over kept prompts of KL(before || now), over the reply  +  TEXT * KL per token of the corpus

with B the first tokens of what the model said before the edit, and W by how hard the forms are (`Pressure`): what
forgets capitals leaves opposites half learnt (docs/notes/lab.md). Kept prompts are about siblings, listed neighbours
and words of the vocabulary, with the unedited model's own replies; what it says to questions about anything counts as
the corpus does (`taught`). Measured against the closed form in docs/benchmarks.md.

Only what can change is computed (`model.upper`): rows enter at the first layer that is trained, what the unedited model
says to kept rows is read once, and what all chats begin with is read once. So that this is exact, the keys of that
beginning are left out of the null space. Matrices are multiplied in bfloat16 where the machine is much quicker in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from unlearn.algebra.moments import Directions
from unlearn.edit import forms
from unlearn.edit.columns import Columns
from unlearn.edit.forms import Row
from unlearn.edit.plan import Made, Plan
from unlearn.edit.probabilities import BEGINS, reply_probabilities
from unlearn.edit.sequence import Reached, Sofar, Written
from unlearn.edit.settings import Tuning
from unlearn.edit.train.seen import Pack, Seen, front_of
from unlearn.edit.train.taught import ASKED, FORMS, KEPT, TEXTS, Hard, Taught, taught
from unlearn.edit.train.token_losses import divergence, lacking
from unlearn.model.adapters import Adapter, dense
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.head import logits_of, token_losses
from unlearn.model.narrow import narrowed, quick_passes
from unlearn.model.requests import Requests
from unlearn.model.training import descend
from unlearn.progress import Progress

RATE, WARM, BETAS = 0.03, 20, (0.9, 0.99)
"""Longest step of Adam relative to the weights (root mean square), and the steps until it is reached; then it falls
linearly to zero."""
FEW = 3
"""Layers that take steps of this length; more take shorter ones, so that all together move the output no further."""
DECAY = 2.4
"""Weight decay of all steps together, were all as long as the longest. As their lengths fall, what no row asks for any
more fades to a third."""
KEEP, TEXT = 15.0, 30.0
"""Weights in the loss."""
MET, GAIN, MOST = 1.0, 1.04, 8.0
"""While a step's forms lose more than this (nats), all forms weigh so many times as much with every step, at most so
many times as at first; while they lose less, they weigh less again."""


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
    with narrowed(model, 0):
        rows = taught(model, requests, laid, plan.corpus, steps)
    parts = _parts(rows)
    every = [row for part in parts for row in part.rows.rows]
    front, first = front_of(model), min(plan.layers)
    spectra = {layer: there.spectrum for layer, there in plan.statistics.items()}
    bases = _bases(model, {layer: alone.directions(there) for layer, there in spectra.items()}, front)
    with dense(model, list(bases), bases) as adapter:
        pressure = Pressure()
        longest = max(len(row.ids) for row in every)
        with quick_passes(model, first, longest):
            seen = Seen(model, rows.forget.rows, every[len(rows.forget.rows) :], first, front)
            optimiser = torch.optim.AdamW(_groups(adapter, steps), betas=BETAS)
            adapter.follow(optimiser)
            descend(
                lambda: _slope(seen, parts, rows.first, tuning.unlikelihood_margin, pressure),
                optimiser,
                lambda step: min(1, (step + 1) / WARM) * (1 - step / steps),
                steps,
                progress,
                "Training the update",
            )
        factors = dict(adapter.factors())
        reached = _reached(model, rows.forms, len(requests.facts), steps)
    columns = Columns.of(laid, model.device)
    looked = read(model, columns.ids, columns.positions, plan.layers).keys
    keys = {layer: found * columns.weights.sqrt() for layer, found in looked.items()}
    ranks = {layer: alone.projector(spectrum).rank for layer, spectrum in spectra.items()}
    return Made(Sofar().plus(Written(factors, keys, ranks)), [reached])


@dataclass(frozen=True)
class _Part:
    """Rows of one kind."""

    rows: Hard
    begins: int
    """How many rows of other kinds come first."""
    count: int
    """Of them in every step."""
    weight: float
    per_token: bool
    """Whether the loss is a mean over tokens instead of rows."""


def _parts(rows: Taught) -> list[_Part]:
    kinds = (rows.forget, rows.kept, rows.asked, rows.texts)
    begins = list(accumulate((len(drawer.rows) for drawer in kinds), initial=0))
    return [
        _Part(rows.forget, begins[0], FORMS, 1.0, per_token=False),
        _Part(rows.kept, begins[1], KEPT, KEEP, per_token=False),
        _Part(rows.asked, begins[2], ASKED, TEXT, per_token=True),
        _Part(rows.texts, begins[3], TEXTS, TEXT, per_token=True),
    ]


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


class Pressure:
    """How heavily the forms weigh against all that is kept: how hard they are differs from relation to relation."""

    def __init__(self) -> None:
        self.weight = 1.0

    def note(self, loss: float) -> None:
        """Weigh more or less from the next step on, by what a step's forms lost on average."""
        self.weight = min(MOST, max(1.0, self.weight * (GAIN if loss > MET else 1 / GAIN)))


def _slope(
    seen: Seen, parts: Sequence[_Part], first: Sequence[Tensor], margin: float, pressure: Pressure
) -> float:
    """Add the gradients of one step's loss, on rows that are drawn for it; the loss, in nats."""
    weights: dict[int, float] = {}
    for part in parts:
        drawn = [part.begins + i for i in part.rows.draw(part.count)]
        size = sum(seen.lessons[i].reply for i in drawn) if part.per_token else len(drawn)
        heavy = pressure.weight if part is parts[0] else 1.0
        weights |= {i: heavy * part.weight / size for i in drawn}
    losses: dict[int, float] = {}
    for group in seen.packs(weights):
        each = _losses(seen.model, seen.read(group), first, margin)
        (each * torch.tensor([weights[i] for i in group], device=each.device)).sum().backward()
        losses |= zip(group, each.tolist(), strict=True)
    for part in parts:
        mine = [i for i in losses if part.begins <= i < part.begins + len(part.rows.rows)]
        part.rows.note([i - part.begins for i in mine], torch.tensor([losses[i] for i in mine]))
    asked = [losses[i] for i in losses if i < len(parts[0].rows.rows)]
    pressure.note(sum(asked) / len(asked))
    return sum(weights[i] * loss for i, loss in losses.items())


def _losses(model: EditableModel, pack: Pack, first: Sequence[Tensor], margin: float) -> Tensor:
    """Per row what the target's tokens lack and what is left to the old reply, or KL(before || now), (rows,), nats."""
    wanted = ~pack.kept
    targets, owners = pack.targets[wanted], pack.owners[wanted]
    begins = torch.searchsorted(owners, torch.arange(len(pack.rows), device=owners.device)).tolist()
    old = {
        begins[place]: first[row].to(owners.device)
        for place, row in enumerate(pack.rows)
        if row < len(first) and len(first[row])
    }

    def forgotten(logits: Tensor, at: slice) -> tuple[Tensor, Tensor]:
        mine = {place - at.start: old[place] for place in old if at.start <= place < at.stop}
        return lacking(logits, targets[at], mine, margin)

    def kept(logits: Tensor, at: slice) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            before = logits_of(model, pack.before[at])
        return divergence(logits, before)

    forgot = token_losses(model, pack.states[wanted], forgotten)
    stayed = token_losses(model, pack.states[pack.kept], kept)
    return pack.sums(forgot, owners) + pack.sums(stayed, pack.owners[pack.kept])


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
