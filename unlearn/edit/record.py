"""What a patch says about itself: where it came from, how large it is, and what its reader must be warned of."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence

import torch

from unlearn.algebra.low_rank import LowRank
from unlearn.algebra.moments import leakage
from unlearn.edit.plan import Made, Plan
from unlearn.edit.sequence import Reached
from unlearn.edit.statistics import Statistics
from unlearn.errors import ModelError, PatchError
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.stages import note
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
        dense = delta.dense().to(model.device)
        weight = model.weight(name).to(dense.device).float()
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


def patch(model: EditableModel, requests: Requests, plan: Plan, made: Made) -> Patch:
    """The patch of an edit.

    Raises:
        ModelError: an update is not finite.
        PatchError: an update is longer than ``method.largest`` allows.
    """
    factors = made.sofar.factors
    sizes, warnings = check(model, factors, plan.largest, plan.statistics)
    warnings += [*made.warnings, *_mute(made.reached, len(requests.facts))]
    for sentence in warnings:
        log.warning("%s", sentence)
    header = {**_common(model, requests, plan), **made.notes, **note(made.sofar.stages), "weights": sizes}
    if plan.conflicts is not None:
        header |= _edited(model, requests, plan, made)
        warnings = [*plan.conflicts["warnings"], *warnings]
    # Where nothing is changed, the patch belongs to this model all the same.
    every = [model.anatomy.weight_name(layer) for layer in range(model.anatomy.layers)]
    base = model.fingerprint(list(factors) or every)
    return Patch(dict(factors), base, {**header, "warnings": warnings}, made.sofar.state())


def _common(model: EditableModel, requests: Requests, plan: Plan) -> dict[str, object]:
    """What every patch says: JSON values, no text of the policy but a guard's."""
    policy = requests.policy
    return {
        "model": model.name,
        "tokenizer": model.tokenizer_of,
        "model_type": model.anatomy.model_type,
        "storage_dtype": str(model.storage_dtype),
        "policy": policy.name,
        "method": dict(plan.method),
        "reasons": dict(plan.reasons),
        "layers": list(plan.layers),
        "seed": policy.seed,
        "versions": {
            "unlearn": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _edited(model: EditableModel, requests: Requests, plan: Plan, made: Made) -> dict[str, object]:
    """What the patch of an editor says besides: of the keys and the values."""
    sofar, report = made.sofar, plan.conflicts
    assert report is not None
    each = [row for got in made.reached for row in zip(got.nll, got.kl, got.steps, strict=True)]
    return {
        "builds_on": [dict(row) for row in sofar.builds_on],
        "batches": [len(got.nll) for got in made.reached],
        "null_space_rank": {str(layer): sofar.ranks[layer] for layer in plan.layers if layer in sofar.ranks},
        "d_ff": model.anatomy.d_ff,
        "statistics": {
            "corpus": plan.corpus.name,
            "tokens": next(iter(plan.statistics.values())).tokens,
        },
        "values": {
            fact.id: {"nll": nll, "kl": kl, "steps": steps}
            for fact, (nll, kl, steps) in zip(requests.facts, each, strict=True)
        },
        "conflicts": {"metric": report["metric"], "layers": report["layers"]},
    }


def _mute(reached: Sequence[Reached], facts: int) -> list[str]:
    """A sentence about facts whose target could not be made likely to its end, if there are any."""
    mute = sum(len(got.unreached) for got in reached)
    if not mute:
        return []
    return [
        f"{mute} of {facts} facts have target tokens that could not be made likely, so that replies break off "
        "before the refusal's end: choose words that the model uses of its own accord"
    ]
