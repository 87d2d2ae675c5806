"""Ask the unedited model for every answer that the policy does not state: what it knows is what must go, or stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from unlearn import embedded
from unlearn.edit.look_alikes import look_alikes
from unlearn.edit.named import with_neighbours
from unlearn.edit.rephrase import with_more_forms
from unlearn.edit.written import with_written
from unlearn.errors import PolicyError
from unlearn.matching import contains, words
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import Prompt, ask
from unlearn.model.requests import Fact, Requests
from unlearn.policy import EMBEDDED, FactSpec, Policy, is_question
from unlearn.progress import NO_PROGRESS, Progress

NEIGHBOURS = 240
"""Most subjects that `neighbours: auto` takes per relation; the audit asks every fourth, the edit protects the rest."""
LOOK_ALIKES, TOGETHER = 1000, 3000
"""About the most names per relation that resemble a subject, or over all relations if that is more: so many show what a
name is, however many subjects."""
ASKED = 3
"""How many of a relation's prompts are asked for its answer, statements first."""
LENGTH = 24
"""Longest elicited reply, in tokens."""
_LEADING = {"in", "at", "on", "from", "of", "by", "to", "is", "was", "are", "were", "with", "it", "its"}


def resolve(model: EditableModel, policy: Policy, progress: Progress = NO_PROGRESS) -> Requests:
    """Fill in the answers of a policy's facts, siblings and neighbours from the unedited model.

    Raises:
        PolicyError: no neighbours are listed, and the model cannot be asked for any.
    """
    policy = with_neighbours(model, policy, progress)
    forgotten = list(dict.fromkeys(fact.relation for fact in policy.facts))
    subjects = list(dict.fromkeys(fact.subject for fact in policy.facts))
    protected, tested = neighbours(policy)
    siblings = [(s, r) for s in subjects for r in policy.siblings]
    asked = [(s, r) for r in forgotten for s in tested[r]]
    specs = [
        *policy.facts,
        *(
            FactSpec.model_construct(id=fact.id, subject=fact.subject, relation=fact.relation)
            for fact in (*numbered("sibling", siblings), *numbered("neighbour", asked))
        ),
    ]
    facts = _elicit(model, policy, specs, progress)
    first, second = len(policy.facts), len(policy.facts) + len(siblings)
    # What only lends its keys needs no answer.
    lent = numbered("protected neighbour", ((s, r) for r in forgotten for s in protected[r]))
    found = Requests(
        policy,
        tuple(facts[:first]),
        tuple(facts[first:second]),
        lent,
        tuple(facts[second:]),
        alike(model, policy, protected, tested),
    )
    return with_written(model, with_more_forms(model, found, progress), progress)


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
    subjects = list(dict.fromkeys(fact.subject for fact in policy.facts))

    return Requests(
        policy,
        tuple(Fact(fact.id, fact.subject, fact.relation, fact.answer or "") for fact in policy.facts),
        numbered("sibling", ((s, r) for s in subjects for r in policy.siblings)),
        numbered("protected neighbour", ((s, r) for r, names in protected.items() for s in names)),
        numbered("neighbour", ((s, r) for r, names in tested.items() for s in names)),
    )


def neighbours(policy: Policy) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Subjects per forbidden relation that the edit protects, and those that only the audit asks about.

    Raises:
        PolicyError: `auto` for a model that has not been asked for them (``named.with_neighbours``).
    """
    forgotten = list(dict.fromkeys(fact.relation for fact in policy.facts))
    listed = policy.keep.neighbours
    if listed != "auto":
        return (
            {r: list(listed) for r in forgotten},
            {r: list(policy.keep.held_out_neighbours) for r in forgotten},
        )
    if policy.model != EMBEDDED:
        raise PolicyError(
            "keep.neighbours: `auto` knows the subjects of the embedded model only; ask this one, or list subjects"
        )
    protected, tested = {}, {}
    for relation in forgotten:
        mine = [fact.subject for fact in policy.facts if fact.relation == relation]
        others = embedded.neighbours(relation, excluding={*mine, *policy.keep.held_out_neighbours})[
            :NEIGHBOURS
        ]
        tested[relation] = [*policy.keep.held_out_neighbours, *others[3::4]]
        protected[relation] = [name for i, name in enumerate(others) if i % 4 != 3]
    return protected, tested


def _elicit(model: EditableModel, policy: Policy, specs: list[FactSpec], progress: Progress) -> list[Fact]:
    asked: list[tuple[int, str, Prompt]] = []
    for index, spec in enumerate(specs):
        prompts = policy.relations[spec.relation].prompts
        statements = [t for t in prompts if not is_question(t)][:2]
        for template in statements + [t for t in prompts if is_question(t)][: ASKED - len(statements)]:
            asked.append((index, template, ask(model.tokenizer, template, spec.subject)))
    replies = model.generate(
        [prompt for *_, prompt in asked], max_new_tokens=LENGTH, progress=progress, label="Eliciting answers"
    )
    heard: list[list[tuple[str, str]]] = [[] for _ in specs]
    for (index, template, _), reply in zip(asked, replies, strict=True):
        heard[index].append((template, reply[0]))
    return [_fact(spec, replies) for spec, replies in zip(specs, heard, strict=True)]


def _fact(spec: FactSpec, heard: list[tuple[str, str]]) -> Fact:
    answer = spec.answer or _most_common(
        answer_in(template.replace("{subject}", spec.subject), reply) for template, reply in heard
    )
    aliases = tuple(spec.aliases)
    said = sum(contains(reply, (answer, *aliases)) for _, reply in heard) if answer else 0
    known = said >= 1 if spec.answer else 2 * said >= len(heard)
    return Fact(spec.id, spec.subject, spec.relation, answer, aliases, known, spec.answer is None)


def answer_in(prompt: str, reply: str) -> str:
    """The answer inside a reply: what completes a statement, or the longest run of words that the question lacks."""
    lines = reply.strip().splitlines()
    sentence = lines[0] if lines else ""
    for mark in (". ", "! ", "? ", ".\n"):
        sentence = sentence.split(mark)[0]
    sentence = sentence.strip(" .!?\"'")
    if not is_question(prompt):
        return sentence
    known = set(words(prompt, articles=True))
    best: list[str] = []
    run: list[str] = []
    for word in [*sentence.split(), ""]:
        folded = words(word, articles=True)
        if folded and not set(folded) <= known and not (not run and set(folded) <= _LEADING):
            run.append(word)
            continue
        if len(run) > len(best):
            best = run
        run = []
    return " ".join(best).strip(" ,;:.!?\"'")


def _most_common(answers: Iterable[str]) -> str:
    spelled: dict[tuple[str, ...], str] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for answer in answers:
        folded = words(answer)
        if folded:
            spelled.setdefault(folded, answer)
            counts[folded] += 1
    return spelled[counts.most_common(1)[0][0]] if counts else ""
