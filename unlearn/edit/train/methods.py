"""Every method that trains, by its settings."""

from __future__ import annotations

from dataclasses import asdict

from unlearn.edit.plan import Made, Plan
from unlearn.edit.sequence import Sofar
from unlearn.edit.settings import Refusing, Tuning
from unlearn.edit.train.fine_tune import ft_m
from unlearn.edit.train.loop import Trained
from unlearn.edit.train.lora import lora
from unlearn.edit.train.mend import mend
from unlearn.edit.train.null_space import null_space_tuning
from unlearn.edit.train.preference import grad_diff, npo
from unlearn.edit.train.rep_select import rep_select
from unlearn.edit.train.rmu import rmu
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.policy.settings_trained import FineTune, GradDiff, Mend, Npo, RepSelect, Rmu
from unlearn.progress import Progress
from unlearn.store import Store


def train(
    plan: Plan, model: EditableModel, requests: Requests, cache: Store | None, progress: Progress
) -> Made:
    """Train the update that a plan asks for, all facts at once.

    Args:
        model: unedited; unchanged on return.
        cache: where MEND's network is kept.

    Raises:
        ModelError: the loss is not finite.
        PolicyError: the model says nothing that could be unlearned.
    """
    if isinstance(plan.algorithm, Tuning):
        return null_space_tuning(plan, plan.algorithm, model, requests, progress)
    if isinstance(plan.algorithm, Mend):
        return mend(plan, plan.algorithm, model, requests, cache, progress)
    got = _baseline(plan, model, requests, progress)
    return Made(Sofar(got.factors), notes={"training": asdict(got.history)})


def _baseline(plan: Plan, model: EditableModel, requests: Requests, progress: Progress) -> Trained:
    match plan.algorithm:
        case FineTune() as settings:
            return ft_m(model, requests, settings, plan.layers[0], progress)
        case Refusing() as settings:
            return lora(model, requests, settings, progress)
        case GradDiff() as settings:
            return grad_diff(model, requests, settings, progress)
        case Npo() as settings:
            return npo(model, requests, settings, progress)
        case Rmu() as settings:
            return rmu(model, requests, settings, plan.layers, progress)
        case RepSelect() as settings:
            return rep_select(model, requests, settings, progress)
    raise AssertionError(f"{plan.name} is not trained")
