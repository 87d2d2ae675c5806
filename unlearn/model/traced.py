"""What is traced, and what a trace found (`unlearn.model.trace`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

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
