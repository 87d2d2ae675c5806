"""The observations that an audit compares its candidate with: of the unedited model, and of one that never knew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unlearn.commands.cache import observed
from unlearn.commands.common import load_model
from unlearn.policy import EMBEDDED
from unlearn.progress import Progress

if TYPE_CHECKING:
    from unlearn.audit.observation import Observation
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Requests


def compared_with(
    model: EditableModel,
    requests: Requests,
    options: tuple[str, str, bool, bool],
    cache: Path | None,
    progress: Progress,
) -> tuple[Observation, Observation | None]:
    """Observe the unedited model and the control, or find both in the cache.

    Args:
        model: the unedited one.
        requests: what is asked.
        options: device, dtype, trust_remote_code and quiet, for loading the control.
        cache: a folder, or None.
        progress: where to show the steps.

    Returns:
        The unedited model's observation; and the control's, or None where the policy has none or its suite attacks
        nothing.
    """
    from unlearn.audit.observing import observe
    from unlearn.audit.suite import load_suite
    from unlearn.model.editable import CONTROL

    before = observed(model, requests, cache, lambda: observe(model, requests, progress))
    name = requests.policy.audit.control
    if name == "auto":
        name = CONTROL if requests.policy.model == EMBEDDED else "none"
    if name == "none" or not load_suite(requests.policy.audit.suite).attacks:
        return before, None
    control = load_model(name, *options)
    return before, observed(control, requests, cache, lambda: observe(control, requests, progress, "control"))
