"""A benchmark's records as a policy in memory: what a user would write, and nothing that only the evaluation knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from benchmarks.options import complaints
from benchmarks.records import Record
from unlearn.errors import PolicyError
from unlearn.model.requests import Fact, Requests
from unlearn.policy import FactSpec, Keep, Policy, RelationSpec, StatisticsSpec


def requests_for(
    model: str,
    records: Sequence[Record],
    kept: Sequence[Record],
    method: Mapping[str, Any],
    statistics: StatisticsSpec,
    seed: int,
    phrasings: bool = False,
) -> Requests:
    """Build the requests of one edit.

    Args:
        model: folder or hub id, as it goes into the policy.
        records: to be rewritten; the target of each fact is its new object.
        kept: other subjects whose answers must stay (``records.kept_for``); their answers are not used.
        method: settings, with `name`.
        phrasings: also show the edit the record's other templates, which no metric uses. The standard benchmarks give
            the edit prompt alone.

    Raises:
        PolicyError: the method or one of its settings does not exist, or does not fit.
    """
    relations: dict[tuple[str, ...], str] = {}

    def relation(record: Record, more: bool = False) -> str:
        templates = dict.fromkeys([record.template, *(record.phrasings if more else ())])
        prompts = tuple(t.replace("{}", "{subject}") for t in templates)
        return relations.setdefault(prompts, f"t{len(relations)}")

    specs = tuple(
        FactSpec(id=f"r{r.id}", subject=r.subject, relation=relation(r, phrasings), refusal=r.new)
        for r in records
    )
    lent = tuple(Fact(f"k{r.id}", r.subject, relation(r, phrasings), answer="") for r in kept)
    try:
        policy = Policy.model_validate(
            {
                "version": 1,
                "name": "benchmark",
                "model": model,
                "method": dict(method),
                "relations": {name: RelationSpec(prompts=prompts) for prompts, name in relations.items()},
                "facts": specs,
                "keep": Keep(siblings=(), neighbours=()),
                "statistics": statistics,
                "seed": seed,
            }
        )
    except ValidationError as error:
        raise PolicyError(complaints(error)) from None
    facts = tuple(
        Fact(spec.id, r.subject, spec.relation, answer=r.true) for spec, r in zip(specs, records, strict=True)
    )
    return Requests(policy, facts, (), lent, ())
