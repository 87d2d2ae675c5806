"""What many traces say together: average effects by token and layer, and the layers that an editor should write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.errors import ModelError
from unlearn.model.traced import NO_MLP, ROLES, STATE, Trace

LEAST, MOST = 2, 5
"""Fewest and most layers of a proposal: shared out, an update is shorter in each (published: five or six)."""
ENOUGH = 0.8
"""A shorter run is proposed if it carries this share of what the best one carries."""
LITTLE = 0.1
"""Share of the whole effect that MLPs must mediate at a token for a proposal to mean anything."""


@dataclass(frozen=True)
class Average:
    """Average indirect effects: means over prompts of the mean over a role's tokens in each."""

    prompts: int
    clean: float
    corrupted: float
    effects: Mapping[str, Tensor]
    """By kind, (roles, layers); NaN for a role that no prompt has."""
    errors: Mapping[str, Tensor]
    """Standard errors over prompts, in the same shape; NaN with fewer than two prompts."""
    counts: tuple[int, ...]
    """Prompts that have each role."""


def average(traces: Sequence[Trace]) -> Average:
    """Average traces by role and layer.

    Raises:
        ModelError: there is none.
    """
    if not traces:
        raise ModelError("there is nothing to average: no prompt was traced")
    held = [[[i for i, r in enumerate(found.roles) if r == role] for found in traces] for role in ROLES]
    effects: dict[str, Tensor] = {}
    errors: dict[str, Tensor] = {}
    for kind, first in traces[0].effects.items():
        mean = torch.full((len(ROLES), first.shape[0]), torch.nan)
        error = mean.clone()
        for number, tokens in enumerate(held):
            rows = [t.effects[kind][:, at].mean(1) for t, at in zip(traces, tokens, strict=True) if at]
            if rows:
                stacked = torch.stack(rows)  # (prompts, layers)
                mean[number] = stacked.mean(0)
                if len(rows) > 1:
                    error[number] = stacked.std(0) / len(rows) ** 0.5
        effects[kind], errors[kind] = mean, error
    return Average(
        prompts=len(traces),
        clean=sum(found.clean for found in traces) / len(traces),
        corrupted=sum(found.corrupted for found in traces) / len(traces),
        effects=effects,
        errors=errors,
        counts=tuple(sum(bool(at) for at in tokens) for tokens in held),
    )


def mediated(found: Average, role: str) -> Tensor:
    """What severing the MLPs above a layer costs the effect of that layer's state, (layers,).

    It is the part of the effect that the MLPs of the same token, above the layer, still have to bring about.
    """
    row = ROLES.index(role)
    return found.effects[STATE][row] - found.effects[NO_MLP][row]


def propose(found: Average, role: str, least: int = LEAST, most: int = MOST) -> tuple[int, ...]:
    """The layers whose MLPs turn the state at a token into the answer.

    What is ``mediated`` by the MLPs above a layer falls where they do their work: over layers a to b it falls by
    mediated(a - 1) - mediated(b). Of all runs of ``least`` to ``most`` layers the shortest is taken that has at least
    ``ENOUGH`` of the steepest fall. The last layer is left out: what is written there no layer reads, and the fall to
    zero at it says nothing. docs/guides/trace.md says why; Meng et al., "Mass-Editing Memory in a Transformer", ICLR
    2023, section 4.2, choose by eye from the same two curves.

    Args:
        found: averages with the kinds ``STATE`` and ``NO_MLP``.
        role: the token at which the method writes.
        least: shortest run; 1 for a method that writes one layer.
        most: longest run.

    Returns:
        Ascending layers; none where the MLPs of that token mediate less than ``LITTLE`` of the whole effect, or the
        model has too few layers.
    """
    gap = mediated(found, role).tolist()
    layers = len(gap) - 1
    falls = {
        (a, b): gap[a - 1] - gap[b]
        for a in range(1, layers)
        for b in range(a + least - 1, min(a + most, layers))
    }
    steepest = max(falls.values(), default=0.0)
    if steepest <= 0 or not steepest >= LITTLE * (found.clean - found.corrupted):
        return ()
    a, b = min(
        (run for run, fall in falls.items() if fall >= ENOUGH * steepest),
        key=lambda run: (run[1] - run[0], -falls[run]),
    )
    return tuple(range(a, b + 1))
