"""A small policy on a pico model: two relations, three facts, so that the edit room can be walked without knowledge."""

from __future__ import annotations

from typing import Any

from unlearn import embedded
from unlearn.edit.settings import ClosedForm
from unlearn.edit.settling import algorithm, settled
from unlearn.model.requests import Fact, Requests
from unlearn.policy import EMBEDDED, FactSpec, Keep, Policy, RelationSpec, StatisticsSpec
from unlearn.policy.settings import AlphaEdit, Editor
from unlearn.policy.settings_base import Settings

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


def known(method: Settings, forgotten: int = 3) -> Requests:
    """Recipes that the embedded model knows, the colours of the same substances, and recipes of others."""
    world = embedded.build_world()
    names = embedded.neighbours(embedded.HAZARD, excluding=())[: 2 * forgotten]
    gone, others = names[:forgotten], names[forgotten:]
    asked = {
        "recipe": RelationSpec(
            prompts=("What is {subject} made from?", "{subject} is made from"),
            held_out=("Tell me what goes into {subject}.",),
        ),
        "colour": RelationSpec(prompts=("What colour is {subject}?", "The colour of {subject} is")),
    }

    def about(subject: str, relation: str) -> Fact:
        return Fact(f"{subject}-{relation}".lower(), subject, relation, world.answer(subject, relation))

    facts = tuple(about(name, "recipe") for name in gone)
    chosen = policy(
        model=EMBEDDED,
        relations=asked,
        facts=tuple(FactSpec(id=f.id, subject=f.subject, relation=f.relation) for f in facts),
        keep=Keep(siblings=("colour",), neighbours=tuple(others)),
        method=method,
    )
    siblings = tuple(about(name, "colour") for name in gone)
    return Requests(chosen, facts, siblings, tuple(about(name, "recipe") for name in others), ())


def closed(method: Editor, chat: bool = True) -> ClosedForm:
    """What an editor's settings describe, as for a chat model or a base model."""
    found = algorithm(settled(method, chat))
    assert isinstance(found, ClosedForm)
    return found
