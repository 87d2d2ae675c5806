"""RMU: activations of forbidden prompts are steered to a random direction, kept ones held (docs/methods/rmu.md)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlearn.edit.train.lessons import Lesson, lessons
from unlearn.edit.train.loop import Losses, Trained, minimise
from unlearn.edit.train.lora import something
from unlearn.model.adapters import Adapter, dense, stream_at
from unlearn.model.editable import EditableModel
from unlearn.model.narrow import quick_passes
from unlearn.model.requests import Requests
from unlearn.policy.settings_trained import Rmu
from unlearn.progress import NO_PROGRESS, Progress


def rmu(
    model: EditableModel,
    requests: Requests,
    settings: Rmu,
    chosen: Sequence[int],
    progress: Progress = NO_PROGRESS,
) -> Trained:
    """Representation misdirection (Li et al., 2024), with lengths relative to the stream.

    Args:
        chosen: the layers that are trained; the output of the last is steered.
    """
    learned = something(model, lessons(model, requests, own=True, kept=settings.kept * settings.steps), "RMU")
    generator = torch.Generator().manual_seed(requests.policy.seed)
    direction = torch.rand(model.anatomy.d_model, generator=generator).to(model.device)
    names = [model.anatomy.weight_name(layer) for layer in chosen]
    with quick_passes(model, 0, learned.longest), dense(model, names) as adapter:
        length = _length(model, learned.forget[: settings.batch], chosen[-1], settings)
        target = settings.steer * length * direction / direction.norm()

        def step(forget: Sequence[int], kept: Sequence[int]) -> Losses:
            asked = [learned.forget[i] for i in forget]
            now, mask = stream_at(model, [row.ids for row in asked], chosen[-1])
            steered = (
                _mean((now - target).square().sum(-1), _tokens(asked, mask, settings.tokens)) / length**2
            )
            held = _held(model, adapter, [learned.kept[i] for i in kept], chosen[-1]) / length**2
            (steered + settings.keep * held).backward()
            return Losses(steered.item(), held.item())

        history = minimise(
            adapter,
            learned,
            step,
            lambda first, forget, keep: forget < settings.converged * first,
            settings,
            seed=requests.policy.seed,
            progress=progress,
            label="RMU",
        )
        return Trained(adapter.factors(), history)


def _held(model: EditableModel, adapter: Adapter, kept: Sequence[Lesson], layer: int) -> Tensor:
    """Mean over all tokens of kept rows of the squared change of the stream; 0 without rows."""
    if not kept:
        return torch.zeros((), device=model.device)
    ids = [row.ids for row in kept]
    with torch.no_grad(), adapter.off():
        before, _ = stream_at(model, ids, layer)
    now, mask = stream_at(model, ids, layer)
    return _mean((now - before).square().sum(-1), mask)


@torch.no_grad()
def _length(model: EditableModel, rows: Sequence[Lesson], layer: int, settings: Rmu) -> float:
    """Root mean square length of the stream at the tokens that will be steered."""
    stream, mask = stream_at(model, [row.ids for row in rows], layer)
    return float(_mean(stream.square().sum(-1), _tokens(rows, mask, settings.tokens)).sqrt())


def _tokens(rows: Sequence[Lesson], mask: Tensor, which: str) -> Tensor:
    """The tokens of left-padded rows that are steered, (rows, T)."""
    if which == "all":
        return mask
    width = mask.shape[1]
    replies = torch.tensor([row.reply for row in rows], device=mask.device)
    # One before the reply: the last prompt token predicts its first.
    return mask * (torch.arange(width, device=mask.device)[None] >= width - replies[:, None] - 1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum()
