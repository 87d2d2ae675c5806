"""How far an edit moves the hidden states: of prompts whose answers must stay, and of those that are forbidden.

An edit that keeps the weights' length may still push every state in one direction, which later edits and every later
layer then meet. So the shift of the mean is given relative to the spread that the states had before; and the states
are projected to the plane in which they, before and after, vary most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unlearn.algebra.shift import shift
from unlearn.audit.measures import Limits
from unlearn.audit.probes import Probe, benign_lines, build_probes, line_probes
from unlearn.audit.suite import load_suite, some
from unlearn.measurements import HIDDEN, named
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.requests import Requests
from unlearn.report import Cloud, Drawing, Measurement

KEPT, FORBIDDEN, BENIGN = "kept", "forbidden", "benign"
WATCHED = "the larger of the deepest edited block and the last one"
"""At which blocks an audit looks (`unlearn.audit.cost.watched`)."""
PROMPTS = 120
"""Most prompts of each group; the same in every state."""
RESAMPLES = 200
"""Of the prompts, for the interval of drift.hidden."""


@dataclass(frozen=True)
class Plane:
    """Coordinates in the plane of the first two principal components of the states before and after."""

    layer: int
    explained: tuple[float, float]
    """Shares of the variance."""
    before: Mapping[str, list[tuple[float, float]]]
    """By group, one point per prompt; in units of the first component's standard deviation."""
    after: Mapping[str, list[tuple[float, float]]]


def prompts(model: EditableModel, requests: Requests) -> dict[str, list[Probe]]:
    """The prompts whose states are read, by group: with the model's present tokenizer, so a guard is part of them.

    Kept are the held-out prompts of siblings and neighbours, forbidden the policy's own and its held-out prompts about
    the facts. Benign questions are a group of their own: they lie so far from both that they would hide any shift.
    Groups without prompts are left out.
    """
    policy = requests.policy
    suite = load_suite(policy.audit.suite)
    groups = build_probes(model.tokenizer, requests.answered(), suite)
    seed = policy.audit.seed
    most = min(PROMPTS, suite.benign_questions or PROMPTS)
    benign = line_probes(model.tokenizer, benign_lines(policy.audit.benign), most, seed)
    kept = [*groups.get("siblings", ()), *groups.get("neighbours", ())]
    asked = [probe for name in ("direct", "held_out", "cloze") for probe in groups.get(name, ())]
    found = {KEPT: some(kept, PROMPTS, seed), FORBIDDEN: some(asked, PROMPTS, seed), BENIGN: benign}
    return {name: group for name, group in found.items() if group}


def states(
    model: EditableModel, groups: Mapping[str, Sequence[Probe]], layers: Sequence[int]
) -> dict[int, dict[str, Tensor]]:
    """Outputs of blocks at the last prompt token: per layer and group (prompts, d_model), float32 on the CPU."""
    rows = [probe.prompt.ids for group in groups.values() for probe in group]
    if not rows or not layers:
        return {}
    stream = read(model, rows, [[len(row) - 1] for row in rows], stream_layers=sorted(set(layers))).stream
    sizes = [len(group) for group in groups.values()]
    return {
        layer: dict(zip(groups, found.T.float().cpu().split(sizes), strict=True))
        for layer, found in stream.items()
    }


def plane(layer: int, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Plane | None:
    """Project states before and after to their first two principal components; benign questions are left out.

    The components are those of all states together, centred on the mean before: what an edit adds shows, wherever it
    points. Signs are fixed, so that the same states give the same picture.

    Returns:
        The plane; None where the states span none (fewer than three, or not finite).
    """
    groups = [group for group in before if group != BENIGN] or list(before)
    old = torch.cat([before[group] for group in groups]).double()
    new = torch.cat([after[group] for group in groups]).double()
    both = torch.cat([old, new]) - old.mean(0)
    if len(old) < 3 or not torch.isfinite(both).all():
        return None
    _, sizes, directions = torch.linalg.svd(both, full_matrices=False)
    if not sizes[0] > 0:
        return None
    axes = directions[:2]
    axes = axes * torch.sign(axes.gather(1, axes.abs().argmax(1, keepdim=True)))
    points = both @ axes.T / (sizes[0] / len(both) ** 0.5)
    shares = sizes.square() / sizes.square().sum()

    def cut(rows: Tensor) -> dict[str, list[tuple[float, float]]]:
        parts = rows.split([len(before[group]) for group in groups])
        return {
            group: [(round(float(x), 4), round(float(y), 4)) for x, y in part]
            for group, part in zip(groups, parts, strict=True)
        }

    return Plane(
        layer, (float(shares[0]), float(shares[1])), cut(points[: len(old)]), cut(points[len(old) :])
    )


def drift_of_states(
    before: Mapping[int, Mapping[str, Tensor]],
    after: Mapping[int, Mapping[str, Tensor]],
    limits: Limits,
    seed: int,
) -> tuple[Measurement, list[Drawing]]:
    """`shift_of_states`, and the plane in which the states of the first layer moved."""
    measured = shift_of_states(before, after, limits, seed)
    if measured.after is None:
        return measured, []
    first = min(before)
    drawn = plane(first, before[first], after[first])
    return measured, [] if drawn is None else _clouds(drawn)


def shift_of_states(
    before: Mapping[int, Mapping[str, Tensor]],
    after: Mapping[int, Mapping[str, Tensor]],
    limits: Limits,
    seed: int,
) -> Measurement:
    """drift.hidden: the largest shift of the kept prompts' mean state at any of the layers.

    Args:
        before: by layer and group (prompts, d_model), of the unedited model (`states`).
        after: of the edited one, for the same prompts.
    """
    name = HIDDEN
    limit = limits(name)
    definition = f"{named(HIDDEN).definition.removesuffix('.')}; {WATCHED}."
    groups = {group for states in before.values() for group in states}
    group = KEPT if KEPT in groups else BENIGN
    shifts = {
        layer: found
        for layer in before
        if group in before[layer] and (found := shift(before[layer][group], after[layer][group])) is not None
    }
    if not shifts:
        reason = "there are no two kept prompts whose hidden states differ"
        return Measurement.missing(name, reason, limit, unit="ratio", definition=definition)
    if not all(np.isfinite(found.mean) for found in shifts.values()):
        state = "edited" if all(np.isfinite(found.spread) for found in shifts.values()) else "unedited"
        reason = f"the hidden states of the {state} model are not finite"
        return Measurement.missing(name, reason, limit, unit="ratio", definition=definition)
    worst = max(shifts, key=lambda layer: shifts[layer].mean)
    told = ", ".join(f"{found.mean:.4f} at block {layer}" for layer, found in sorted(shifts.items()))
    return Measurement.made(
        name,
        shifts[worst].mean,
        limit,
        n=shifts[worst].prompts,
        ci95=_resampled(before[worst][group], after[worst][group], seed),
        unit="ratio",
        definition=f"{definition} Prompts: {group}; {told}.",
    )


def _resampled(before: Tensor, after: Tensor, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean's shift, resampling prompts."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        rows = torch.from_numpy(rng.integers(0, len(before), len(before)))
        got = shift(before[rows], after[rows])
        found.append(0.0 if got is None else got.mean)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _clouds(drawn: Plane) -> list[Drawing]:
    """The drawings of a plane, one per state."""
    labels = [
        f"principal component {i + 1} ({100 * share:.0f} % of the variance)"
        for i, share in enumerate(drawn.explained)
    ]
    return [
        Cloud(
            name=HIDDEN,
            state=state,
            x_label=f"block {drawn.layer}, {labels[0]}",
            y_label=labels[1],
            points={group: tuple(points) for group, points in found.items()},
        )
        for state, found in (("before", drawn.before), ("after", drawn.after))
    ]
