"""Prompts with words left out, so that what is trained does not hang on a wording.

A base model is asked in a few statements, and whoever asks it next words the relation otherwise. Trained on the
statements alone the target is likely after them, and less so after others; with one or two of their words missing, in
turn, no word is what the refusal waits for (docs/benchmarks.md).
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import combinations

from unlearn.edit.forms import Row, target_of
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import SLOT, ask
from unlearn.model.requests import Requests
from unlearn.policy import is_question

OUT = (1, 2)
"""Words that are left out: each form is read with one word less, and with two."""


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


def shortened_forms(model: EditableModel, requests: Requests) -> list[Row]:
    """The forms of all facts with words left out, with their targets.

    None that the audit asks, and none that is a prompt of the subject's harmless relations or may become one: "X is"
    asks for nothing that is forbidden. The rows have no sites, since they are trained and not written.
    """
    policy, rng = requests.policy, random.Random(f"shortened/{requests.policy.seed}")
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
        less = [shortened(template, out, rng) for template in spec.prompts for out in OUT]
        for text in dict.fromkeys(text for text in less if text):
            if text.casefold() not in taken and text not in harmless:
                prompt = ask(model.tokenizer, text, fact.subject)
                target = target_of(model, policy, fact, prompt)
                found.append(
                    Row((*prompt.ids, *target), len(target), index, (), False, not is_question(text))
                )
    return found


def shortened_kept(model: EditableModel, requests: Requests) -> list[tuple[int, ...]]:
    """One prompt of each kept fact with words left out, its forms and the number of words in turn."""
    policy, rng = requests.policy, random.Random(f"shortened/kept/{requests.policy.seed}")
    found = []
    for number, fact in enumerate((*requests.siblings, *requests.neighbours, *requests.look_alikes)):
        prompts = policy.relations[fact.relation].prompts
        text = shortened(prompts[number % len(prompts)], OUT[number % len(OUT)], rng)
        if text:
            found.append(ask(model.tokenizer, text, fact.subject).ids)
    return found
