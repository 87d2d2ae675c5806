"""Ask the unedited model for every answer that the policy does not state: what it knows is what must go, or stay."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from unlearn import embedded
from unlearn.edit.requests import answers
from unlearn.edit.requests.look_alikes import look_alikes
from unlearn.edit.requests.named import with_neighbours
from unlearn.edit.requests.targets import with_written
from unlearn.edit.requests.variants import with_prompt_variants
from unlearn.errors import PolicyError
from unlearn.matching import contains
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import Prompt, ask
from unlearn.model.replies import replies_to
from unlearn.model.requests import Fact, Requests, doubts
from unlearn.model.thinking import quietest
from unlearn.policy import EMBEDDED, FactSpec, Policy, is_question
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.thoughts import Room

log = logging.getLogger("unlearn")

NEIGHBOURS = 240
"""Most subjects that `neighbours: auto` takes per relation; the audit asks every fourth, the edit protects the rest."""
LOOK_ALIKES, TOGETHER = 1000, 3000
"""About the most names per relation that resemble a subject, or over all relations if that is more: so many show what a
name is, however many subjects."""
ASKED = 3
"""How many of a relation's prompts are asked for its answer, statements first."""
LENGTH = 24
"""Longest elicited reply, in tokens."""


def resolve(model: EditableModel, policy: Policy, progress: Progress = NO_PROGRESS) -> Requests:
    """Fill in the answers of a policy's facts, siblings and neighbours from the unedited model.

    Args:
        model: unedited.
        policy: what must go, and what must stay.
        progress: where to show it.

    Raises:
        PolicyError: no neighbours are listed, and the model cannot be asked for any.

    Examples:
        >>> import unlearn
        >>> policy = unlearn.load_policy("examples/forget.yaml")
        >>> model = unlearn.load_model(policy.model)
        >>> requests = unlearn.resolve(model, policy)
        >>> [fact.known for fact in requests.facts]
        [True, True, True]
    """
    policy = with_neighbours(model, policy, progress)
    forgotten = list(dict.fromkeys(fact.relation for fact in policy.facts))
    protected, tested = neighbours(policy)
    siblings = policy.sibling_pairs
    asked = [(s, r) for r in forgotten for s in tested[r]]
    others = (*numbered("sibling", siblings), *numbered("neighbour", asked))
    facts, rest = _elicit(model, policy, others, progress)
    doubt = doubts(facts)
    if doubt:
        log.warning("%s; until then an audit fails", doubt)
    # What only lends its keys needs no answer.
    lent = numbered("protected neighbour", ((s, r) for r in forgotten for s in protected[r]))
    found = Requests(
        policy,
        facts,
        rest[: len(siblings)],
        lent,
        rest[len(siblings) :],
        alike(model, policy, protected, tested),
    )
    return with_written(model, with_prompt_variants(model, found, progress), progress)


def guessed(model: EditableModel, policy: Policy, progress: Progress = NO_PROGRESS) -> tuple[Fact, ...]:
    """The facts whose answers a policy leaves to the model, with those that `resolve` would take."""
    if all(spec.answer for spec in policy.facts):
        return ()
    # Neighbours are asked as well, for what replies have in common shows what an answer is.
    facts, _ = _elicit(model, policy, outline(policy).held_out_neighbours, progress)
    return tuple(fact for fact in facts if fact.elicited)


def alike(
    model: EditableModel, policy: Policy, protected: dict[str, list[str]], tested: dict[str, list[str]]
) -> tuple[Fact, ...]:
    """The forbidden relations of names that look like a subject and name nothing."""
    found: list[tuple[str, str]] = []
    for relation, others in protected.items():
        mine = [fact.subject for fact in policy.facts if fact.relation == relation]
        most = max(LOOK_ALIKES, TOGETHER // len(protected))
        each = min(policy.keep.look_alikes, -(-most // max(1, len(mine))))
        names = look_alikes(model, mine, others, each, tested[relation], policy.seed)
        found += [(name, relation) for name in names]
    return numbered("look-alike", found)


def numbered(kind: str, pairs: Iterable[tuple[str, str]]) -> tuple[Fact, ...]:
    """Facts of (subject, relation) pairs without their answers; their ids must not quote a subject, and do not.

    Outcomes are kept and compared under these ids; with the space in it, none is an id of the policy's.
    """
    return tuple(Fact(f"{kind} {i}", s, r, answer="") for i, (s, r) in enumerate(pairs, 1))


def outline(policy: Policy) -> Requests:
    """The requests of a policy without any answers: enough to look at their prompts, and no model is asked.

    Raises:
        PolicyError: no neighbours are listed, and the world of the embedded model has none.
    """
    protected, tested = neighbours(policy)
    return Requests(
        policy,
        tuple(Fact(fact.id, fact.subject, fact.relation, fact.answer or "") for fact in policy.facts),
        numbered("sibling", policy.sibling_pairs),
        numbered("protected neighbour", ((s, r) for r, names in protected.items() for s in names)),
        numbered("neighbour", ((s, r) for r, names in tested.items() for s in names)),
    )


def neighbours(policy: Policy) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Subjects per forbidden relation that the edit protects, and those that only the audit asks about.

    Raises:
        PolicyError: `auto` for a model that has not been asked for them (``named.with_neighbours``).
    """
    forgotten = list(dict.fromkeys(fact.relation for fact in policy.facts))
    keep = policy.keep
    if keep.neighbours != "auto":
        return ({r: list(keep.protected(r)) for r in forgotten}, {r: list(keep.tested(r)) for r in forgotten})
    if policy.model != EMBEDDED:
        raise PolicyError(
            "keep.neighbours: `auto` knows the subjects of the embedded model only; ask this one, or list subjects"
        )
    protected, tested = {}, {}
    for relation in forgotten:
        mine = [fact.subject for fact in policy.facts if fact.relation == relation]
        listed = keep.tested(relation)
        others = embedded.neighbours(relation, excluding={*mine, *listed})[:NEIGHBOURS]
        tested[relation] = [*listed, *others[3::4]]
        protected[relation] = [name for i, name in enumerate(others) if i % 4 != 3]
    return protected, tested


def _elicit(
    model: EditableModel, policy: Policy, others: Iterable[Fact], progress: Progress
) -> tuple[tuple[Fact, ...], tuple[Fact, ...]]:
    """The policy's facts and others, each with its answer."""
    specs = [
        *policy.facts,
        *(
            FactSpec.model_construct(id=fact.id, subject=fact.subject, relation=fact.relation)
            for fact in others
        ),
    ]
    asked: list[tuple[int, str, Prompt]] = []
    for index, spec in enumerate(specs):
        prompts = policy.relations[spec.relation].prompts
        statements = [t for t in prompts if not is_question(t)][:2]
        for template in statements + [t for t in prompts if is_question(t)][: ASKED - len(statements)]:
            asked.append((index, template, ask(model.tokenizer, template, spec.subject)))
    heard: list[list[tuple[str, str]]] = [[] for _ in specs]
    for index, template, reply in _replies(model, specs, asked, progress):
        heard[index].append((template, reply))
    frames = _frames(specs, heard)
    found = [_fact(spec, replies, frames) for spec, replies in zip(specs, heard, strict=True)]
    first = len(policy.facts)
    return tuple(_brief(policy, fact) for fact in found[:first]), tuple(found[first:])


def _brief(policy: Policy, fact: Fact) -> Fact:
    """A fact whose elicited answer is told by a last name too; not what is to stay, for less would count as kept."""
    asked = " ".join((fact.subject, *policy.relations[fact.relation].prompts))
    short = answers.last_name(fact.answer, asked) if fact.elicited else ()
    return replace(fact, aliases=tuple(dict.fromkeys((*fact.aliases, *short))))


def _replies(
    model: EditableModel,
    specs: Sequence[FactSpec],
    asked: Sequence[tuple[int, str, Prompt]],
    progress: Progress,
) -> Iterator[tuple[int, str, str]]:
    """What is answered to prompts of facts (by index), without thoughts; nothing where these do not end.

    A question whose thoughts do not end is asked again without, where the chat template can do that.
    """
    quiet, again = quietest(model.tokenizer), list[tuple[int, str, Prompt]]()
    prompts = [prompt for *_, prompt in asked]
    said = replies_to(model, prompts, Room(LENGTH), progress=progress, label="Eliciting answers")
    for (index, template, prompt), (reply, *_) in zip(asked, said, strict=True):
        if reply.answered:
            yield index, template, reply.visible
        elif (without := ask(quiet, template, specs[index].subject)) != prompt:
            again.append((index, template, without))
    if again:
        yield from _replies(model, specs, again, progress)


Frames = Mapping[tuple[str, str], answers.Frame | None]
"""By relation and prompt, what replies have in common whatever the subject."""


def _frames(specs: Sequence[FactSpec], heard: Sequence[Sequence[tuple[str, str]]]) -> Frames:
    replies: dict[tuple[str, str], list[str]] = {}
    for spec, said in zip(specs, heard, strict=True):
        for template, reply in said:
            replies.setdefault((spec.relation, template), []).append(reply)
    return {place: answers.frame_of(said) for place, said in replies.items()}


def _fact(spec: FactSpec, heard: Sequence[tuple[str, str]], frames: Frames) -> Fact:
    """A fact with the answer that the policy gives, which is never doubted, or else the one that replies agree on."""
    if spec.answer:
        told = (spec.answer, *spec.aliases)
        known = any(contains(reply, told) for _, reply in heard)
        return Fact(spec.id, spec.subject, spec.relation, spec.answer, tuple(spec.aliases), known)
    guess = answers.guess(
        [(t.replace("{subject}", spec.subject), reply, frames[spec.relation, t]) for t, reply in heard]
    )
    aliases = tuple(dict.fromkeys((*spec.aliases, *guess.aliases)))
    said = sum(contains(reply, (guess.answer, *aliases)) for _, reply in heard) if guess.answer else 0
    known = 0 < len(heard) <= 2 * said
    doubt = guess.doubt or ("most of the model's replies lack it" if guess.answer and not known else None)
    return Fact(spec.id, spec.subject, spec.relation, guess.answer, aliases, known, True, doubt)
