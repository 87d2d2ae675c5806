"""The in-context guard and the no-op: patches that leave every weight as it is (docs/methods/guard.md, none.md)."""

from __future__ import annotations

from unlearn.edit.plan import Made, Plan
from unlearn.edit.sequence import Sofar
from unlearn.errors import PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import continuation_ids
from unlearn.policy import Policy, is_question
from unlearn.policy.settings_trained import Guard

EXAMPLES = 2
"""How many of a relation's questions the guard quotes."""


def leave(plan: Plan, model: EditableModel) -> Made:
    """No edit of the weights: the policy as a system prompt, which is what a retrieval system would put there, or none.

    Raises:
        PolicyError: the text leaves too little of the model's context to the question.
    """
    settings = plan.algorithm
    if not isinstance(settings, Guard):
        return Made(Sofar())
    tokens = len(continuation_ids(model.tokenizer, settings.text))
    room = int(settings.context * model.context)
    if tokens > room:
        raise PolicyError(
            f"method.text: the guard has {tokens} tokens and may have {room} of this model's context of "
            f"{model.context}; write a shorter one, split the policy, or raise method.context"
        )
    return Made(Sofar(), notes={"system": settings.text, "system_tokens": tokens})


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
