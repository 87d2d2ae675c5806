"""Variants of a policy's prompts: an edit over more of them reaches more of those that nobody wrote down.

Two sources, both without a network. *Templates* put a few words before a prompt, or after it, which changes every key
at the look-up token and none of the meaning. An instruct model can also be asked for other wordings: those are
taken that keep the subject, once, are of the same kind (a question, or a statement to complete) and do not tell the
answer. No variant that the audit alone asks is ever added: it must ask what the edit has not seen.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from unlearn.errors import PolicyError
from unlearn.matching import contains
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import SLOT, chat_prompt, has_chat_template
from unlearn.model.replies import replies_to
from unlearn.model.requests import Fact, Requests
from unlearn.model.thinking import quietest
from unlearn.policy import Policy, is_question
from unlearn.policy.values import unpadded
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.thoughts import Room

log = logging.getLogger("unlearn")

QUESTIONS = (
    "I have a question. {}",
    "Hello! {}",
    "{} Please answer.",
    "Please answer this: {}",
    "I need to know this. {}",
    "A visitor wants to know: {}",
    "This is for my homework. {}",
    "A man in a tale says: {}",
    "You know everything about this. {}",
    "Nobody else will hear it. {}",
    "{} Be brief.",
    "Quick question: {}",
)
STATEMENTS = (
    "As everyone knows, {}",
    "I have read that {}",
    "It is true that {}",
    "My teacher says that {}",
    "In short, {}",
    "The book says that {}",
    "An old man told me that {}",
    "If you ask the people there, {}",
    "Everyone here says that {}",
    "By the way, {}",
    "Here is a fact: {}",
    "We know that {}",
)
INSTRUCTION = (
    "Write {count} other ways to say this, one per line, each with the words {subject} unchanged:\n{text}"
)
LONGEST = 40
"""Tokens per wording that the model may write."""


def with_prompt_variants(
    model: EditableModel, requests: Requests, progress: Progress = NO_PROGRESS
) -> Requests:
    """The requests with further prompts of the forgotten relations, as many as the policy asks for.

    Raises:
        PolicyError: the model is to write wordings and has no chat template.
    """
    policy = requests.policy
    wanted = policy.prompt_variants
    if not (wanted.templates or wanted.written):
        return requests
    if wanted.written and not has_chat_template(model.tokenizer):
        raise PolicyError(
            f"prompt_variants.written needs a chat template, which {model.name} lacks; use prompt_variants.templates"
        )
    data = policy.model_dump()
    derived: dict[tuple[str, str], str] = {}
    for name in {fact.relation for fact in requests.facts}:
        spec = policy.relations[name]
        fact = next(fact for fact in requests.facts if fact.relation == name)
        taken = {prompt.casefold() for prompt in (*spec.prompts, *spec.audited)}
        more: list[str] = []
        for prompt in spec.prompts:
            made = from_templates(prompt, wanted.templates)
            if wanted.written:
                made += written(model, prompt, fact, wanted.written, progress)
            for text in made:
                if text.casefold() not in taken:
                    taken.add(text.casefold())
                    more.append(text)
                    derived[name, text] = prompt
        data["relations"][name]["prompts"] = (*spec.prompts, *more)
    return replace(requests, policy=Policy.model_validate(data), derived=derived)


def from_templates(prompt: str, count: int) -> list[str]:
    """At most ``count`` variants of a prompt with words before or after it; which ones depends on the prompt alone."""
    templates = templates_of(prompt)
    first = sum(map(ord, prompt)) % len(templates)
    turned = (*templates[first:], *templates[:first])
    return [framed(prompt, template) for template in turned[:count]]


def templates_of(prompt: str) -> tuple[str, ...]:
    """What may stand around a prompt."""
    return QUESTIONS if is_question(prompt) else STATEMENTS


def framed(prompt: str, template: str) -> str:
    """A prompt with words before or after it."""
    # A statement goes on inside a sentence: its first word loses its capital, unless it is the subject.
    inner = prompt if is_question(prompt) or prompt.startswith(SLOT) else prompt[:1].lower() + prompt[1:]
    return template.format(inner)


def written(
    model: EditableModel, prompt: str, fact: Fact, count: int, progress: Progress = NO_PROGRESS
) -> list[str]:
    """At most ``count`` wordings of a fact's prompt by the model itself, with {subject} in its place again."""
    text = INSTRUCTION.format(count=count, subject=fact.subject, text=prompt.replace(SLOT, fact.subject))
    asked = chat_prompt(quietest(model.tokenizer), [{"role": "user", "content": text}])
    room = Room(LONGEST * count)
    reply = replies_to(model, [asked], room, progress=progress, label="Writing prompt variants")[0][0]
    return usable(items(reply.visible), prompt, fact)[:count]


def items(reply: str) -> list[str]:
    """The lines of a list that a model writes, without bullets, numbers and quotation marks."""
    return [unpadded(line.strip().lstrip("-*•0123456789.) ").strip("\"'“”")) for line in reply.splitlines()]


def usable(lines: Sequence[str], prompt: str, fact: Fact) -> list[str]:
    """The lines that can stand for a prompt, with {subject} for the fact's subject."""
    subject = fact.subject
    found = []
    for bare in lines:
        if bare.count(subject) != 1 or "{" in bare or "}" in bare or contains(bare, fact.answers):
            continue
        form = bare.replace(subject, SLOT)
        if (
            is_question(form) == is_question(prompt)
            and form != prompt
            and form.replace(SLOT, "").strip(" .?!")
        ):
            found.append(form)
    return list(dict.fromkeys(found))
