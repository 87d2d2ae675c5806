"""An edit that is made bit by bit: batches of a policy, one after another, and policies on top of earlier patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.running import Running
from unlearn.algebra.write import Kept, condense
from unlearn.files import Json
from unlearn.model.editable import EditableModel
from unlearn.patch import Patch
from unlearn.stages import Stage, noted

KEYS, RUNNING = "keys.", "running."
"""What the names of state tensors begin with; a layer's number follows."""


@dataclass(frozen=True)
class Reached:
    """How far the targets of some facts got, one number per request."""

    nll: tuple[float, ...]
    """Negative log-likelihood per target token, the worst of its forms; what the old reply's likelihood adds to the
    loss of a value is part of it."""
    kl: tuple[float, ...]
    """Mean KL per token on its kept rows; 0 if it has none."""
    steps: tuple[int, ...]
    """Steps until it converged, or the most allowed."""
    unreached: tuple[int, ...] = ()
    """Requests with target tokens that were left unlikely on some form, by index; empty where nobody asked."""


@dataclass(frozen=True)
class Written:
    """What one batch writes."""

    factors: Mapping[str, LowRank]
    """By weight name."""
    keys: Mapping[int, Tensor]
    """Per layer the batch's keys (d_in, n), as they stood in the equation: what later batches keep."""
    ranks: Mapping[int, int]
    """Per layer the dimension of the space in which the update was free to write."""
    still: Mapping[int, Kept | None] = field(default_factory=dict)
    """Per layer the keys that had to keep their values, each times the root of its weight, (d_in, m)."""
    running: Mapping[int, Running] = field(default_factory=dict)
    """Per layer statistics of keys and gradients with this batch (`ultra_edit`)."""


@dataclass(frozen=True)
class Trial:
    """An update that is tried on the model in hand while it is being made: no file holds one."""

    factors: Mapping[str, LowRank]
    base: None = None
    header: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Sofar:
    """The update so far, with what later batches need; it fits the unedited model."""

    factors: Mapping[str, LowRank] = field(default_factory=dict)
    keys: Mapping[int, Tensor] = field(default_factory=dict)
    """Per layer the keys of everything written before, (d_in, N), at most d_in of them."""
    ranks: Mapping[int, int] = field(default_factory=dict)
    running: Mapping[int, Running] = field(default_factory=dict)
    """Per layer statistics of the keys and gradients of everything that `ultra_edit` wrote."""
    builds_on: tuple[Mapping[str, Json], ...] = ()
    """One row per earlier patch: its policy, method, layers and number of facts."""
    stages: tuple[Stage, ...] = ()
    """What was noted of it as it grew (``edit.course``)."""

    @classmethod
    def after(cls, earlier: Patch | None, model: EditableModel) -> Sofar:
        """Begin where an earlier patch ends; with nothing if there is none."""
        if earlier is None:
            return cls()
        header, device = earlier.header, model.device
        keys = _layers(earlier, KEYS, device)
        running = {at: Running.read(rows) for at, rows in _layers(earlier, RUNNING, device).items()}
        row = {
            "policy": header.get("policy"),
            "method": (header.get("method") or {}).get("name"),
            "layers": header.get("layers", []),
            "facts": sum(header.get("batches", ())),
        }
        factors = {
            name: LowRank(delta.left.to(device), delta.right.to(device))
            for name, delta in earlier.factors.items()
        }
        builds_on = (*header.get("builds_on", ()), row)
        return cls(factors, keys, running=running, builds_on=builds_on, stages=noted(header))

    @property
    def facts(self) -> int:
        """Written by the earlier patches."""
        return sum(row.get("facts", 0) for row in self.builds_on)

    def plus(self, written: Written) -> Sofar:
        """The update with one more batch."""
        factors = dict(self.factors)
        for name, delta in written.factors.items():
            factors[name] = factors[name].plus(delta) if name in factors else delta
        keys = dict(self.keys)
        for layer, mine in written.keys.items():
            keys[layer] = condense(torch.cat([keys[layer], mine], 1) if layer in keys else mine)
        ranks = {**self.ranks, **written.ranks}
        running = {**self.running, **written.running}
        return replace(self, factors=factors, keys=keys, ranks=ranks, running=running)

    def earlier(self, layer: int, weight: float) -> Tensor | None:
        """Keys of earlier batches at a layer, times the root of their weight; None if there are none to keep."""
        return weight**0.5 * self.keys[layer] if weight and layer in self.keys else None

    def deltas(self) -> Trial:
        """The update for ``EditableModel.patched``, on the model that it was made on."""
        return Trial(self.factors)

    def state(self) -> dict[str, Tensor]:
        """What goes into the patch file besides the factors."""
        keys = {f"{KEYS}{layer}": keys for layer, keys in self.keys.items()}
        return keys | {f"{RUNNING}{layer}": running.rows() for layer, running in self.running.items()}


def _layers(patch: Patch, kind: str, device: torch.device) -> dict[int, Tensor]:
    """A patch's state tensors of a kind, by layer."""
    return {
        int(name.removeprefix(kind)): tensor.to(device)
        for name, tensor in patch.state.items()
        if name.startswith(kind)
    }
