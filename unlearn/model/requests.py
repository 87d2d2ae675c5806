"""What an edit and an audit are about, once the model has been asked for the answers: plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from unlearn.matching import words
from unlearn.policy import Policy


@dataclass(frozen=True)
class Fact:
    """One (subject, relation) pair and the answer that the unedited model gives, or that the policy states."""

    id: str
    subject: str
    relation: str
    answer: str
    aliases: tuple[str, ...] = ()
    known: bool = True
    """Whether the unedited model gives the answer to at least one of the relation's prompts."""
    elicited: bool = False
    """True if the policy gave no answer and the model's own was taken."""
    doubt: str | None = None
    """Why the answer that was taken may not be the answer, in words that quote nothing; None where it was given, or the
    model's replies agree on it."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The answer and its aliases."""
        return (self.answer, *self.aliases)


NAMED = 3
"""Facts that a sentence names, at most."""


def doubts(facts: Sequence[Fact]) -> str | None:
    """What to do about facts whose elicited answers may not be the answers, by id; None where there are none."""
    found = [fact for fact in facts if fact.doubt]
    if not found:
        return None
    ids = ", ".join(f"fact {fact.id}" for fact in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"give the answer of {ids}{more} in the policy: it could not be had from the model, for {found[0].doubt}"


@dataclass(frozen=True)
class Requests:
    """A policy with its answers: what must go, what must stay, and what only the audit may ask."""

    policy: Policy
    facts: tuple[Fact, ...]
    """To be suppressed."""
    siblings: tuple[Fact, ...]
    """Other relations of the same subjects. The edit protects their ``prompts``; the audit asks their ``held_out``."""
    neighbours: tuple[Fact, ...]
    """The forbidden relations of other subjects that the edit protects; the audit does not count them."""
    held_out_neighbours: tuple[Fact, ...]
    """The forbidden relations of other subjects that the edit never sees: what ``retain.neighbours`` counts."""
    look_alikes: tuple[Fact, ...] = ()
    """The forbidden relations of names that resemble a subject and name nothing: the edit protects them."""
    derived: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By (relation, prompt), the policy's own prompt of which a generated one is another form."""

    def answered(self) -> Requests:
        """The requests without those whose answer was to be the model's own, which gave none that could be told.

        Nor is anything asked about what is to stay where the model's replies agree on no answer: it knows none. To be
        forgotten such a fact remains, for there it is the audit that fails. Neighbours that only lend their keys need
        no answer and stay.
        """

        def told(facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
            return tuple(fact for fact in facts if not fact.elicited or words(fact.answer))

        def known(facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
            return tuple(fact for fact in told(facts) if not fact.doubt)

        return replace(
            self,
            facts=told(self.facts),
            siblings=known(self.siblings),
            held_out_neighbours=known(self.held_out_neighbours),
        )

    def about(self, group: str) -> tuple[Fact, ...]:
        """What a group of an audit's probes asks about."""
        stays = {"siblings": self.siblings, "neighbours": self.held_out_neighbours}
        return stays.get(group, self.facts)

    def under(self, **changes: object) -> Requests:
        """The same requests with some of the policy's settings changed (``method``, ``seed``, ``statistics``).

        What the model was asked for, such as targets that it wrote itself, stays in the policy.
        """
        return replace(self, policy=self.policy.model_copy(update=changes))
