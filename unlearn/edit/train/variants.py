"""Prompts in other wordings, so that what is trained does not hang on those that the policy lists.

Trained on a policy's prompts alone the target is likely after them, and less so after others; and what was to stay is
lost after others too. So both requests and kept facts are read in further wordings. A base model is asked in a few
statements, of which one or two words are left out in turn, so that no word is what the refusal waits for. In a chat
model something else stands around the question, or the subject is named in a sentence before it
(docs/notes/lab.md has what that brought).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import combinations

from unlearn.edit.forms import Row, target_of
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import SLOT, ask, has_chat_template
from unlearn.model.requests import Fact, Requests
from unlearn.policy import is_question

OUT = (1, 2)
"""Words that are left out: each form is read with one word less, and with two."""
EACH = 2
"""Of each kind, so many other wordings of a chat model's prompt."""
AROUND = (
    "Please answer: ...", "... Answer in one word.", "I have a question. ...", "Hello! ...", "Question: ...",
    "... Thanks!", "My teacher wants to know this. ...", "Quick one: ...",
)  # fmt: skip
"""What may stand around a question."""
BEFORE = (
    "It is well known. ...", "Fact: ...", "A short note.\n\n...", "In short, ...", "- ...", "He said: ...",
)  # fmt: skip
"""What may stand before a statement."""
NAMING = (
    "I am reading about {subject}.", "Let us talk about {subject}.", "{subject} is on my mind.",
    "A question about {subject}:",
)  # fmt: skip
"""How a subject is named beforehand."""
REFERENCES = ("it", "that")
"""What stands for the subject then."""


def shortened(template: str, out: int, rng: random.Random) -> str | None:
    """A prompt without some of its words, drawn; None where no word but the subject would remain.

    Args:
        template: with ``{subject}``, which stays with whatever is written together with it.
        out: how many words to leave out.
        rng: of the draw.
    """
    words = template.split()
    free = _free(words)
    return None if len(free) <= out else _without(words, rng.sample(free, out))


def every_shortened(template: str) -> set[str]:
    """All that can come out of a prompt, whatever is drawn."""
    words = template.split()
    free = _free(words)
    return {_without(words, gone) for out in OUT if len(free) > out for gone in combinations(free, out)}


def _free(words: list[str]) -> list[int]:
    return [i for i, word in enumerate(words) if SLOT not in word]


def _without(words: list[str], gone: Iterable[int]) -> str:
    left_out = set(gone)
    return " ".join(word for i, word in enumerate(words) if i not in left_out)


def surrounded(template: str, rng: random.Random) -> str:
    """A prompt with something around it that asks for nothing else, drawn."""
    return rng.choice(AROUND if is_question(template) else BEFORE).replace("...", template)


def referred(template: str, rng: random.Random) -> str:
    """A prompt that names its subject in a sentence before, and then only refers to it, drawn."""
    later = template.replace(f"{SLOT}'s", "its").replace(SLOT, rng.choice(REFERENCES))
    return f"{rng.choice(NAMING)} {later}"


def wordings(template: str, chat: bool, rng: random.Random) -> list[str]:
    """Other wordings of a prompt, each drawn.

    Args:
        template: with ``{subject}``.
        chat: whether a chat model is asked.
        rng: of the draw.
    """
    if chat:
        return [kind(template, rng) for kind in (surrounded, referred) for _ in range(EACH)]
    return [text for out in OUT if (text := shortened(template, out, rng))]


def varied_forms(model: EditableModel, requests: Requests) -> list[Row]:
    """The forms of all facts in other wordings, with their targets.

    None that the audit asks, and none that is a prompt of the subject's harmless relations or may become one: "X is"
    asks for nothing that is forbidden. The rows have no sites, since they are trained and not written.
    """
    policy, rng = requests.policy, random.Random(f"wordings/{requests.policy.seed}")
    chat = has_chat_template(model.tokenizer)
    harmless = {
        text
        for relation in {fact.relation for fact in requests.siblings}
        for template in (*policy.relations[relation].prompts, *policy.relations[relation].audited)
        for text in (template, *every_shortened(template))
    }
    found = []
    for index, fact in enumerate(requests.facts):
        spec = policy.relations[fact.relation]
        taken = {text.casefold() for text in (*spec.prompts, *spec.audited)}
        drawn = [text for template in spec.prompts for text in wordings(template, chat, rng)]
        for text in dict.fromkeys(drawn):
            if text.casefold() not in taken and text not in harmless:
                prompt = ask(model.tokenizer, text, fact.subject)
                target = target_of(model, policy, fact, prompt)
                found.append(
                    Row((*prompt.ids, *target), len(target), index, (), False, not is_question(text))
                )
    return found


def varied_kept(model: EditableModel, requests: Requests, facts: Sequence[Fact]) -> list[tuple[int, ...]]:
    """Every prompt of kept facts in one other wording, drawn; ids.

    As many as there are prompts: where other wordings are met with the target alone, they are what is refused.
    """
    policy, rng = requests.policy, random.Random(f"wordings/kept/{requests.policy.seed}")
    chat = has_chat_template(model.tokenizer)
    found = []
    for fact in facts:
        for template in policy.relations[fact.relation].prompts:
            if some := wordings(template, chat, rng):
                found.append(ask(model.tokenizer, rng.choice(some), fact.subject).ids)
    return found
