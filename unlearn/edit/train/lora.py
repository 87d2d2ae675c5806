"""LoRA refusal tuning through ``peft``, and what the preference methods share with it (docs/methods/lora.md)."""

from __future__ import annotations

from collections.abc import Callable

from unlearn.edit.settings import Adapting, Refusing
from unlearn.edit.train.lessons import Lessons, lessons
from unlearn.edit.train.loop import Done, Trained, minimise
from unlearn.edit.train.replied import Forgetting, Replied, per_token
from unlearn.errors import PolicyError
from unlearn.model.adapters import linears
from unlearn.model.editable import EditableModel
from unlearn.model.factors import lora as adapted
from unlearn.model.narrow import quick_passes
from unlearn.model.requests import Requests
from unlearn.progress import NO_PROGRESS, Progress


def lora(
    model: EditableModel, requests: Requests, settings: Refusing, progress: Progress = NO_PROGRESS
) -> Trained:
    """Make the refusals likely and hold the kept replies, by low-rank factors on the linear layers."""

    def done(_first: float, forget: float, keep: float) -> bool:
        # The likelihood of a kept reply has a floor of its own; only a divergence goes to zero.
        enough = settings.converged
        return enough is not None and forget < enough and (keep < enough or settings.keep_loss == "nll")

    return tune(
        model, requests, settings, lambda _: per_token, done, own=False, progress=progress, label="LoRA"
    )


def tune(
    model: EditableModel,
    requests: Requests,
    settings: Adapting,
    forgetting: Callable[[Replied], Forgetting],
    done: Done,
    *,
    own: bool,
    progress: Progress,
    label: str,
) -> Trained:
    """Train LoRA factors for an objective.

    Args:
        forgetting: what is minimised on rows to be forgotten; given the rows before anything was trained.
        own: as in ``lessons``.
    """
    learned = prepared(model, requests, settings, own, label)
    names = linears(model, settings.targets)
    seed = requests.policy.seed
    with quick_passes(model, 0, learned.longest), adapted(model, names, settings.rank, seed) as adapter:
        rows = Replied(model, learned)
        history = minimise(
            adapter,
            learned,
            rows.step(forgetting(rows), settings.keep, settings.keep_loss),
            done,
            settings,
            seed=seed,
            progress=progress,
            label=label,
        )
        return Trained(adapter.factors(), history)


def prepared(model: EditableModel, requests: Requests, settings: Adapting, own: bool, label: str) -> Lessons:
    """The lessons, with no more kept rows than the training can see.

    Raises:
        PolicyError: the model says nothing to any forbidden prompt, so that there is nothing to unlearn.
    """
    return something(model, lessons(model, requests, own=own, kept=settings.kept * settings.steps), label)


def something(model: EditableModel, learned: Lessons, label: str) -> Lessons:
    """Hand lessons on; raises PolicyError where there is nothing to unlearn."""
    if not learned.forget:
        raise PolicyError(
            f"{model.name} says nothing to the policy's prompts; {label} has nothing to unlearn"
        )
    return learned
