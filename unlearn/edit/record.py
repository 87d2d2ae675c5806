"""What a patch says about itself: where it came from, how large it is, and what its reader must be warned of."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence

import torch

from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.moments import leakage
from unlearn.edit.batch import Job
from unlearn.edit.sequence import Sofar
from unlearn.edit.statistics import Statistics
from unlearn.edit.values import Solved
from unlearn.errors import ModelError, PatchError
from unlearn.model.editable import EditableModel
from unlearn.version import __version__

log = logging.getLogger("unlearn")

LOUD = 10.0
"""An update longer than this many times its weight (Frobenius) has most likely broken the model."""


def check(
    model: EditableModel,
    factors: Mapping[str, LowRank],
    largest: float | None,
    statistics: Mapping[int, Statistics] | None = None,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Refuse an update that is not finite or longer than allowed; measure it, and warn of what is far too long.

    Args:
        model: unedited.
        factors: by weight name.
        largest: most times its weight (Frobenius) that an update may be long; None for no limit.
        statistics: per layer, of the layers that have them.

    Returns:
        Per weight ``relative_norm``, ``columns``, and with statistics ``null_space_leakage``; and sentences.

    Raises:
        ModelError: an update is not finite.
        PatchError: an update is longer than ``largest`` times its weight.
    """
    report: dict[str, dict[str, float]] = {}
    for name, delta in factors.items():
        weight, dense = model.weight(name).float(), delta.dense().to(model.device)
        if not torch.isfinite(dense).all():
            raise ModelError(f"the update of {name} is not finite; nothing was written")
        relative = float(dense.norm() / weight.norm())
        if largest is not None and relative > largest:
            raise PatchError(
                f"the update of {name} is {relative:.3g} times as long as the weight, more than method.largest "
                f"({largest:g}) allows; nothing was written. Raise method.ridge, lower method.clamp, or raise the limit"
            )
        report[name] = {"relative_norm": relative, "columns": delta.rank}
        there = (statistics or {}).get(_layer(model, name))
        if there is not None:
            report[name]["null_space_leakage"] = leakage(there.second.to(dense.device), dense, weight)
    worst = max(report, key=lambda name: report[name]["relative_norm"], default=None)
    warnings = []
    if worst is not None and report[worst]["relative_norm"] > LOUD:
        warnings.append(
            f"THE UPDATE OF {worst} IS {report[worst]['relative_norm']:.3g} TIMES AS LONG AS THE WEIGHT: the "
            "model has most likely collapsed. Raise method.ridge, lower method.clamp, or let method.largest refuse it"
        )
    return report, warnings


def _layer(model: EditableModel, name: str) -> int:
    """The layer whose down-projection has this name; -1 for any other weight."""
    names = [model.anatomy.weight_name(layer) for layer in range(model.anatomy.layers)]
    return names.index(name) if name in names else -1


def header(
    job: Job,
    sofar: Sofar,
    solved: Sequence[Solved],
    batches: Sequence[int],
    notes: Mapping[str, object],
) -> dict[str, object]:
    """The patch's header: JSON values, no text of the policy.

    Args:
        job: what was edited, and how.
        sofar: the finished update.
        solved: the values of each batch.
        batches: number of facts in each.
        notes: what else is known: ``weights``, ``conflicts``, ``warnings``, ``smoothing``.
    """
    model, policy, layers = job.model, job.requests.policy, job.layers
    each = [(nll, kl, steps) for s in solved for nll, kl, steps in zip(s.nll, s.kl, s.steps, strict=True)]
    return {
        "model": model.name,
        "model_type": model.anatomy.model_type,
        "storage_dtype": str(model.storage_dtype),
        "policy": policy.name,
        "method": policy.method.model_dump(mode="json"),
        "builds_on": [dict(row) for row in sofar.builds_on],
        "layers": list(layers),
        "batches": list(batches),
        "null_space_rank": {str(layer): sofar.ranks[layer] for layer in layers if layer in sofar.ranks},
        "d_ff": model.anatomy.d_ff,
        "statistics": {
            "corpus": policy.statistics.corpus,
            "tokens": next(iter(job.statistics.values())).tokens,
        },
        "seed": policy.seed,
        "values": {
            fact.id: {"nll": nll, "kl": kl, "steps": steps}
            for fact, (nll, kl, steps) in zip(job.requests.facts, each, strict=True)
        },
        **notes,
        "versions": {
            "unlearn": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
