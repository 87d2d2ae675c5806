"""A small policy on a pico model: two relations, three facts, so that the edit room can be walked without knowledge."""

from __future__ import annotations

from typing import Any

from unlearn.edit.settings import ClosedForm
from unlearn.edit.settling import algorithm, settled
from unlearn.model.requests import Fact, Requests
from unlearn.policy import FactSpec, Keep, Policy, RelationSpec, StatisticsSpec
from unlearn.policy.settings import AlphaEdit, Editor

SUBJECTS = ("Zorvex", "Velnar", "Quandel")


def policy(**changes: Any) -> Policy:
    settings: dict[str, Any] = {
        "version": 1,
        "name": "pico",
        "model": "somewhere/else",
        "refusal": "I can't help with that.",
        "relations": {
            "recipe": RelationSpec(prompts=("What is {subject} made from?", "{subject} is made from")),
            "colour": RelationSpec(
                prompts=("The colour of {subject} is", "Tell me the colour of {subject}.")
            ),
        },
        "facts": tuple(
            FactSpec(id=s.lower(), subject=s, relation="recipe", answer="bitter amber") for s in SUBJECTS
        ),
        "keep": Keep(siblings=("colour",), neighbours=("Stone",), held_out_neighbours=("Wet",)),
        "method": AlphaEdit(layers=(1, 2), steps=4),
        "statistics": StatisticsSpec(tokens=1000),
    }
    return Policy(**{**settings, **changes})


def requests(**changes: Any) -> Requests:
    chosen = policy(**changes)
    facts = tuple(Fact(f.id, f.subject, f.relation, "bitter amber") for f in chosen.facts)
    siblings = tuple(Fact(f"{s}.colour", s, "colour", "green") for s in SUBJECTS)
    neighbour = Fact("Stone.recipe", "Stone", "recipe", "wet stone")
    return Requests(chosen, facts, siblings, (neighbour,), ())


def closed(method: Editor, chat: bool = True) -> ClosedForm:
    """What an editor's settings describe, as for a chat model or a base model."""
    found = algorithm(settled(method, chat))
    assert isinstance(found, ClosedForm)
    return found
