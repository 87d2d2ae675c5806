"""From requests to a Patch: choose, then solve or train, then record. The model is left bit-identical."""

from __future__ import annotations

import logging

from unlearn.edit import conflict_report, record
from unlearn.edit.allowed import allowed
from unlearn.edit.choose import choose
from unlearn.edit.guard import leave
from unlearn.edit.plan import Made, Plan
from unlearn.edit.sequence import Sofar
from unlearn.edit.settings import ClosedForm
from unlearn.edit.solve.batch import solve
from unlearn.edit.solve.one_step import one_step
from unlearn.edit.statistics import Source
from unlearn.edit.train.methods import train
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy.settings import UltraEdit
from unlearn.policy.settings_trained import Guard, Nothing
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.store import Store

log = logging.getLogger("unlearn")


def edit(
    model: EditableModel,
    requests: Requests,
    cache: Store | None = None,
    progress: Progress = NO_PROGRESS,
    earlier: Patch | None = None,
) -> Patch:
    """Compute the edit of a policy.

    Args:
        model: unedited, whatever came earlier; unchanged on return, bit for bit.
        requests: the policy with its answers (``resolve``).
        cache: where key statistics, and MEND's network, are kept.
        progress: where to show it.
        earlier: a patch of the same model to build on. Its keys are kept as far as the method keeps earlier ones.

    Returns:
        The patch: the sum of the earlier one and the new one. Applied to the unedited model it is the edit.

    Raises:
        ModelError: non-finite values, or an earlier patch that was made for another model.
        PatchError: an update longer than ``method.largest`` allows.
        PolicyError: layers that the model does not have, or a method that cannot build on an earlier patch.

    Examples:
        With ``model`` and ``requests`` of the example of ``resolve``:

        >>> patch = unlearn.edit(model, requests)
        >>> patch.header["policy"], len(patch.factors) == len(patch.header["layers"])
        ('first-steps', True)
    """
    allowed(model, requests.policy, earlier)
    sofar = Sofar.after(earlier, model)
    plan = choose(model, requests, Source.of(requests.policy, model, cache, progress), sofar)
    log.info("%s: %s", plan.name, plan.reasons["method"])
    if plan.conflicts is not None:
        conflict_report.write_to_log(plan.conflicts)
    return record.patch(model, requests, plan, _made(plan, model, requests, sofar, cache, progress))


def _made(
    plan: Plan,
    model: EditableModel,
    requests: Requests,
    sofar: Sofar,
    cache: Store | None,
    progress: Progress,
) -> Made:
    match plan.algorithm:
        case ClosedForm():
            return solve(plan, model, requests, sofar, progress)
        case UltraEdit() as settings:
            return one_step(plan, settings, model, requests, sofar, progress)
        case Guard() | Nothing():
            return leave(plan, model)
        case _:
            return train(plan, model, requests, cache, progress)
