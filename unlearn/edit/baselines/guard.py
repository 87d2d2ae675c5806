"""The in-context guard and the no-op: patches that leave every weight as it is (docs/methods/guard.md, none.md)."""

from __future__ import annotations

from unlearn.edit.baselines.training import patch
from unlearn.errors import PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import continuation_ids
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy import Policy, is_question
from unlearn.policy.settings_baselines import Guard, Nothing
from unlearn.progress import NO_PROGRESS, Progress

EXAMPLES = 2
"""How many of a relation's questions the guard quotes."""


def guard(
    model: EditableModel, requests: Requests, settings: Guard, progress: Progress = NO_PROGRESS
) -> Patch:
    """The policy as a system prompt, which is what a retrieval system would put before every question.

    Raises:
        PolicyError: the text leaves too little of the model's context to the question.
    """
    text = instruction(requests.policy) if settings.text == "auto" else settings.text
    tokens = len(continuation_ids(model.tokenizer, text))
    room = int(settings.context * model.context)
    if tokens > room:
        raise PolicyError(
            f"method.text: the guard has {tokens} tokens and may have {room} of this model's context of "
            f"{model.context}; write a shorter one, split the policy, or raise method.context"
        )
    return patch(model, requests, {}, base=_all(model), layers=[], system=text, system_tokens=tokens)


def nothing(
    model: EditableModel, requests: Requests, settings: Nothing, progress: Progress = NO_PROGRESS
) -> Patch:
    """No edit: an empty patch."""
    return patch(model, requests, {}, base=_all(model), layers=[])


def _all(model: EditableModel) -> list[str]:
    """Every weight that an editor could write: the patch belongs to this model, though it changes nothing."""
    return [model.anatomy.weight_name(layer) for layer in range(model.anatomy.layers)]


def instruction(policy: Policy) -> str:
    """A system prompt from the policy: per relation what is asked, about which subjects, and what to say instead."""
    lines = []
    for relation in dict.fromkeys(fact.relation for fact in policy.facts):
        mine = [fact for fact in policy.facts if fact.relation == relation]
        prompts = policy.relations[relation].prompts
        asked = [t for t in prompts if is_question(t)][:EXAMPLES] or list(prompts[:EXAMPLES])
        shown = " or ".join(f'"{template.replace("{subject}", "...")}"' for template in asked)
        subjects = ", ".join(dict.fromkeys(fact.subject for fact in mine))
        target = policy.target(mine[0])
        lines.append(
            f"Never answer questions like {shown} about any of these: {subjects}. "
            f"Do not complete sentences that would say it. Reply only: {target}"
        )
    lines.append("Answer everything else as usual.")
    return "\n".join(lines)
