"""Writing a batch: its values are reached layer by layer, each layer taking its share of what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.write import Kept, condense
from unlearn.edit.columns import Columns
from unlearn.edit.sequence import Sofar, Written
from unlearn.edit.settings import ClosedForm, FewNeurons
from unlearn.edit.solve.hard_negatives import TURNS, most_moved
from unlearn.edit.solve.terms import Problem, update
from unlearn.edit.statistics import Statistics
from unlearn.model.editable import EditableModel
from unlearn.model.forward import Reading, read
from unlearn.model.upper import Upper
from unlearn.progress import NO_PROGRESS, Progress

SAME_KEY = 0.98
"""Cosine above which a kept key cannot be told from a request's: the request wins. At the subject the value's KL term
guards what is kept."""
AT_ONCE = 4096
"""Kept keys that are compared with a request's at a time, so that memory does not grow with both."""

Places = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
"""(ids, positions) per row."""


@dataclass(frozen=True)
class Task:
    """What every write of a batch begins with, however its columns are weighted."""

    model: EditableModel
    """Unedited."""
    form: ClosedForm
    layers: Sequence[int]
    """Ascending."""
    statistics: Mapping[int, Statistics]
    """Per layer."""
    sofar: Sofar
    """The update before this batch."""
    upper: Upper
    """The columns' rows, read up to the first of the layers after the update before this batch."""
    start: Reading
    """On the model before the batch: the columns' keys at every layer, and the stream behind the last one."""
    wanted: Tensor
    """(d_model, columns), what the stream must become after the last layer."""
    still: Mapping[int, Tensor]
    """Per layer the keys that must keep their values, each times the root of its weight (``lent``)."""
    seen: Mapping[int, Tensor]
    """Per layer keys of corpus tokens, of which those that the update moves most must too."""


def write_layers(
    task: Task, columns: Columns, progress: Progress = NO_PROGRESS, former: Written | None = None
) -> Written:
    """Write a batch's values into the layers, on the model as edited so far.

    Args:
        columns: its columns, with the weights of this round.
        former: the same batch as written with other weights. What stood still there does so here; nothing else is
            looked for, since the tokens that an update moves most hardly depend on those weights.
    """
    space, model, last = task.form.space, task.model, task.layers[-1]
    written = Written({}, {}, {}, dict(former.still) if former else {})
    passes = space.passes if isinstance(space, FewNeurons) else 1
    with progress.step("Writing layers", total=len(task.layers) * passes) as bar:
        for _ in range(passes):
            live: Tensor | None = None
            for number, layer in enumerate(task.layers):
                with model.patched(plus(task.sofar, written.factors).deltas()):
                    got = task.start
                    if written.factors:
                        got = task.upper.read(columns.positions, [layer], [last])
                    keys, missing = got.keys[layer], task.wanted - got.stream[last]
                    if number == 0 and isinstance(space, FewNeurons):
                        live = _live(columns, missing, got.stream[last], space)
                        if not live.any():
                            return written
                    share = missing / (len(task.layers) - number)
                    residuals = model.anatomy.residual(model.model, layer, keys, share)
                written = _with_layer(task, columns, written, (layer, number), (keys, residuals), live)
                bar.advance()
    return written


def _with_layer(
    task: Task,
    columns: Columns,
    written: Written,
    at: tuple[int, int],
    asked: tuple[Tensor, Tensor],
    live: Tensor | None,
) -> Written:
    """What is written with one more layer.

    Args:
        at: the layer, and how many of this pass were written before it.
        asked: keys and residuals, (d_ff, columns) and (d_model, columns).
        live: (columns,), which of them still miss something; None for all.
    """
    (layer, number), (keys, residuals), rule = at, asked, task.form.keys
    columned, aimed = _columns(columns, keys, residuals, rule)
    used = written.keys if layer in written.keys else {**written.keys, layer: columned}
    done = None
    if live is not None and not live.all():
        done = _columns(columns.some(~live), keys[:, ~live], residuals[:, ~live], rule)[0]
        some = columns.some(live)
        columned, aimed = _columns(some, keys[:, live], residuals[:, live], rule)
    problem = Problem(task.statistics[layer], columned, aimed, None, number, columns.raised)
    still = written.still
    if layer not in still:
        still = {**still, layer: _standing(task, problem, layer, done)}
    problem = replace(problem, kept=_with(still[layer], done))
    delta, rank = update(problem, task.form)
    name = task.model.anatomy.weight_name(layer)
    before = written.factors.get(name)
    factors = {**written.factors, name: delta if before is None else before.plus(delta)}
    return Written(factors, used, {**written.ranks, layer: rank}, still)


def _standing(task: Task, problem: Problem, layer: int, done: Tensor | None) -> Kept | None:
    """The keys that have to keep their values in a layer, those that an update would move most among them."""
    zero = _joined([task.still.get(layer), task.sofar.earlier(layer, task.form.earlier)])
    if layer in task.seen:
        trial = replace(problem, kept=_kept([zero, done]))
        zero = _joined([zero, _moved(trial, task.form, task.seen[layer].to(problem.keys.device))])
    return _kept([zero])


def plus(sofar: Sofar, new: Mapping[str, LowRank]) -> Sofar:
    """The update so far with more factors; its keys are still those of what was written before."""
    factors = dict(sofar.factors)
    for name, delta in new.items():
        factors[name] = factors[name].plus(delta) if name in factors else delta
    return replace(sofar, factors=factors)


def _live(columns: Columns, missing: Tensor, stream: Tensor, space: FewNeurons) -> Tensor:
    """Columns of requests that still miss something, but not too much to hope for, (columns,); NSE's filter."""
    length = missing.norm(dim=0) / (1.0 if space.published else stream.norm(dim=0).clamp_min(1e-12))
    count = int(columns.requests.max()) + 1
    worst = torch.zeros(count, device=length.device).scatter_reduce_(0, columns.requests, length, "amax")
    going: Tensor = worst > space.reached
    if space.hopeless is not None:
        going &= worst < space.hopeless
    return going[columns.requests]


def _columns(columns: Columns, keys: Tensor, residuals: Tensor, rule: str) -> tuple[Tensor, Tensor]:
    """Keys and residuals as columns of the equation: the means per vector, or one per form with its weight."""
    if rule == "mean":
        return _average(keys, columns.vectors), _average(residuals, columns.vectors)
    return keys * columns.weights.sqrt(), residuals * columns.weights.sqrt()


def _average(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Mean of the columns of each vector: (rows, columns) to (rows, vectors)."""
    found, index = vectors.unique(return_inverse=True)
    total = torch.zeros(matrix.shape[0], len(found), device=matrix.device).index_add_(1, index, matrix)
    mean: Tensor = total / torch.bincount(index, minlength=len(found))
    return mean


def lent(
    model: EditableModel, own: Mapping[int, Tensor], places: Sequence[tuple[Places, float]], sofar: Sofar
) -> dict[int, Tensor]:
    """Keys at some places times the root of their weight, per layer (d_ff, m <= d_ff), on the model before the batch.

    What a batch writes leaves the outputs at these keys alone, so that it hardly moves the same tokens' keys in the
    layers above: they are read once, for all layers and all rounds of writing.
    """
    found: dict[int, list[Tensor]] = {layer: [] for layer in own}
    for prompts, weight in places:
        if prompts and weight:
            with model.patched(sofar.deltas()):
                got = read(model, [ids for ids, _ in prompts], [at for _, at in prompts], list(own)).keys
            for layer, keys in got.items():
                found[layer].append(weight**0.5 * distinct(keys, own[layer]))
    return {layer: condense(torch.cat(parts, 1)) for layer, parts in found.items() if parts}


def distinct(kept: Tensor, keys: Tensor) -> Tensor:
    """Kept keys less those that cannot be told from a request's."""
    mine = keys / keys.norm(dim=0).clamp_min(1e-12)
    apart = []
    for some in kept.split(AT_ONCE, 1):
        here = some.to(mine.device)
        nearest = (here.T @ mine).amax(1)
        apart.append((nearest < SAME_KEY * here.norm(dim=0).clamp_min(1e-12)).to(kept.device))
    return kept[:, torch.cat(apart)] if apart else kept


def _moved(problem: Problem, form: ClosedForm, seen: Tensor) -> Tensor:
    """The corpus keys that a trial update moves most, each times the root of its weight, (d_in, w)."""
    weight = form.hard_negatives.hard_negative_weight if form.hard_negatives else 0.0
    found, chosen = seen[:, :0], torch.zeros(seen.shape[1], dtype=torch.bool, device=seen.device)
    for _ in range(TURNS):
        delta, _ = update(replace(problem, kept=_with(problem.kept, found)), form)
        chosen = most_moved(delta, seen, chosen)
        found = weight**0.5 * seen[:, chosen]
    return found


def _with(kept: Kept | None, more: Tensor | None) -> Kept | None:
    """Kept keys and some more; the same, with what was computed of them, where there are none."""
    if more is None or not more.shape[1]:
        return kept
    return _kept([kept.columns if kept else None, more])


def _kept(parts: Sequence[Tensor | None]) -> Kept | None:
    found = _joined(parts)
    return None if found is None else Kept(found)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None and part.shape[1]]
    return torch.cat(found, 1) if found else None
