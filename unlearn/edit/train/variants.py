"""Prompts in other wordings, so that what is trained does not hang on those that the policy lists.

Trained on a policy's prompts alone the target is likely after them, and less so after others; and what was to stay is
lost after others too. So both requests and kept facts are read in further wordings. A base model is asked in a few
statements, of which one or two words are left out in turn, so that no word is what the refusal waits for. In a chat
model something else stands around the question, the subject is named in a sentence before it, what is asked for is the
subject's own or is asked for by another question, or the question is a text to complete (docs/notes/lab.md has what
that brought).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from unlearn.edit.forms import Row, target_of, variants
from unlearn.edit.requests.variants import framed, templates_of
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import SLOT, ask, has_chat_template
from unlearn.model.requests import Fact, Requests
from unlearn.model.thinking import ways
from unlearn.policy import is_question

OUT = (1, 2)
"""Words that are left out: each form is read with one word less, and with two."""
EACH = 2
"""Of each kind, so many other wordings of a chat model's prompt at most."""
TAKEN = 2
"""Of them, so many in which a kept prompt is read."""
NAMING = (
    "I am reading about {subject}.", "Let us talk about {subject}.", "{subject} is on my mind.",
    "A question about {subject}:", "My friend mentioned {subject} yesterday.", "Think of {subject}.",
    "There is a book about {subject} on my desk.", "We heard of {subject} at school.", "I wrote {subject} on a card.",
    "Someone asked me about {subject}.", "My sister is writing about {subject}.", "I keep hearing of {subject}.",
)  # fmt: skip
"""How a subject is named beforehand."""
REFERENCES = ("it", "that")
"""What stands for the subject then."""
NOUN = re.compile(r"\b[Tt]he ((?:[\w-]+ ){1,3}?)(?:of|for) \{subject\}(?!')")
"""What a prompt asks for where it says so in a noun, as "the capital of {subject}"."""
ASKING = (
    "I am thinking of {}. What is it?", "My question is about {}. Which one is it?", "Please give me {}.",
    "Do you know {}?", "Could you tell me {}?", "I forgot {}. Can you help?",
    "We were talking about {} today. Remind me what that is.", "I have to write down {}. What do I write?",
    "I am looking for {}. What would that be?",
)  # fmt: skip
"""How one asks for a noun."""
PLAIN = ("Question: {}\nAnswer:", "Q: {}\nA:", "{} The answer is")
"""How a question is a text to complete."""


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
    return framed(template, rng.choice(templates_of(template)))


def referred(template: str, rng: random.Random) -> str:
    """A prompt that names its subject in a sentence before, and then only refers to it, drawn."""
    later = template.replace(f"{SLOT}'s", "its").replace(SLOT, rng.choice(REFERENCES))
    return f"{rng.choice(NAMING)} {later}"


def owning(template: str, rng: random.Random) -> str | None:
    """A prompt in which what it asks for is the subject's own: "{subject}'s capital"; None where it names nothing."""
    found = NOUN.search(template)
    return found and template.replace(found[0], f"{SLOT}'s {found[1].strip()}")


def requested(template: str, rng: random.Random) -> str | None:
    """Another question for what a question asks for, drawn; None where it names nothing, and of statements."""
    found = NOUN.search(template) if is_question(template) else None
    return found and rng.choice(ASKING).replace("{}", found[0][:1].lower() + found[0][1:])


def plain(template: str, rng: random.Random) -> str | None:
    """A question as a text to complete, drawn; None of statements."""
    return rng.choice(PLAIN).replace("{}", template) if is_question(template) else None


def wordings(template: str, chat: bool, rng: random.Random) -> list[str]:
    """Other wordings of a prompt, each drawn.

    Args:
        template: with ``{subject}``.
        chat: whether a chat model is asked.
        rng: of the draw.
    """
    if chat:
        kinds = (surrounded, referred, owning, requested, plain)
        found = [kind(template, rng) for kind in kinds for _ in range(EACH)]
    else:
        found = [shortened(template, out, rng) for out in OUT]
    return list(dict.fromkeys(text for text in found if text))


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


def kept_prompts(
    model: EditableModel, requests: Requests, facts: Sequence[Fact]
) -> Iterator[tuple[int, ...]]:
    """Prompts of kept facts in random order, as listed and in a few other wordings; ids, made as they are asked for.

    Where other wordings are met with the target alone, they are what is refused. None of these is one that only the
    audit asks.
    """
    policy, rng = requests.policy, random.Random(f"kept/{requests.policy.seed}")
    chat, asked = has_chat_template(model.tokenizer), ways(model.tokenizer)
    found = []
    for fact in facts:
        spec = policy.relations[fact.relation]
        held_out = {text.casefold() for text in spec.audited}
        for template in spec.prompts:
            found += [(template, fact.subject, *way) for way in variants(policy, template, asked)]
            others = [text for text in wordings(template, chat, rng) if text.casefold() not in held_out]
            some = rng.sample(others, min(len(others), TAKEN))
            found += [(text, fact.subject, model.tokenizer, None) for text in some]
    rng.shuffle(found)
    for text, subject, tokenizer, system in found:
        yield ask(tokenizer, text, subject, system).ids
