"""Training the update where the closed form cannot tell the requests from their neighbours.

One solve per layer sees the keys alone, as they are: where a linear function of them does not separate requests from
subjects that nobody listed, it refuses both. Descending on the same matrices inside the same null space may use what
the layers make of each other's outputs. The loss of a step is, in nats,

    mean over forms of sum_t max(0, NLL_t - SLACK)  +  AWAY * mean over forms of max(0, log p(B) + silence)
    +  KEEP * mean over kept prompts of KL(before || now), over the reply  +  TEXT * KL per token of the corpus

with B as in `edit.values`. Kept prompts are those whose keys the closed form keeps (siblings, neighbours, look-alikes),
with the unedited model's own replies; what it says to questions about anything counts as the corpus does. A base model
reads forms and kept prompts with words left out as well (`edit.shortened`). Muon (Jordan et al., 2024) takes the steps:
all singular values of a step are alike, and it learned more in as many steps than Adam. Measured against the closed
form in docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.edit.baselines.training import replies
from unlearn.edit.forms import Row, turns
from unlearn.edit.holding import BEGINS, hear
from unlearn.edit.methods import kept_directions
from unlearn.edit.statistics import Statistics
from unlearn.edit.taught import ASKED, FORMS, KEPT, TEXTS, Hard, Taught
from unlearn.edit.values import Solved
from unlearn.errors import ModelError
from unlearn.model.adapters import Adapter, dense
from unlearn.model.editable import EditableModel
from unlearn.muon import Muon
from unlearn.policy.settings import Editor
from unlearn.progress import NO_PROGRESS, Progress

RATE, WARM = 0.027, 20
"""Longest step relative to the weights (root mean square), and the steps until it is reached; then it falls linearly
to zero."""
FEW = 3
"""Layers that take steps of this length; more take shorter ones, so that all together move the output no further."""
SLACK = 0.1
"""A token of the target whose NLL is below this has no gradient: what holds is not driven further."""
AWAY, KEEP, TEXT = 0.5, 5.0, 30.0
"""Weights in the loss."""


def steps_for(forms: int, facts: int) -> int:
    """Steps for so many forms of so many facts."""
    return turns(forms, facts) // FORMS


def descend(
    model: EditableModel,
    rows: Taught,
    statistics: Mapping[int, Statistics],
    settings: Editor,
    steps: int,
    progress: Progress = NO_PROGRESS,
) -> tuple[dict[str, LowRank], Solved]:
    """Train one update per layer inside its null space.

    Args:
        model: unedited; unchanged on return.
        rows: what it is taught.
        statistics: per layer to be written.
        settings: for the null space and ``silence``.
        steps: of Muon.
        progress: where to show it.

    Returns:
        The updates by weight name, and per request how likely its target has become on its worst form.

    Raises:
        ModelError: the loss is not finite.
    """
    names = {model.anatomy.weight_name(layer): layer for layer in statistics}
    with dense(model, list(names), _bases(names, statistics, settings)) as adapter, torch.enable_grad():
        optimiser = Muon(_groups(adapter), momentum=0.9, weight_decay=0.0)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min(1, (step + 1) / WARM) * (1 - step / steps)
        )
        with progress.step("Training the update", total=steps) as bar:
            for _ in range(steps):
                loss = _loss(model, adapter, rows, settings.silence)
                if not torch.isfinite(loss):
                    raise ModelError("the loss of the trained update is not finite; try a larger dtype")
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                rate.step()
                bar.advance()
        factors = dict(adapter.factors())
        solved = _reached(model, rows.forms, 1 + max(row.request for row in rows.forms), steps)
    return factors, solved


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


def _bases(
    names: Mapping[str, int], statistics: Mapping[int, Statistics], settings: Editor
) -> dict[str, Tensor]:
    """By weight name the directions of the null space, (d_in, r)."""
    found = {}
    for name, layer in names.items():
        spectrum = statistics[layer].spectrum
        found[name] = spectrum.vectors[:, kept_directions(spectrum, settings) :]
    return found


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


def _reached(model: EditableModel, rows: Sequence[Row], requests: int, steps: int) -> Solved:
    """Per request the NLL of its target per token, the worst of its forms, as the model stands."""
    worst = [0.0] * requests
    mute: set[int] = set()
    for row, tokens in zip(rows, hear(model, rows).targets, strict=True):
        worst[row.request] = max(worst[row.request], float(-tokens.clamp_min(1e-30).log().mean()))
        if bool((tokens < BEGINS).any()):
            mute.add(row.request)
    nothing = torch.zeros(0, model.anatomy.d_model)
    return Solved(nothing, tuple(worst), (0.0,) * requests, (steps,) * requests, tuple(sorted(mute)))
