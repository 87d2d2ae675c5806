"""Training the update where the closed form cannot tell the requests from their neighbours.

One solve per layer sees the keys alone, as they are: where a linear function of them does not separate requests from
subjects that nobody listed, it refuses both. Descending on the same matrices inside the same null space may use what
the layers make of each other's outputs. The loss of a step is, in nats,

    mean over forms of sum_t max(0, NLL_t - SLACK)  +  AWAY * mean over forms of max(0, log p(B) + silence)
    +  KEEP * mean over kept prompts of KL(before || now), over the reply  +  TEXT * KL per token of the corpus

with B the first tokens of what the model said before the edit. Kept prompts are those whose keys the closed form keeps
(siblings, neighbours, look-alikes), with the unedited model's own replies; what it says to questions about anything
counts as the corpus does. A base model reads forms and kept prompts with words left out as well (`shortened`). Muon
(Jordan et al., 2024) takes the steps: all singular values of a step are alike, and it learned more in as many steps
than Adam. Measured against the closed form in docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlearn.edit import forms
from unlearn.edit.columns import Columns, at_start
from unlearn.edit.forms import Row
from unlearn.edit.hearing import BEGINS, hear
from unlearn.edit.null_space import Spared
from unlearn.edit.plan import Made, Plan
from unlearn.edit.sequence import Reached, Sofar, Written
from unlearn.edit.settling import decided
from unlearn.edit.train.loop import descend, replies
from unlearn.edit.train.taught import ASKED, FORMS, KEPT, TEXTS, Hard, Taught, taught
from unlearn.model.adapters import Adapter, dense
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.muon import Muon
from unlearn.policy.settings import NullSpaceTuning
from unlearn.progress import Progress

RATE, WARM = 0.027, 20
"""Longest step relative to the weights (root mean square), and the steps until it is reached; then it falls linearly
to zero."""
FEW = 3
"""Layers that take steps of this length; more take shorter ones, so that all together move the output no further."""
SLACK = 0.1
"""A token of the target whose NLL is below this has no gradient: what holds is not driven further."""
AWAY, KEEP, TEXT = 0.5, 5.0, 30.0
"""Weights in the loss."""


def null_space_tuning(
    plan: Plan, settings: NullSpaceTuning, model: EditableModel, requests: Requests, progress: Progress
) -> Made:
    """Train one update per layer inside its null space, over all facts at once.

    Args:
        plan: with the layers and their statistics.
        settings: of the plan.
        model: unedited; unchanged on return.
        requests: the policy with its answers.
        progress: where to show it.

    Returns:
        The updates, how likely each target has become on its worst form, and the keys that later edits keep: those of
        the closed form.

    Raises:
        ModelError: the loss is not finite.
    """
    steps, alone = decided(settings.steps), Spared(decided(settings.null_space))
    laid = forms.build(model, requests, requests.facts, settings.look_up)
    rows = taught(model, requests, laid, plan.corpus, steps)
    spectra = {layer: there.spectrum for layer, there in plan.statistics.items()}
    bases = {
        model.anatomy.weight_name(layer): spectrum.vectors[:, alone.count(spectrum) :]
        for layer, spectrum in spectra.items()
    }
    with dense(model, list(bases), bases) as adapter:
        descend(
            lambda: _loss(model, adapter, rows, settings.silence),
            Muon(_groups(adapter), momentum=0.9, weight_decay=0.0),
            lambda step: min(1, (step + 1) / WARM) * (1 - step / steps),
            steps,
            progress,
            "Training the update",
        )
        factors = dict(adapter.factors())
        reached = _reached(model, rows.forms, len(requests.facts), steps)
    columns = Columns.of(laid, model.device)
    start = at_start(model, plan.layers, columns, Sofar())
    keys = {layer: found * columns.weights.sqrt() for layer, found in start.keys.items()}
    ranks = {layer: alone.projector(spectrum).rank for layer, spectrum in spectra.items()}
    return Made(Sofar().plus(Written(factors, keys, ranks)), [reached])


def _loss(model: EditableModel, adapter: Adapter, rows: Taught, silence: float) -> Tensor:
    """The loss of one step, on rows that are drawn for it."""
    drawn = rows.forget.draw(FORMS)
    each = _forgotten(model, rows.forget, drawn, [rows.first[i] for i in drawn], silence)
    loss = each.mean()
    rows.forget.note(drawn, each)
    for others, count, weight, per_token in (
        (rows.kept, KEPT, KEEP, False),
        (rows.asked, ASKED, TEXT, True),
        (rows.texts, TEXTS, TEXT, True),
    ):
        if others.rows:
            loss = loss + weight * _moved(model, adapter, others, count, per_token)
    return loss


def _forgotten(
    model: EditableModel, rows: Hard, drawn: Sequence[int], first: Sequence[Tensor], silence: float
) -> Tensor:
    """What the target's tokens lack, and what is left to the old reply's first tokens; (rows,), nats."""
    got = replies(model, [rows.rows[i] for i in drawn])
    nll = -got.log_probs.gather(-1, got.targets[..., None])[..., 0]
    lacking = ((nll - SLACK).clamp_min(0) * got.mask).sum(1)
    begin = got.mask.shape[1] - got.mask.sum(1)
    start = got.log_probs[torch.arange(len(drawn), device=begin.device), begin]  # (rows, V)
    banned = torch.zeros_like(start, dtype=torch.bool)
    for row, tokens in enumerate(first):
        banned[row, tokens.to(banned.device)] = True
    left = start.masked_fill(~banned, -torch.inf).logsumexp(-1) + silence
    return lacking + AWAY * torch.where(banned.any(1), left.clamp_min(0), 0)


def _moved(model: EditableModel, adapter: Adapter, rows: Hard, count: int, per_token: bool) -> Tensor:
    """Mean over some rows of KL(before || now) over the reply, per token or summed; a scalar."""
    drawn = rows.draw(count)
    chosen = [rows.rows[i] for i in drawn]
    now = replies(model, chosen)
    with torch.no_grad(), adapter.off():
        before = replies(model, chosen).log_probs
    kl = ((before.exp() * (before - now.log_probs)).sum(-1) * now.mask).sum(1)
    rows.note(drawn, kl)
    return kl.sum() / now.mask.sum() if per_token else kl.mean()


def _groups(adapter: Adapter) -> list[dict[str, object]]:
    """Each update with the rate at which its longest step is as long as it may be."""
    longest = RATE * min(1.0, (FEW / len(adapter.groups)) ** 0.5)
    return [
        {"params": group["params"], "lr": longest * group["scale"] * group["params"][0].shape[1] ** 0.5}
        for group in adapter.groups
    ]


def _reached(model: EditableModel, rows: Sequence[Row], requests: int, steps: int) -> Reached:
    """Per request the NLL of its target per token, the worst of its forms, as the model stands."""
    worst = [0.0] * requests
    mute: set[int] = set()
    for row, tokens in zip(rows, hear(model, rows).targets, strict=True):
        worst[row.request] = max(worst[row.request], float(-tokens.clamp_min(1e-30).log().mean()))
        if bool((tokens < BEGINS).any()):
            mute.add(row.request)
    return Reached(tuple(worst), (0.0,) * requests, (steps,) * requests, tuple(sorted(mute)))
