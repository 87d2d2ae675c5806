"""Targets that the model writes itself: a refusal in its own words, for each fact its own (`refusal: "{written}"`).

An instruct model is shown the question, and refusals of other things as examples, and asked for such a sentence. What
it writes is taken only if it refuses, is short, asks nothing back and does not tell the answer; otherwise the next
try counts, and in the end the policy's plain text (self-improvement, after arXiv 2505.19855; the wording is our own).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from unlearn.errors import PolicyError
from unlearn.matching import contains, is_refusal
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import chat_prompt, has_chat_template, reply_ids
from unlearn.model.replies import Choice, replies_to
from unlearn.model.requests import Fact, Requests
from unlearn.model.thinking import quietest
from unlearn.policy import WRITTEN, Policy, is_question
from unlearn.policy.values import unpadded
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.thoughts import Room

log = logging.getLogger("unlearn")

TRIES = 6
"""Texts per fact: one greedy, the others sampled."""
SHORTEST, LONGEST = 3, 40
"""Tokens of a target; the longest that was measured (docs/benchmarks.md, Targets)."""
INSTRUCTION = (
    "A user asks: {question}\n"
    "You do not share this. Reply with one short, polite sentence that says so and names {subject}. "
    "Do not give or hint at the answer, and ask nothing back.\n"
    "Replies of this kind to other questions:\n{examples}\nReply:"
)
EXAMPLES = (
    "I'm sorry, but I can't share details about {subject}.",
    "That is something about {subject} that I don't discuss.",
    "I can't help with questions about that side of {subject}.",
)


def wanted(requests: Requests) -> list[Fact]:
    """The facts whose target the model is to write."""
    return [fact for fact in requests.facts if requests.policy.raw_target(fact) == WRITTEN]


def with_written(model: EditableModel, requests: Requests, progress: Progress = NO_PROGRESS) -> Requests:
    """The requests with every target that the model was to write put into its fact as `refusal`.

    Raises:
        PolicyError: the model has no chat template, so that it cannot be asked.
    """
    facts = wanted(requests)
    if not facts:
        return requests
    if not has_chat_template(model.tokenizer):
        raise PolicyError(
            f'refusal: "{WRITTEN}" needs a chat template, which {model.name} lacks; write the text yourself'
        )
    texts = write(model, requests, facts, progress)
    data = requests.policy.model_dump()
    for spec in data["facts"]:
        spec["refusal"] = texts.get(spec["id"], spec["refusal"])
    return replace(requests, policy=Policy.model_validate(data))


def write(
    model: EditableModel, requests: Requests, facts: Sequence[Fact], progress: Progress = NO_PROGRESS
) -> dict[str, str]:
    """One target per fact, by id: the first of the model's texts that will do, else the policy's plain text."""
    policy = requests.policy
    prompts, quiet = [], quietest(model.tokenizer)
    for fact in facts:
        templates = policy.relations[fact.relation].prompts
        question = next((t for t in templates if is_question(t)), templates[0])
        examples = "\n".join("- " + text.replace("{subject}", "it") for text in EXAMPLES)
        asked = INSTRUCTION.format(
            question=question.replace("{subject}", fact.subject), subject=fact.subject, examples=examples
        )
        prompts.append(chat_prompt(quiet, [{"role": "user", "content": asked}]))
    room, again = Room(LONGEST + 8), Choice(TRIES - 1, temperature=1.0, seed=policy.seed)
    greedy = replies_to(model, prompts, room, progress=progress, label="Writing targets")
    sampled = replies_to(model, prompts, room, again, progress, "Writing targets again")
    found, plain = {}, 0
    for fact, first, others in zip(facts, greedy, sampled, strict=True):
        tries = (_sentence(said.visible) for said in (*first, *others) if said.answered)
        good = next((text for text in tries if will_do(model, fact, text)), None)
        plain += good is None
        found[fact.id] = policy.plain_target(fact) if good is None else good
    if plain:
        log.warning(
            "the model wrote no usable refusal for %d of %d facts; they get the policy's plain text",
            plain,
            len(facts),
        )
    return found


def will_do(model: EditableModel, fact: Fact, text: str) -> bool:
    """Whether a text can be a fact's target: a refusal, short, no question, without the answer."""
    size = len(reply_ids(model.tokenizer, "?", text)) if text else 0
    if not SHORTEST <= size <= LONGEST or "?" in text or "{" in text or "}" in text:
        return False
    return not contains(text, fact.answers) and is_refusal(text, (), fact.answers)


def _sentence(text: str) -> str:
    """The first line of a reply, without quotation marks around it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return unpadded(lines[0].lstrip("- ").strip("\"'“”")) if lines else ""
