"""What is traced (`unlearn.model.trace`), and what many traces say together: averages, and the layers to write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.errors import ModelError

STATE, MLP, ATTENTION = "state", "mlp", "attention"
NO_MLP, NO_ATTENTION = "state, mlp severed", "state, attention severed"
KINDS = (STATE, MLP, ATTENTION, NO_MLP, NO_ATTENTION)
"""What is restored, and what is severed meanwhile."""
ROLES = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "further tokens",
    "last token",
)
"""Where it is restored. The token of a subject of one token is its last."""


@dataclass(frozen=True)
class Traceable:
    """A prompt whose next token gives the answer."""

    ids: tuple[int, ...]
    subject: tuple[int, int]
    """Index of the first and of the last token of the subject."""
    target: int
    """The token that must come next."""

    @property
    def first(self) -> int:
        """Index of the first token that is traced."""
        return self.subject[0]

    def role(self, at: int) -> str:
        """The role of the token at an index from the subject on; the last subject token comes before all."""
        first, last = self.subject
        if at == last:
            return ROLES[2]
        if at == len(self.ids) - 1:
            return ROLES[4]
        return ROLES[3] if at > last else ROLES[0] if at == first else ROLES[1]


@dataclass(frozen=True)
class Trace:
    """What was found for one prompt: probabilities of its target, means over the samples of the noise."""

    clean: float
    corrupted: float
    effects: Mapping[str, Tensor]
    """By kind, (layers, tokens from the subject on): probability with the restored state less ``corrupted``."""
    roles: tuple[str, ...]
    """Per traced token."""


def default_window(layers: int) -> int:
    """Layers whose MLP or attention outputs are restored together: a fifth of the depth (published: 10 of 48)."""
    return max(1, round(10 * layers / 48))


def span(layer: int, window: int, layers: int) -> range:
    """The window around a layer, cut off at both ends of the model."""
    first = layer - window // 2
    return range(max(0, first), min(layers, first + window))


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
