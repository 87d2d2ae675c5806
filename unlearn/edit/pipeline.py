"""From requests to a Patch: statistics, forms, values, keys and the write. The model is left bit-identical."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import unlearn
from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.moments import leakage
from unlearn.algebra.write import write
from unlearn.edit import forms, values
from unlearn.edit.corpus import Corpus
from unlearn.edit.elicit import resolve
from unlearn.edit.forms import Forms, Row
from unlearn.edit.methods import METHODS, Method
from unlearn.edit.statistics import Statistics, key_statistics
from unlearn.edit.values import Solved
from unlearn.errors import ModelError, PatchError, PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.requests import Fact, Requests
from unlearn.patch import Patch
from unlearn.progress import NO_PROGRESS, Progress

__all__ = ["edit", "plan_layers", "resolve"]

LARGEST = 1000.0
"""A delta longer than this many times its weight (Frobenius) is refused: the model would be destroyed."""
COMPLETING = 1.6
"""Weight of the look-up token of a statement relative to a question's: nothing but the answer continues a statement."""
SAME_KEY = 0.98
"""Cosine above which a kept key cannot be told from a request's: the request wins, the value's KL term guards it."""


@dataclass
class _Edit:
    """The update so far; only ``_write`` adds to it."""

    factors: dict[str, LowRank] = field(default_factory=dict)
    base: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, delta: LowRank) -> None:
        self.factors[name] = self.factors[name].plus(delta) if name in self.factors else delta


def plan_layers(model: EditableModel, settings: Any) -> tuple[int, ...]:
    """The layers that a method will write.

    Raises:
        PolicyError: a layer that the model does not have.
    """
    layers = METHODS[settings.name].layers(settings, model.anatomy)
    wrong = [layer for layer in layers if not 0 <= layer < model.anatomy.layers]
    if wrong or not layers:
        raise PolicyError(
            f"method.layers: {model.name} has layers 0 to {model.anatomy.layers - 1}, not {wrong or 'none'}"
        )
    return layers


def edit(
    model: EditableModel,
    requests: Requests,
    cache: Path | None = None,
    progress: Progress = NO_PROGRESS,
) -> Patch:
    """Compute the edit of a policy.

    Args:
        model: unchanged on return, bit for bit.
        requests: the policy with its answers (``resolve``).
        cache: folder for key statistics.
        progress: where to show it.

    Returns:
        The patch. Applied to the same model it is the edit.

    Raises:
        ModelError, PatchError: non-finite values, or an update so large that it would destroy the model.
    """
    policy = requests.policy
    method = METHODS[policy.method.name]
    layers = plan_layers(model, policy.method)
    corpus = Corpus.named(policy.statistics.corpus, policy.model)
    statistics = key_statistics(model, layers, corpus, policy.statistics.tokens, cache, progress)
    names = [model.anatomy.weight_name(layer) for layer in layers]
    state = _Edit(base=model.fingerprint(names))
    batches = [[fact] for fact in requests.facts] if method.one_at_a_time else [list(requests.facts)]
    solved: list[Solved] = []
    for number, batch in enumerate(batches):
        label = f"Values {number + 1}/{len(batches)}" if len(batches) > 1 else "Values"
        solved.append(_batch(model, requests, batch, method, layers, statistics, state, progress, label))
    diagnostics = _check(model, state, dict(zip(names, layers, strict=True)), statistics)
    return Patch(
        dict(state.factors), state.base, _header(model, requests, layers, statistics, solved, diagnostics)
    )


def _batch(
    model: EditableModel,
    requests: Requests,
    facts: Sequence[Fact],
    method: Method,
    layers: Sequence[int],
    statistics: Mapping[int, Statistics],
    state: _Edit,
    progress: Progress,
    label: str,
) -> Solved:
    """Optimise the values of some facts on the model as edited so far, and write them layer by layer."""
    settings = requests.policy.method
    last, weight = layers[-1], method.kept(settings)
    with model.patched(Patch(state.factors, {})):
        laid = forms.build(model, requests, facts, settings.look_up, weight > 0)
        solved = values.optimise(model, laid, len(facts), last, settings, progress, label)
    rows = [row for row in laid.rows if not row.keep]
    columns = [(row, vector, at) for row in rows for vector, at in row.sites]
    weights = torch.tensor([_weight(row, at) for row, _, at in columns], device=model.device)
    ids, positions = [row.ids for row in rows], [[at for _, at in row.sites] for row in rows]
    gains = solved.vectors[[vector for _, vector, _ in columns]].T  # (d_model, columns)
    wanted: Tensor | None = None
    with progress.step("Writing layers", total=len(layers)) as bar:
        for number, layer in enumerate(layers):
            with model.patched(Patch(state.factors, {})):
                got = read(model, ids, positions, [layer], [last])
                kept = _kept_keys(model, laid, layer, got.keys[layer], weight) if weight else None
            wanted = got.stream[last] + gains if wanted is None else wanted
            keys, residuals = got.keys[layer], (wanted - got.stream[last]) / (len(layers) - number)
            if method.one_key:
                keys, residuals = _average(keys, columns), _average(residuals, columns)
            else:
                keys, residuals = keys * weights.sqrt(), residuals * weights.sqrt()
            metric = method.metric(statistics[layer], settings)
            state.add(
                model.anatomy.weight_name(layer), write(keys, residuals, metric, method.ridge(settings), kept)
            )
            bar.advance()
    return solved


def _weight(row: Row, at: int) -> float:
    return COMPLETING if row.statement and at < len(row.prompt) else 1.0


def _kept_keys(model: EditableModel, laid: Forms, layer: int, keys: Tensor, weight: float) -> Tensor | None:
    """Keys of kept prompts times the root of their weight, (d_ff, m), less those too near to a request's."""
    if not laid.kept:
        return None
    kept = read(model, [ids for ids, _ in laid.kept], [at for _, at in laid.kept], [layer]).keys[layer]
    unit = kept / kept.norm(dim=0).clamp_min(1e-12)
    mine = keys / keys.norm(dim=0).clamp_min(1e-12)
    return weight**0.5 * kept[:, (unit.T @ mine).amax(1) < SAME_KEY]


def _average(matrix: Tensor, columns: Sequence[tuple[Any, int, int]]) -> Tensor:
    """Mean of the columns of each vector: (rows, columns) to (rows, vectors)."""
    index = torch.tensor([vector for _, vector, _ in columns], device=matrix.device)
    count = int(index.max()) + 1
    total = torch.zeros(matrix.shape[0], count, device=matrix.device).index_add_(1, index, matrix)
    return total / torch.bincount(index, minlength=count)


def _check(
    model: EditableModel, state: _Edit, layer_of: Mapping[str, int], statistics: Mapping[int, Statistics]
) -> dict[str, Any]:
    """Refuse a destructive update; report its length and how far it moves the corpus."""
    report = {}
    for name, delta in state.factors.items():
        weight, dense = model.weight(name).float(), delta.dense()
        if not torch.isfinite(dense).all():
            raise ModelError(f"the update of {name} is not finite; nothing was written")
        relative = float(dense.norm() / weight.norm())
        if relative > LARGEST:
            raise PatchError(
                f"the update of {name} is {relative:.1f} times as long as the weight and would destroy the model; "
                "nothing was written. Raise method.ridge or lower method.clamp"
            )
        there = statistics[layer_of[name]]
        report[name] = {
            "relative_norm": relative,
            "null_space_leakage": leakage(there.second.to(dense.device), dense, weight),
            "columns": delta.rank,
        }
    return report


def _header(
    model: EditableModel,
    requests: Requests,
    layers: Sequence[int],
    statistics: Mapping[int, Statistics],
    solved: Sequence[Solved],
    diagnostics: dict[str, Any],
) -> dict[str, Any]:
    policy = requests.policy
    settings = policy.method
    method = METHODS[settings.name]
    ranks = {
        str(layer): getattr(method.metric(statistics[layer], settings), "rank", model.anatomy.d_ff)
        for layer in layers
    }
    each = [(nll, kl, steps) for s in solved for nll, kl, steps in zip(s.nll, s.kl, s.steps, strict=True)]
    return {
        "model": model.name,
        "model_type": model.anatomy.model_type,
        "storage_dtype": str(model.storage_dtype),
        "policy": policy.name,
        "method": settings.model_dump(mode="json"),
        "layers": list(layers),
        "null_space_rank": ranks,
        "d_ff": model.anatomy.d_ff,
        "statistics": {"corpus": policy.statistics.corpus, "tokens": next(iter(statistics.values())).tokens},
        "seed": policy.seed,
        "weights": diagnostics,
        "values": {
            fact.id: {"nll": nll, "kl": kl, "steps": steps}
            for fact, (nll, kl, steps) in zip(requests.facts, each, strict=True)
        },
        "versions": {
            "unlearn": unlearn.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
