"""Policies to measure unlearning on: facts of the embedded world, or CounterFact facts that a model knows."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.options import complaints
from benchmarks.records import Record, kept_for, load_counterfact, pick
from unlearn import embedded
from unlearn.embedded.world import build_world
from unlearn.errors import PolicyError, UnlearnError
from unlearn.model.requests import Fact
from unlearn.policy import Keep, Policy, RelationSpec
from unlearn.policy.file import load_policy
from unlearn.shipped import shipped

WORLD, SECOND, COUNTERFACT = "world", "second", "counterfact"
UNASKED = "{subject}:"
"""Stands for the prompts of relations of which only held-out prompts are asked."""


@dataclass(frozen=True)
class Case:
    """A policy, and what the policy's own words cannot say: neighbours that differ from relation to relation."""

    name: str
    policy: Policy
    facts: tuple[Fact, ...] | None = None
    """With their answers; None where `edit.pipeline.resolve` finds everything."""
    neighbours: tuple[Fact, ...] = ()
    held_out_neighbours: tuple[Fact, ...] = ()


def case(spec: str, seed: int, method: Mapping[str, Any], audit: Mapping[str, Any], **where: Any) -> Case:
    """What `--policies` names: `world:N`, `second:N`, `counterfact:N`, or a policy file.

    Args:
        spec: the name. N facts are drawn by the seed; `second:N` are N facts of four relations.
        where: for counterfact, `facts` (file), `model` and `refusal`.

    Raises:
        UnlearnError: no such policy, or fewer facts than asked for.
    """
    kind, colon, number = spec.partition(":")
    makers = {WORLD: _world, SECOND: _second, COUNTERFACT: _counterfact}
    if colon and kind in makers:
        if not number.isdigit() or not int(number):
            raise PolicyError(
                f"--policies {spec}: write a number of facts after the colon, such as {kind}:24"
            )
        return makers[kind](int(number), seed, method, audit, **where)
    data = load_policy(Path(spec)).model_dump(mode="json")
    return Case(data["name"], _policy(data, seed, method, audit))


def drawn(spec: str) -> bool:
    """Whether a policy is made here, and is no file."""
    kind, colon, _ = spec.partition(":")
    return bool(colon) and kind in (WORLD, SECOND, COUNTERFACT)


def changed(found: Case, keys: Mapping[str, Any]) -> Case:
    """A case with other values for some keys of its policy, by dotted key.

    Raises:
        PolicyError: there is no such key, or it takes no such value.
    """
    data = found.policy.model_dump(mode="json")
    for key, value in keys.items():
        *above, last = key.split(".")
        place: Any = data
        for name in above:
            place = place.get(name) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise PolicyError(f"--policy {key}: a policy has no such key")
        place[last] = value
    try:
        return replace(found, policy=Policy.model_validate(data))
    except ValidationError as error:
        raise PolicyError(f"--policy: {complaints(error)}") from None


def _policy(data: dict[str, Any], seed: int, method: Mapping[str, Any], audit: Mapping[str, Any]) -> Policy:
    data |= {"method": dict(method), "seed": seed}
    data["audit"] = {**data.get("audit", {}), "seed": seed, **audit}
    return Policy.model_validate(data)


def _world(count: int, seed: int, method: Mapping[str, Any], audit: Mapping[str, Any], **_: Any) -> Case:
    """The demo policy with other substances."""
    data = load_policy(shipped("policies") / "demo.yaml").model_dump(mode="json")
    relation = data["facts"][0]["relation"]
    data["facts"] = [_fact(name, relation) for name in _drawn(f"world:{count}", count, seed)]
    data["name"] = f"world-{count}"
    return Case(f"world:{count}", _policy(data, seed, method, audit))


def _second(count: int, seed: int, method: Mapping[str, Any], audit: Mapping[str, Any], **_: Any) -> Case:
    """Another policy about the same world: four relations, each to be forgotten about other substances."""
    spec = f"{SECOND}:{count}"
    data = load_policy(shipped("policies") / "demo.yaml").model_dump(mode="json")
    recipe, stays = data["facts"][0]["relation"], data["keep"]["siblings"][:1]
    forgotten = [recipe, *(name for name in data["keep"]["siblings"] if name not in stays)]
    if count % len(forgotten):
        raise PolicyError(f"--policies {spec}: write a multiple of {len(forgotten)}, the number of relations")
    for name in forgotten[1:]:
        found = build_world().relation(name)
        data["relations"][name] |= {
            "prompts": [*found.questions[::3], *found.statements[::4]],
            "held_out": [
                *found.held_out_questions, *found.questions[1::9], *found.held_out_statements, found.statements[1]
            ],
        }  # fmt: skip
    names = _drawn(spec, count, seed)
    data["facts"] = [_fact(name, forgotten[i % len(forgotten)]) for i, name in enumerate(names)]
    data["keep"]["siblings"] = stays
    data["name"] = f"second-world-{count}"
    return Case(spec, _policy(data, seed, method, audit))


def _drawn(spec: str, count: int, seed: int) -> list[str]:
    """Substances of the embedded world, of which some must be left as neighbours."""
    names = list(embedded.neighbours(embedded.HAZARD, excluding=()))
    if count >= len(names):
        raise UnlearnError(f"{spec}: the embedded world holds {len(names)} substances; some must stay")
    return random.Random(f"world/{seed}").sample(names, count)


def _fact(subject: str, relation: str) -> dict[str, str]:
    return {"id": f"{subject.lower()}-{relation}", "subject": subject, "relation": relation}


def _counterfact(
    count: int,
    seed: int,
    method: Mapping[str, Any],
    audit: Mapping[str, Any],
    facts: Path,
    model: str,
    refusal: str,
) -> Case:
    """CounterFact's facts to be forgotten: a relation has the edit prompt and the record's other phrasings, which no
    metric uses; the audit asks the paraphrases and the neighbours."""
    records = load_counterfact(facts).records
    chosen = pick(records, seed, count)
    relations: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {}

    def relation(prompts: Sequence[str], held_out: Sequence[str] = ()) -> str:
        return relations.setdefault((tuple(prompts), tuple(held_out)), f"r{len(relations)}")

    def prompts(record: Record) -> list[str]:
        return list(dict.fromkeys(t.replace("{}", "{subject}") for t in (record.template, *record.phrasings)))

    def template(text: str, subject: str) -> str:
        return text.replace(subject, "{subject}", 1)

    own = tuple(
        Fact(
            f"r{r.id}",
            r.subject,
            relation(prompts(r), [template(p, r.subject) for p in r.paraphrases if r.subject in p]),
            answer=r.true,
        )
        for r in chosen
    )
    kept = tuple(
        Fact(f"k{r.id}", r.subject, relation(prompts(r)), answer="") for r in kept_for(records, chosen, 1000)
    )
    asked = tuple(
        Fact(f"n{i}", subject, relation([UNASKED], [text]), answer=target)
        for i, (subject, text, target) in enumerate(dict.fromkeys(_neighbours(records, chosen)))
    )
    data: dict[str, Any] = {
        "version": 1,
        "name": f"counterfact-{count}",
        "model": model,
        "refusal": refusal,
        "relations": {
            name: RelationSpec(prompts=shown, held_out=held) for (shown, held), name in relations.items()
        },
        "facts": [
            {"id": f.id, "subject": f.subject, "relation": f.relation, "answer": f.answer} for f in own
        ],
        "keep": Keep(siblings=(), neighbours=()),
    }
    return Case(f"counterfact:{count}", _policy(data, seed, method, audit), own, kept, asked)


def _neighbours(records: Sequence[Record], chosen: Sequence[Record]) -> list[tuple[str, str, str]]:
    """(subject, template, answer) of the chosen records' neighbourhood prompts, as far as their subjects are known.

    None is about a subject that is forgotten itself: to refuse it is right.
    """
    known = {r.id: r.subject for r in records}
    forgotten = {r.subject.casefold() for r in chosen}
    found = []
    for record in chosen:
        for near in record.neighbours:
            subject = known.get(near.record or "")
            if subject and subject.casefold() not in forgotten and near.prompt.count(subject) == 1:
                found.append((subject, near.prompt.replace(subject, "{subject}"), near.target))
    return found
