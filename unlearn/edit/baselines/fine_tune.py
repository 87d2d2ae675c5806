"""FT-M: fine-tuning of one MLP down-projection, the loss on the target's tokens only (docs/methods/ft_m.md)."""

from __future__ import annotations

import torch

from unlearn.edit.baselines.lessons import lessons
from unlearn.edit.baselines.training import Losses, one_layer, patch, replies, train
from unlearn.model.adapters import dense
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy.settings_baselines import FineTune
from unlearn.progress import NO_PROGRESS, Progress


def chosen_layer(model: EditableModel, settings: FineTune) -> int:
    """The layer that is trained."""
    return one_layer(model, settings, model.anatomy.layers // 2)


def ft_m(
    model: EditableModel, requests: Requests, settings: FineTune, progress: Progress = NO_PROGRESS
) -> Patch:
    """Make the targets likely by one layer; nothing holds the rest (FT-M in EasyEdit, Zhang et al., 2024)."""
    layer = chosen_layer(model, settings)
    learned = lessons(model, requests, own=False, kept=0)
    none = torch.zeros((), device=model.device)
    with dense(model, [model.anatomy.weight_name(layer)]) as adapter:
        history = train(
            adapter,
            learned,
            lambda forget, _: Losses(replies(model, forget).nll().mean(), none),
            lambda first, forget, keep: forget < settings.converged,
            settings,
            seed=requests.policy.seed,
            progress=progress,
            label="Fine-tuning",
        )
        factors = adapter.factors()
    return patch(model, requests, factors, history, layers=[layer])
