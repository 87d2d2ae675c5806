"""What speed is measured by: the plain way to do what the program does, and the published procedure of AlphaEdit.

Nothing here is used by the program. The plain way gives the same as the fast one, within rounding: one row at a time,
whole passes, dense float64 solves. The published procedure is written from its formulas alone (MEMIT's objective,
AlphaEdit's equation 14), and used for its time only: one fact at a time; every step a pass through all layers with
logits at every position; keys and streams read anew for every layer by whole passes; a dense, non-symmetric
d_ff x d_ff system per layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import kl_div, nll_loss

from benchmarks.timing import busy_of
from unlearn.algebra.moments import Projector
from unlearn.algebra.write import write
from unlearn.edit.forms import Row
from unlearn.model.editable import EditableModel
from unlearn.model.forward import batches, changed, hooked, passed
from unlearn.model.rows import left_pad

LR, CLAMP, DECAY, ESSENCE, RIDGE = 0.1, 0.75, 0.5, 0.0625, 10.0
"""Published for Llama-3-8B: step, clamp, weight decay, weight of the KL term, and L2."""
AT_ONCE = 8192
"""Tokens per pass while keys are read."""
EDITS, EARLIER, OUT = 100, 1000, 4096
"""Of a random system: edits, earlier ones, and rows of the weight, at most."""


@torch.no_grad()
def keys_of(model: EditableModel, rows: Sequence[Row], layer: int, at_once: int = AT_ONCE) -> Tensor:
    """Keys at the rows' sites by passes through the whole model with all its logits, (d_ff, rows), float32."""
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for group in batches([row.ids for row in rows], at_once):
        every = _whole(model, [rows[i].ids for i in group], layer)
        for keys, i in zip(every, group, strict=True):
            found[i] = keys[rows[i].sites[0][1] - len(rows[i].ids)]
    return torch.stack(found, 1)


@torch.no_grad()
def second_moment(model: EditableModel, rows: Iterable[Sequence[int]], layer: int) -> Tensor:
    """``E[k k^T]`` over every token of some rows, (d_ff, d_ff) float64: one row and one layer at a time."""
    width = model.anatomy.d_ff
    total, count = torch.zeros(width, width, dtype=torch.float64, device=model.device), 0
    for row in rows:
        keys = _whole(model, [row], layer)[0].double()
        total += keys.T @ keys
        count += len(row)
    return (total / count).cpu()


def _whole(model: EditableModel, rows: Sequence[Sequence[int]], layer: int) -> Tensor:
    """Keys at every token, (rows, longest, d_ff), float32, the shorter rows at the right."""
    ids, mask = left_pad(rows, model.pad_id, model.device)
    caught: list[Tensor] = []
    down = model.anatomy.down(model.model, layer)
    with hooked([down.register_forward_pre_hook(lambda _module, given: caught.append(given[0]))]):
        passed(model, ids, mask)
    return caught[0].float()


def value_of(
    model: EditableModel, rows: Sequence[Row], about: Sequence[int], layer: int, steps: int
) -> Tensor:
    """Optimise one fact's value as published, (d_model,).

    Args:
        rows: the fact's prompts with their targets, each with one site.
        about: ids of the prompt on which the distribution must stay.
        steps: of Adam; none is saved.
    """
    ids, mask = left_pad([*(row.ids for row in rows), tuple(about)], model.pad_id, model.device)
    columns = torch.tensor([row.sites[0][1] - len(row.ids) for row in rows] + [-1], device=ids.device)
    at = torch.arange(len(ids), device=ids.device), columns
    targets = torch.full_like(ids, -100)
    for i, row in enumerate(rows):
        targets[i, -row.reply :] = ids[i, -row.reply :]
    vector = torch.zeros(model.anatomy.d_model, device=ids.device, requires_grad=True)
    length: list[float] = []

    def moved(stream: Tensor) -> Tensor:
        if not length:
            length.append(float(stream[0, columns[0]].norm()))
        return stream.index_put(at, vector.to(stream.dtype).expand(len(ids), -1), accumulate=True)

    optimiser, before = torch.optim.Adam([vector], lr=LR), None
    with changed(model.anatomy.block(model.model, layer), moved):
        for _ in range(steps):
            optimiser.zero_grad()
            log_probs = passed(model, ids, mask).float().log_softmax(-1)
            now = log_probs[-1, -1]
            before = now.detach() if before is None else before
            loss = nll_loss(log_probs[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
            loss = loss + ESSENCE * kl_div(now, before, reduction="sum", log_target=True)
            (loss + DECAY * vector.norm() / length[0] ** 2).backward()
            optimiser.step()
            with torch.no_grad():
                vector *= (CLAMP * length[0] / vector.norm().clamp_min(1e-12)).clamp_max(1)
    return vector.detach()


def solved(keys: Tensor, residuals: Tensor, projector: Tensor, kept: Tensor) -> Tensor:
    """AlphaEdit's dense system of one layer, (d_ff, d_out); ``kept`` becomes what the next batch keeps."""
    system = projector @ (keys @ keys.T + kept)
    system.diagonal().add_(RIDGE)
    found = torch.linalg.solve(system, projector @ (keys @ residuals.T))
    kept += keys @ keys.T
    return found


class System(NamedTuple):
    """What one layer's update is solved from: new edits after earlier ones."""

    keys: Tensor
    """(d_in, n)."""
    gains: Tensor
    """(d_out, n)."""
    spared: Tensor
    """(d_in, r), a basis of what the projector removes."""
    earlier: Tensor
    """(d_in, m)."""

    @classmethod
    def random(cls, width: int, device: torch.device) -> System:
        """The same one for the same width."""
        torch.manual_seed(0)

        def numbers(rows: int, columns: int) -> Tensor:
            return torch.randn(rows, columns, device=device)

        basis = torch.linalg.qr(numbers(width, width // 4))[0]
        kept = numbers(width, min(EARLIER, width))
        return cls(numbers(width, EDITS), numbers(min(width, OUT), EDITS), basis, kept)

    def fast(self) -> Tensor:
        """The update as the program finds it, (d_out, d_in)."""
        metric = Projector(self.spared, complement=True)
        return write(self.keys, self.gains, metric, RIDGE, self.earlier, absolute=True).dense()

    def plain(self) -> Tensor:
        """The same by a dense float64 system."""
        exact = System(*(numbers.double() for numbers in self))
        return solved(exact.keys, exact.gains, exact.projector(), exact.earlier @ exact.earlier.T).T

    def projector(self) -> Tensor:
        """(d_in, d_in)."""
        return torch.eye(len(self.keys)).to(self.spared) - self.spared @ self.spared.T


def seconds(
    model: EditableModel,
    rows: Sequence[Sequence[Row]],
    about: Sequence[Sequence[int]],
    layers: Sequence[int],
    steps: int,
    sample: int,
) -> dict[str, float]:
    """Busy seconds of the published procedure for a batch of facts; statistics and the projector are not counted.

    Values are measured on the first ``sample`` facts, the other parts at one layer, and multiplied up.

    Args:
        rows: per fact, its prompts with their targets.
        about: per fact, ids of "{subject} is a".
        sample: how many facts' values are computed.
    """
    device, last = model.device, layers[-1]
    value_of(model, rows[0], about[0], last, 1)  # warms up what is compiled or allocated on first use

    def values() -> None:
        for mine, theirs in zip(rows[:sample], about[:sample], strict=True):
            value_of(model, mine, theirs, last, steps)

    def keys() -> None:
        keys_of(model, [row for mine in rows for row in mine], layers[0])
        keys_of(model, [mine[0] for mine in rows], layers[0])

    width = model.anatomy.d_ff
    some = System.random(width, device)
    mine, gains = torch.randn(width, len(rows), device=device), torch.randn(model.anatomy.d_model, len(rows))
    projector, kept = some.projector(), torch.zeros(width, width, device=device)
    found = {
        "values": busy_of(values, device) * len(rows) / min(sample, len(rows)),
        "keys": busy_of(keys, device) * len(layers),
        "solve": busy_of(lambda: solved(mine, gains.to(device), projector, kept), device) * len(layers),
    }
    return {**found, "total": sum(found.values())}
