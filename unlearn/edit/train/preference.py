"""Unlearning without a target: gradient difference and NPO, on LoRA factors (docs/methods/grad_diff.md, npo.md)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import logsigmoid

from unlearn.edit.train.loop import Trained
from unlearn.edit.train.lora import tune
from unlearn.edit.train.replied import Forgetting, Replied, Said, per_token
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.policy.settings_trained import GradDiff, Npo
from unlearn.progress import NO_PROGRESS, Progress


def grad_diff(
    model: EditableModel, requests: Requests, settings: GradDiff, progress: Progress = NO_PROGRESS
) -> Trained:
    """Gradient ascent on the model's own replies to forbidden prompts, descent on kept ones (Liu et al., 2022).

    A reply that is as unlikely as ``enough`` says has no gradient any more: the ascent has no end of its own, and
    between two looks at an epoch it destroys the model.
    """
    vocabulary = int(model.model.config.get_text_config().vocab_size)
    enough = settings.enough * math.log(vocabulary)

    return tune(
        model,
        requests,
        settings,
        lambda _: lambda said: -per_token(said).clamp(max=enough),
        lambda first, forget, keep: -forget >= 0.95 * enough,
        own=True,
        progress=progress,
        label="Gradient difference",
    )


def npo(model: EditableModel, requests: Requests, settings: Npo, progress: Progress = NO_PROGRESS) -> Trained:
    """Negative preference optimisation: (2 / beta) E log(1 + (p / p_before)^beta) on forbidden replies (eq. 3 there).

    The probabilities are of whole replies. At beta to 0 its gradient is that of gradient ascent, up to a factor; at any
    other beta a reply that has become unlikely weighs less and less, which is what keeps the model from collapsing.
    """

    def forgetting(rows: Replied) -> Forgetting:
        before = rows.sums()

        def lost(said: Said) -> Tensor:
            gained = said.nll - before[list(said.rows)]  # log(p_before / p), (rows,)
            return -2 / settings.beta * logsigmoid(settings.beta * gained)

        return lost

    return tune(
        model,
        requests,
        settings,
        forgetting,
        lambda first, forget, keep: forget < settings.converged * first,
        own=True,
        progress=progress,
        label="NPO",
    )
