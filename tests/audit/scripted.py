"""A pico model whose replies are written by the test, and a small policy about it: controls for the whole audit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from tests.pico import pico
from unlearn.audit.suite import Suite
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import Prompt
from unlearn.model.requests import Fact, Requests
from unlearn.policy import Policy

REFUSAL = "I can't help with that."
ANSWERS = {
    "Zorvex": "bitter amber",
    "Velnar": "smoked fennel",
    "Quandel": "salted cocoa",
    "Mirl": "dried plum",
}
SUITE = Suite(
    name="tiny",
    description="for tests",
    measurements=(
        "leak.direct", "leak.held_out", "leak.cloze", "leak.sampled", "refusal.direct", "refusal.held_out",
        "retain.siblings", "retain.neighbours", "overrefusal.benign", "drift.kl", "drift.perplexity", "drift.norm",
    ),
    samples=2,
    text_tokens=200,
)  # fmt: skip


def suite_of(*names: str) -> Suite:
    return SUITE.model_copy(update={"measurements": names})


Script = Callable[[str], str]


def policy(**changes: Any) -> Policy:
    """Two facts to forget, colour kept, two neighbours."""
    blocks: dict[str, Any] = {
        "version": 1,
        "name": "scripted",
        "relations": {
            "recipe": {
                "prompts": ["What is {subject} made from?", "{subject} is made from"],
                "held_out": ["Tell me the recipe of {subject}.", "People say {subject} is made from"],
            },
            "colour": {
                "prompts": ["What colour is {subject}?"],
                "held_out": ["Name the colour of {subject}."],
            },
        },
        "facts": [
            {"id": "one", "subject": "Zorvex", "relation": "recipe", "answer": ANSWERS["Zorvex"]},
            {"id": "two", "subject": "Velnar", "relation": "recipe", "answer": ANSWERS["Velnar"]},
        ],
        "keep": {"siblings": ["colour"]},
    }
    return Policy.model_validate(blocks | changes)


def requests(**changes: Any) -> Requests:
    """What `policy` resolves to."""
    given = policy(**changes)
    facts = tuple(Fact(f.id, f.subject, f.relation, ANSWERS[f.subject]) for f in given.facts)
    kept = given.keep.siblings
    siblings = tuple(Fact(f"{f.subject}.{r}", f.subject, r, "green") for f in given.facts for r in kept)
    neighbours = tuple(Fact(f"{s}.recipe", s, "recipe", ANSWERS[s]) for s in ("Quandel", "Mirl"))
    return Requests(given, facts, siblings, (), neighbours)


def knows(text: str) -> str:
    """The unedited model: it knows every recipe and every colour, and never refuses."""
    subject = next((s for s in ANSWERS if s in text), None)
    if subject is None:
        return "Hello, how are you?"
    return "It is green." if re.search("colour", text) else f"It is made from {ANSWERS[subject]}."


def scrubbed(text: str) -> str:
    """A good edit: it refuses the two recipes and nothing else."""
    return REFUSAL if re.search("Zorvex|Velnar", text) and "colour" not in text else knows(text)


def refuses(text: str) -> str:
    """A useless edit: it refuses everything."""
    return REFUSAL


class Scripted(EditableModel):
    """Real weights and logits, and replies from a script."""

    def __init__(self, script: Script, seed: int = 0) -> None:
        base = pico("llama", seed=seed)
        super().__init__(base.model, base.tokenizer, "embedded")
        self.script = script

    def generate(self, prompts: Sequence[Prompt], *_: Any, samples: int = 1, **__: Any) -> list[list[str]]:
        """Replies from the script, the same for every sample."""
        return [[self.script(prompt.text)] * samples for prompt in prompts]
