"""What an edit costs without a question being asked: in weights, and in their outputs on other text.

Every function takes the unedited model as it is, and the change of its matrices one at a time, so that patches and
whole models are measured by the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearn.algebra import low_rank
from unlearn.audit.drift import Row, norm_of_difference, norm_of_patch
from unlearn.audit.intervals import bootstrap_ratio
from unlearn.audit.measures import Limits
from unlearn.errors import AuditError
from unlearn.measurements import GROWTH, NORM, named
from unlearn.model.adapters import linears
from unlearn.model.budget import token_budget
from unlearn.model.editable import EditableModel
from unlearn.model.forward import batches, hooked, passed
from unlearn.model.offload import parameters
from unlearn.model.rows import left_pad
from unlearn.patch import Patch
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.report import Measurement

LEAKAGE = "drift.null_space_leakage"
Energies = dict[str, list[tuple[float, float]]]
"""By weight, per row of text: sums over its tokens of ``|D x|^2`` and ``|W x|^2``."""


@dataclass(frozen=True)
class Change:
    """What an edit did to the weights."""

    relative: Mapping[str, float]
    """By matrix that changed, ``|D| / |W|`` (Frobenius)."""
    growth: Mapping[str, float]
    """By matrix that changed, ``|W + D| / |W| - 1``."""
    names: tuple[str, ...]
    """Those that are linear layers inside the blocks."""
    delta: Callable[[str], Tensor]
    """``D`` of one of these, (d_out, d_in), float32, made when it is asked for."""


def change_of_patch(model: EditableModel, patch: Patch) -> Change:
    """The change by a patch; the model must not be patched at the moment."""
    relative = norm_of_patch(model, patch)
    grown = {name: factor.growth(model.weight(name)) for name, factor in patch.factors.items()}
    return Change(relative, grown, tuple(patch.factors), lambda name: patch.factors[name].dense())


def change_between(before: EditableModel, after: EditableModel) -> Change:
    """The change from one model to another.

    Raises:
        AuditError: they do not have the same matrices, or are one and the same object.
    """
    if before is after:
        raise AuditError(
            "the edited weights replaced the unedited ones, so no difference between them can be taken"
        )
    relative = norm_of_difference(before, after)
    old, new = parameters(before.model), parameters(after.model)
    grown = {name: low_rank.growth(old[name](), new[name]()) for name in relative}

    def delta(name: str) -> Tensor:
        weight = before.weight(name).float()
        return after.weight(name).float().to(weight.device) - weight

    inside = set(linears(before))
    return Change(relative, grown, tuple(name for name in relative if name in inside), delta)


def norm(change: Change, limits: Limits) -> Measurement:
    """drift.norm: the largest update relative to its matrix; nothing changed is 0."""
    return _largest(NORM, change.relative, limits)


def growth(change: Change, limits: Limits) -> Measurement:
    """drift.norm_growth: how much longer a matrix has become, at most."""
    return _largest(GROWTH, change.growth, limits)


def _largest(name: str, values: Mapping[str, float], limits: Limits) -> Measurement:
    return Measurement.made(
        name,
        _worst(values),
        limits(name),
        n=len(values),
        unit="ratio",
        definition=named(name).definition,
        by_weight=dict(values),
    )


def _worst(values: Mapping[str, float]) -> float:
    """The largest; one that is not finite before all others, which `max` may pass over."""
    broken = (value for value in values.values() if not math.isfinite(value))
    return next(broken, max(values.values(), default=0.0))


@torch.inference_mode()
def energies(
    model: EditableModel, change: Change, rows: Sequence[Row], progress: Progress = NO_PROGRESS
) -> Energies:
    """What the change adds to the outputs of its layers on text, and what the layers put out themselves.

    The sum over tokens of ``|D x|^2`` is ``tr(D C D^T)`` times their number, for ``C = E[x x^T]``: so nothing of size
    d_in x d_in is ever formed, and one pass of the unedited model serves all layers.

    Returns:
        By weight. A layer that does not see its tokens in rows is left out.
    """
    found: Energies = {name: [(0.0, 0.0)] * len(rows) for name in change.names}
    with progress.step("Null-space leakage", total=len(rows)) as bar:
        for group in batches(rows, token_budget(model)):
            ids, mask = left_pad([rows[i] for i in group], model.pad_id, model.device)
            with _weighed(model, change, group, mask, found):
                passed(model, ids, mask, 1)
            bar.advance(len(group))
    return {name: sums for name, sums in found.items() if any(whole for _, whole in sums)}


def _weighed(
    model: EditableModel, change: Change, group: Sequence[int], mask: Tensor, found: Energies
) -> AbstractContextManager[None]:
    """Add up both energies per row while the model runs."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def on_input(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs = args[0]
            if inputs.shape[:-1] != mask.shape:
                return
            inputs = inputs.float()
            sums = []
            for matrix in (change.delta(name), model.weight(name)):
                out = (inputs @ matrix.to(inputs.device).float().T).square().sum(-1).double()
                sums.append((out * mask.to(out.device)).sum(-1).tolist())
            for i, part, whole in zip(group, *sums, strict=True):
                found[name][i] = (part, whole)

        return on_input

    handles = [
        model.anatomy.projection(model.model, name).listener.register_forward_pre_hook(hook(name))
        for name in change.names
    ]
    return hooked(handles)


def leakage(
    model: EditableModel,
    change: Change,
    rows: Sequence[Row],
    about: str,
    limits: Limits,
    seed: int,
    progress: Progress = NO_PROGRESS,
) -> Measurement:
    """drift.null_space_leakage: the worst layer's ``sqrt(tr(D C D^T) / tr(W C W^T))`` on text.

    ``C`` holds the moments of the layer's inputs on this text. An update inside the null space of the text that it was
    made with is still not inside that of other text: this is what is left over. The interval resamples texts.

    Args:
        rows: token ids of text that the edit's statistics did not see.
        about: what that text is.
    """
    name = LEAKAGE
    definition = f"{named(name).definition} Text: {about}."
    tokens = sum(map(len, rows))
    found = energies(model, change, rows, progress) if change.names else {}
    if change.relative and not found:
        reason = "no linear layer inside the blocks has changed, and other matrices have no inputs to weigh"
        return Measurement.missing(name, reason, limits(name), unit="ratio", definition=definition)
    values = {}
    for weight, sums in found.items():
        part, whole = (sum(column) for column in zip(*sums, strict=True))
        values[weight] = (part / whole) ** 0.5 if whole else (math.inf if part else 0.0)
    interval = None
    if values and math.isfinite(_worst(values)):
        worst = [pair for pair in found[max(values, key=lambda weight: values[weight])] if pair[1] > 0]
        spread = bootstrap_ratio([part for part, _ in worst], [whole for _, whole in worst], seed)
        interval = None if spread is None else (spread[0] ** 0.5, spread[1] ** 0.5)
    if len(change.relative) > len(found):
        definition += f" {len(change.relative) - len(found)} matrices that are no linear layers are left out."
    return Measurement.made(
        name,
        _worst(values),
        limits(name),
        n=tokens,
        ci95=interval if values else (0.0, 0.0),
        unit="ratio",
        definition=definition,
        by_weight=values,
    )


def watched(model: EditableModel, change: Change | None) -> tuple[int, ...]:
    """Layers whose states are compared: the deepest that changed (else two thirds of the way up), and the last."""
    depth = model.anatomy.layers
    marks = [f"{model.anatomy.family.blocks}.{layer}." for layer in range(depth)]
    names = change.relative if change else ()
    touched = [layer for layer, mark in enumerate(marks) if any(name.startswith(mark) for name in names)]
    return tuple(sorted({max(touched, default=2 * depth // 3), depth - 1}))
