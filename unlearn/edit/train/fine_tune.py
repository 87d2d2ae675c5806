"""FT-M: fine-tuning of one MLP down-projection, the loss on the target's tokens only (docs/methods/ft_m.md)."""

from __future__ import annotations

from unlearn.edit.train.lessons import lessons
from unlearn.edit.train.loop import Trained, minimise
from unlearn.edit.train.replied import Replied, per_token
from unlearn.model.adapters import dense
from unlearn.model.editable import EditableModel
from unlearn.model.narrow import quick_passes
from unlearn.model.requests import Requests
from unlearn.policy.settings_trained import FineTune
from unlearn.progress import NO_PROGRESS, Progress


def ft_m(
    model: EditableModel,
    requests: Requests,
    settings: FineTune,
    layer: int,
    progress: Progress = NO_PROGRESS,
) -> Trained:
    """Make the targets likely by one layer; nothing holds the rest (FT-M in EasyEdit, Zhang et al., 2024)."""
    learned = lessons(model, requests, own=False, kept=0)
    with quick_passes(model, 0, learned.longest), dense(model, [model.anatomy.weight_name(layer)]) as adapter:
        history = minimise(
            adapter,
            learned,
            Replied(model, learned, layer).step(per_token, keep=0.0),
            lambda first, forget, keep: forget < settings.converged,
            settings,
            seed=requests.policy.seed,
            progress=progress,
            label="Fine-tuning",
        )
        return Trained(adapter.factors(), history)
