"""UltraEdit: no values are sought; one gradient of the edit's loss says where outputs are to move (docs/methods)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from unlearn.algebra.moments import Projector
from unlearn.algebra.running import Running, descent
from unlearn.algebra.write import write
from unlearn.edit import forms
from unlearn.edit.course import Course
from unlearn.edit.forms import Row
from unlearn.edit.plan import Made, Plan
from unlearn.edit.sequence import Sofar, Written
from unlearn.errors import ModelError
from unlearn.model.budget import token_budget
from unlearn.model.editable import EditableModel
from unlearn.model.forward import Reading, batches, changed, in_order, replies, tapped
from unlearn.model.requests import Fact, Requests
from unlearn.policy.settings import UltraEdit
from unlearn.progress import Progress

NEVER = -1
"""A layer at which no pass ends."""


def one_step(
    plan: Plan,
    settings: UltraEdit,
    model: EditableModel,
    requests: Requests,
    earlier: Sofar,
    progress: Progress,
) -> Made:
    """Write all facts, a batch at a time, each on the model as edited so far.

    Args:
        model: unedited; unchanged on return.
        earlier: the edit to build on, with the statistics of everything that was written before.

    Raises:
        ModelError: the loss is not finite.
    """
    size = settings.batch or len(requests.facts)
    parts = [requests.facts[at : at + size] for at in range(0, len(requests.facts), size)]
    course = Course.of(model, requests, plan.layers, parts, earlier)
    sofar = course.begun(earlier)
    with progress.step("Writing", total=len(parts)) as bar:
        for number, facts in enumerate(parts, 1):
            sofar = sofar.plus(_written(plan, settings, model, requests, facts, sofar))
            sofar = course.after(number, sofar)
            bar.advance()
    notes = {"batches": [len(facts) for facts in parts], "builds_on": [dict(row) for row in sofar.builds_on]}
    return Made(sofar, notes=notes)


def _written(
    plan: Plan,
    settings: UltraEdit,
    model: EditableModel,
    requests: Requests,
    facts: Sequence[Fact],
    sofar: Sofar,
) -> Written:
    """What a batch writes into all layers at once."""
    with model.patched(sofar.deltas()):
        laid = forms.build(model, requests, facts, "last", keeps=False)
        got = signals(model, laid.rows, plan.layers)
        lengths = {at: _length(model, at, keys) for at, keys in got.keys.items()}
    factors, running = {}, dict(sofar.running)
    for layer, keys in got.keys.items():
        gradients = got.stream[layer]
        seen = running.get(layer, Running.nothing(len(keys) + len(gradients), keys.device))
        running[layer] = seen.plus(torch.cat([keys, gradients]))
        # A normalised key's length is typically the root of its width, and so is a gradient's.
        typical = len(keys) * len(gradients) ** 0.5
        moves = settings.lr * lengths[layer] / typical * descent(keys, gradients, running[layer])
        everywhere = Projector(keys.new_zeros(len(keys), 0), complement=True)
        name = model.anatomy.weight_name(layer)
        factors[name] = write(keys, moves.float(), everywhere, settings.ridge)
    return Written(factors, got.keys, {}, running=running)


def _length(model: EditableModel, layer: int, keys: Tensor) -> float:
    """Mean length of what a down-projection puts out at keys (d_in, n)."""
    return float((model.anatomy.matrix(model.model, layer).float() @ keys).norm(dim=0).mean())


def signals(model: EditableModel, rows: Sequence[Row], layers: Sequence[int]) -> Reading:
    """Keys at the sites of rows, and as ``stream`` the gradients by the down-projections' outputs there.

    The loss of a row is its target's mean negative log-likelihood per token.

    Raises:
        ModelError: the loss is not finite.
    """
    keys: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    gradients: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    starts = torch.tensor([0, *(len(row.sites) for row in rows)]).cumsum(0).tolist()
    columns: list[int] = []
    for group in batches([row.ids for row in rows], token_budget(model, gradients=True)):
        some = [rows[i] for i in group]
        width = max(len(row.ids) for row in some)
        sites = [(n, width - len(row.ids) + at) for n, row in enumerate(some) for _, at in row.sites]
        row, column = torch.tensor(sites, device=model.device).T
        columns += [at for i in group for at in range(starts[i], starts[i + 1])]

        def keep(store: list[Tensor], hidden: Tensor, row: Tensor = row, column: Tensor = column) -> None:
            store.append(hidden[row, column].detach().float())  # (sites, width)

        shape = (len(some), width, model.anatomy.d_model)
        with torch.enable_grad(), _probed(model, layers, shape) as probes:
            with tapped(model, keys, {}, NEVER, keep):
                loss = replies(model, [(row.ids, row.reply) for row in some]).nll().sum()
            if not torch.isfinite(loss):
                raise ModelError("the edit's loss is not finite; try a larger dtype")
            for layer, gradient in zip(layers, torch.autograd.grad(loss, list(probes.values())), strict=True):
                keep(gradients[layer], gradient)
    return in_order(columns, keys, gradients)


@contextmanager
def _probed(
    model: EditableModel, layers: Sequence[int], shape: tuple[int, ...]
) -> Iterator[Mapping[int, Tensor]]:
    """Within it, zeros are added to what the down-projections put out, so that a loss has gradients by that."""
    probes = {layer: torch.zeros(shape, device=model.device, requires_grad=True) for layer in layers}
    with ExitStack() as stack:
        for layer, probe in probes.items():
            stack.enter_context(changed(model.anatomy.down(model.model, layer), _adding(probe)))
        yield probes


def _adding(probe: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda out: out + probe.to(out.dtype)
