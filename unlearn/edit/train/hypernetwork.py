"""A map from the gradient of an edit to a better update (MEND), and the least squares that put many together (MALMEN).

The gradient of a loss with respect to a linear layer's weight is a sum over tokens, ``sum_j delta_j x_j^T``, of the
layer's inputs and the gradients at its outputs. A small network maps each pair to another, ``(x~, delta~)``, and the
update of the weight is a learned step along those:

    z = ((x, delta) - mean) / deviation          of the layer, over the edits that the network is trained on
    h = z + max(0, s1 * (U1 V1 z) + o1)          U, V of one network per shape of weight; s, o of each weight
    r = s2 * (U2 V2 h) + o2 + (h - z)
    (x~, delta~) = (x, delta) + deviation * r    so that with U = 0 the update is a step of gradient descent
    update = - step * mean over edits of sum_j delta~_j x~_j^T

Many edits at once would drown each other in that mean. Instead each token's own update says what it wants to add to
the layer's output there, ``v_j = - step * delta~_j (x~_j . x_j)``, and one update comes nearest to all of these:

    update = V K^T (K K^T + ridge I)^-1          with x_j and v_j as the columns of K and V
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from unlearn.edit.train.replied import Replied, per_token
from unlearn.model.editable import EditableModel
from unlearn.model.forward import hooked

Aggregation = Literal["least_squares", "mean"]
WIDEST = 12.0
"""Largest logarithm of a ridge relative to an input's squared length, either way: a system must stay solvable."""
LEAST = 1e-3
"""Least deviation of a coordinate, relative to all: one that never moved must not drown the others when it does."""
TINY = 1e-12
"""What is divided by at least."""


class Tokens(NamedTuple):
    """What a linear layer saw of some rows, at the tokens that their loss depends on; float32."""

    inputs: Tensor
    """(n, d_in)."""
    gradients: Tensor
    """Of the loss, at the layer's outputs, (n, d_out)."""


def captured(
    model: EditableModel, names: Sequence[str], rows: Replied, which: Sequence[int]
) -> dict[str, Tokens]:
    """By weight name what the layers see of rows whose replies are to become likely.

    The loss is the sum over rows of the mean negative log-likelihood per token of the reply, so that no row's gradients
    depend on the others. The model's weights get no gradient.

    Args:
        which: of the rows.
    """
    inputs: dict[str, Tensor] = {}
    probes: dict[str, Tensor] = {}
    found: dict[str, list[Tokens]] = {name: [] for name in names}

    def probe(name: str, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        inputs[name] = given[0].detach()
        probes[name] = torch.zeros_like(out, requires_grad=True)
        return out + probes[name]

    handles = [
        model.model.get_submodule(name.removesuffix(".weight")).register_forward_hook(
            lambda _, given, out, name=name: probe(name, given, out)
        )
        for name in names
    ]
    with hooked(handles), torch.enable_grad():
        for said in rows.said(which):
            gradients = torch.autograd.grad(per_token(said).sum(), [probes[name] for name in names])
            for name, gradient in zip(names, gradients, strict=True):
                # Padding has none, nor have, in the last block, tokens that predict nothing of the reply.
                used = gradient.abs().amax(-1) > 0
                found[name].append(Tokens(inputs[name][used].float(), gradient[used].float()))
    return {
        name: Tokens(*(torch.cat(parts) for parts in zip(*some, strict=True))) for name, some in found.items()
    }


class Columns(NamedTuple):
    """What tokens contribute to an update, one column each."""

    left: Tensor
    """(d_out, n): what each wants to add (V), or ``- step * delta~``."""
    right: Tensor
    """(d_in, n): where (K), or x~."""

    def plus(self, other: Columns) -> Columns:
        """With more columns, or as many as the inputs are wide that give the same products with K^T."""
        left, right = (torch.cat(both, 1) for both in zip(self, other, strict=True))
        if right.shape[1] <= 2 * right.shape[0]:
            return Columns(left, right)
        q, r = torch.linalg.qr(right.T.double())
        return Columns((left.double() @ q).to(left.dtype), r.T.to(right.dtype))


class _Shape(nn.Module):
    """The two residual layers that weights of one shape share, and the scales and offsets that each has of its own."""

    def __init__(self, width: int, weights: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        drawn = torch.randn(2, rank, width, generator=generator) / width**0.5
        self.right = nn.Parameter(drawn)
        self.left = nn.Parameter(torch.zeros(2, width, rank))
        self.scale = nn.Parameter(torch.ones(2, weights, width))
        self.shift = nn.Parameter(torch.zeros(2, weights, width))

    def forward(self, z: Tensor, weight: int) -> Tensor:
        """What is added to standardised pairs, (n, width)."""
        # Unlike relu's, the gradient of a clamp at 0, where all begin, is not 0.
        hidden = z + self._layer(0, z, weight).clamp_min(0)
        return hidden - z + self._layer(1, hidden, weight)

    def _layer(self, number: int, x: Tensor, weight: int) -> Tensor:
        low_rank = x @ self.right[number].T @ self.left[number].T
        found: Tensor = self.scale[number, weight] * low_rank + self.shift[number, weight]
        return found


class Hypernetwork(nn.Module):
    """From what linear layers saw of edits to updates of their weights; where nothing was learned, a gradient step."""

    mean: Tensor
    deviation: Tensor
    size: Tensor
    energy: Tensor

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], rank: int, seed: int, aggregation: Aggregation
    ) -> None:
        """Begin as gradient descent.

        Args:
            shapes: (d_out, d_in) by weight name.
            rank: of the residual layers.
            seed: of their initial directions.
            aggregation: how the tokens of many edits become one update.
        """
        super().__init__()
        self.aggregation = aggregation
        generator = torch.Generator().manual_seed(seed)
        self.shapes = dict(shapes)
        alike: dict[tuple[int, int], list[str]] = {}
        for name, shape in self.shapes.items():
            alike.setdefault(shape, []).append(name)
        self.place = {name: (n, some.index(name)) for n, some in enumerate(alike.values()) for name in some}
        self.networks = nn.ModuleList(
            _Shape(sum(shape), len(some), rank, generator) for shape, some in alike.items()
        )
        self.names = list(self.shapes)
        self.index = {name: n for n, name in enumerate(self.shapes)}
        self.step = nn.Parameter(torch.ones(len(self.shapes)))
        """By weight, relative to ``size``; it may change its sign."""
        self.log_ridge = nn.Parameter(torch.zeros(len(self.shapes)))
        """By weight, of the ridge relative to the mean squared length of an input."""
        widest = max(map(sum, self.shapes.values()))
        self.register_buffer("mean", torch.zeros(len(self.shapes), widest))
        self.register_buffer("deviation", torch.ones(len(self.shapes), widest))
        self.register_buffer("size", torch.ones(len(self.shapes)))
        self.register_buffer("energy", torch.ones(len(self.shapes)))

    def standardise(self, name: str, seen: Tokens, size: float) -> None:
        """Take a layer's means and deviations from what it saw of edits.

        Args:
            size: of the first step along a gradient.
        """
        n, pairs = self.index[name], torch.cat(seen, 1)
        width = pairs.shape[1]
        self.mean[n, :width] = pairs.mean(0)
        self.deviation[n, :width] = torch.cat([_spread(part) for part in seen])
        self.size[n] = size
        self.energy[n] = seen.inputs.square().sum(1).mean()

    def mapped(self, name: str, seen: Tokens) -> Tokens:
        """The pairs whose outer products are the update, (x~, delta~)."""
        n, (network, weight) = self.index[name], self.place[name]
        pairs = torch.cat(seen, 1)
        width, d_in = pairs.shape[1], seen.inputs.shape[1]
        mean, deviation = self.mean[n, :width], self.deviation[n, :width]
        better = pairs + deviation * self.networks[network]((pairs - mean) / deviation, weight)
        return Tokens(better[:, :d_in], better[:, d_in:])

    def columns(self, name: str, seen: Tokens, forms: int = 1) -> Columns:
        """What some edits' tokens contribute to the update of a weight.

        Args:
            forms: of each edit there are so many, which together count as one.
        """
        better, n = self.mapped(name, seen), self.index[name]
        steps = -self.step[n] * self.size[n] * better.gradients.T
        if self.aggregation == "mean":
            return Columns(steps / forms, better.inputs.T)
        share = forms**-0.5
        return Columns(share * steps * (better.inputs * seen.inputs).sum(1), share * seen.inputs.T)

    def update(self, name: str, columns: Columns, edits: int) -> Tensor:
        """The update of a weight by all columns of so many edits, (d_out, d_in) float32."""
        if self.aggregation == "mean":
            return columns.left @ columns.right.T / edits
        n = self.index[name]
        ridge = self.log_ridge[n].clamp(-WIDEST, WIDEST).exp()
        return least_squares(columns, ridge * self.energy[n])


def _spread(values: Tensor) -> Tensor:
    """Deviations of coordinates, (width,), from (n, width)."""
    each = values.std(0, correction=0)
    return each.clamp_min(max(TINY, LEAST * float(each.square().mean().sqrt())))


def least_squares(columns: Columns, ridge: Tensor) -> Tensor:
    """The matrix that takes K nearest to V, ``V K^T (K K^T + ridge I)^-1``, (d_out, d_in), solved in float64.

    Args:
        columns: V and K.
        ridge: a scalar.
    """
    values, keys = columns.left.double(), columns.right.double()
    few = keys.shape[1] < keys.shape[0]
    system = keys.T @ keys if few else keys @ keys.T
    system = system + ridge.double() * torch.eye(len(system), dtype=torch.float64, device=keys.device)
    found: Tensor
    if few:  # the same by the push-through identity
        found = values @ torch.linalg.solve(system, keys.T)
    else:
        found = torch.linalg.solve(system, keys @ values.T).T
    return found.to(columns.left.dtype)
