"""What can be wrong between the parts of a policy, each of which may be right in itself."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from unlearn.matching import contains
from unlearn.measurements import DEFAULT_LIMITS, FAMILIES, NAMES, row_of
from unlearn.policy.former import present
from unlearn.policy.values import UNSEEN, task_name

EMBEDDED = "embedded"
OWN = "own"
"""The corpus that a model writes by itself."""
PACKAGE = "package:"
"""What the name of a model begins with that is a GGUF file of an installed Python package."""
END, WRITTEN = "{end}", "{written}"
"""Targets that are no text: the reply ends at once; the model writes one itself."""


class Problem(NamedTuple):
    """One thing that is wrong with a policy: where (keys and indices from the top), and a sentence."""

    loc: tuple[str | int, ...]
    sentence: str


def suggestion(word: str, known: Any) -> str:
    """Return "; it is called `x` now" for a former word, "; did you mean `x`?" for one near a known one, or nothing."""
    if present(word) != word and present(word) in known:
        return f"; it is called `{present(word)}` now"
    near = get_close_matches(word, [str(name) for name in known], n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _texts(value: Any) -> list[tuple[int, str]]:
    return [(i, item) for i, item in enumerate(_items(value)) if isinstance(item, str)]


_UNSEEN = dict.fromkeys(map(ord, UNSEEN))


def same_name(name: str) -> str:
    """A name without what a reader would not see: case, spacing, composition of accents, and `UNSEEN`."""
    return " ".join(unicodedata.normalize("NFC", name.translate(_UNSEEN)).casefold().split())


def cross_check(data: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong between the parts of a policy, each of which may be right in itself.

    Takes plain data and tolerates wrong shapes (the schema reports those), so that a file with problems of
    both sorts gets one list of all of them.
    """
    keep = _mapping(data.get("keep"))
    audit = _mapping(data.get("audit"))
    return [
        *_check_facts(_items(data.get("facts")), _mapping(data.get("relations")), keep),
        *_check_relations(_mapping(data.get("relations"))),
        *_check_targets(data),
        *_check_keep(data, keep),
        *_check_tasks(_texts(audit.get("tasks"))),
        *_check_limits(
            _mapping(audit.get("limits")), [task_name(name) for _, name in _texts(audit.get("tasks"))]
        ),
    ]


def _check_facts(
    facts: list[Any], relations: Mapping[str, Any], keep: Mapping[str, Any]
) -> Iterator[Problem]:
    ids: dict[str, int] = {}
    pairs: dict[tuple[str, str], int] = {}
    kept = {name for listed in _lists(keep, "siblings") for _, name in listed.texts}
    for i, fact in enumerate(map(_mapping, facts)):
        name, subject, relation = fact.get("id"), fact.get("subject"), fact.get("relation")
        if isinstance(name, str) and ids.setdefault(name, i) != i:
            yield Problem(("facts", i, "id"), f"the id `{name}` is already used by facts[{ids[name]}]")
        if not isinstance(relation, str):
            continue
        if isinstance(subject, str) and pairs.setdefault((same_name(subject), relation), i) != i:
            first = pairs[same_name(subject), relation]
            yield Problem(("facts", i, "subject"), f"the same subject and relation as facts[{first}]")
        where = ("facts", i, "relation")
        if relations and relation not in relations:
            yield Problem(where, f"no relation `{relation}` in `relations`{suggestion(relation, relations)}")
        elif relation in kept:
            yield Problem(where, f"`{relation}` is also in keep.siblings: it cannot be forgotten and kept")


def _check_relations(relations: Mapping[str, Any]) -> Iterator[Problem]:
    for name, relation in relations.items():
        seen: Counter[str] = Counter()
        lists: list[tuple[tuple[str, ...], Any]] = [
            ((key,), _mapping(relation).get(key)) for key in ("prompts", "held_out", "two_hop", "negation")
        ]
        lists += [
            (("languages", str(k)), v) for k, v in _mapping(_mapping(relation).get("languages")).items()
        ]
        for keys, templates in lists:
            for i, template in _texts(templates):
                seen[template.casefold()] += 1
                if seen[template.casefold()] == 2:
                    yield Problem(
                        ("relations", name, *keys, i),
                        "the same prompt stands above; a held-out prompt must not be one that the edit sees",
                    )


_PLACEHOLDER = re.compile(r"\{\s*([A-Za-z_][A-Za-z0-9_.]*)?\s*\}")


def _check_targets(data: Mapping[str, Any]) -> Iterator[Problem]:
    """What is said instead of an answer: placeholders that mean nothing, and targets that give the answer away."""
    relations = _mapping(data.get("relations"))
    facts = [_mapping(fact) for fact in _items(data.get("facts"))]
    places: list[tuple[tuple[str | int, ...], Any]] = [(("refusal",), data.get("refusal"))]
    places += [
        (("relations", name, "refusal"), _mapping(relation).get("refusal"))
        for name, relation in relations.items()
    ]
    places += [(("facts", i, "refusal"), fact.get("refusal")) for i, fact in enumerate(facts)]
    for loc, text in places:
        for found in _PLACEHOLDER.finditer(text) if isinstance(text, str) else ():
            if found.group() != "{subject}" and text not in (END, WRITTEN):
                yield Problem(
                    loc,
                    f"unknown placeholder `{found.group()}`; a refusal may hold {{subject}} only "
                    f"(or be `{END}` or `{WRITTEN}`, and nothing else)",
                )
    for i, fact in enumerate(facts):
        relation = fact.get("relation")
        shared = _mapping(relations.get(relation)) if isinstance(relation, str) else {}
        text = fact.get("refusal") or shared.get("refusal") or data.get("refusal")
        texts = [fact.get("answer"), *(alias for _, alias in _texts(fact.get("aliases")))]
        answers = [answer for answer in texts if isinstance(answer, str)]
        if isinstance(text, str) and contains(text.replace("{subject}", str(fact.get("subject"))), answers):
            key = "refusal" if fact.get("refusal") else "answer"
            yield Problem(
                ("facts", i, key),
                "the refusal contains the answer (or an alias) and would give it away",
            )


def _check_keep(data: Mapping[str, Any], keep: Mapping[str, Any]) -> Iterator[Problem]:
    relations = _mapping(data.get("relations"))
    facts = [_mapping(fact) for fact in _items(data.get("facts"))]
    named = {fact["relation"] for fact in facts if isinstance(fact.get("relation"), str)}
    for key in ("siblings", "neighbours", "held_out_neighbours"):
        for listed in _lists(keep, key):
            if listed.relation is not None and listed.relation not in named:
                sentence = (
                    f"no fact is of the relation `{listed.relation}`{suggestion(listed.relation, named)}"
                )
                yield Problem(listed.loc, sentence)
            # Relations are keys, and told apart by their letters alone.
            yield from _twice(listed, str if key == "siblings" else same_name)
    for listed in _lists(keep, "siblings"):
        for i, name in listed.texts:
            if relations and name not in relations:
                sentence = f"no relation `{name}` in `relations`{suggestion(name, relations)}"
                yield Problem((*listed.loc, i), sentence)
    protected = _lists(keep, "neighbours")
    for listed in protected:
        yield from _within(listed, _forgotten(facts, listed), "`facts`: it cannot be forgotten and kept")
    for listed in _lists(keep, "held_out_neighbours"):
        mine = _forgotten(facts, listed)
        seen = {
            same_name(name)
            for other in protected
            if None in (listed.relation, other.relation) or listed.relation == other.relation
            for _, name in other.texts
        }
        yield from _within(listed, mine, "`facts`: it cannot be forgotten and kept")
        yield from _within(listed, seen - mine, "keep.neighbours: the edit would see it")


class _Listed(NamedTuple):
    """One list of `keep`: of all forgotten relations, or of one."""

    loc: tuple[str, ...]
    relation: str | None
    texts: list[tuple[int, str]]


def _lists(keep: Mapping[str, Any], key: str) -> list[_Listed]:
    """The lists under a key of `keep`; several where it gives one for each relation."""
    value = keep.get(key)
    if isinstance(value, Mapping):
        return [_Listed(("keep", key, str(name)), str(name), _texts(one)) for name, one in value.items()]
    return [_Listed(("keep", key), None, _texts(value))]


def _forgotten(facts: list[Mapping[str, Any]], listed: _Listed) -> set[str]:
    """The subjects that a list must not hold: of a relation's list, those of its own facts."""
    return {
        same_name(str(fact.get("subject")))
        for fact in facts
        if listed.relation in (None, fact.get("relation"))
    }


def _again(texts: Iterable[tuple[int, str]], same: Callable[[str], str]) -> Iterator[tuple[int, int]]:
    """What is the same as a text before it, and that one, both by number."""
    seen: dict[str, int] = {}
    for i, text in texts:
        first = seen.setdefault(same(text), i)
        if first != i:
            yield i, first


def _twice(listed: _Listed, same: Callable[[str], str]) -> Iterator[Problem]:
    for i, first in _again(listed.texts, same):
        yield Problem((*listed.loc, i), f"the same as {'.'.join(listed.loc)}[{first}]: it would count twice")


def _within(listed: _Listed, names: set[str], place: str) -> Iterator[Problem]:
    for i, name in listed.texts:
        if same_name(name) in names:
            yield Problem((*listed.loc, i), f"this subject stands in {place}")


def _check_tasks(tasks: list[tuple[int, str]]) -> Iterator[Problem]:
    for i, first in _again(tasks, task_name):
        said = f"called like audit.tasks[{first}]: a report could not tell them apart"
        yield Problem(("audit", "tasks", i), said)


def _check_limits(limits: Mapping[str, Any], tasks: list[str]) -> Iterator[Problem]:
    known = dict.fromkeys([*NAMES, *DEFAULT_LIMITS, *(f"capability.{task}" for task in tasks)])
    for name, limit in limits.items():
        family, row = FAMILIES.get(str(name).partition(".")[0]), row_of(str(name))
        low, high = (family.low, family.high) if family is not None else (0.0, 1.0)
        if isinstance(limit, int | float) and not isinstance(limit, bool) and not low <= limit <= high:
            hint = f" ({limit / 100:g} is {limit:g} %)" if 1 < limit <= 100 and high == 1 else ""
            wanted = f"from {low:g} to {high:g}" if high < math.inf else f"of at least {low:g}"
            yield Problem(("audit", "limits", name), f"expected a number {wanted}{hint}, got {limit:g}")
        # The names of scorers are not known here, those of tasks are the policy's own.
        if name in known or (row is not None and row.family == "toxicity"):
            continue
        hint = suggestion(str(name), known)
        if str(name).startswith("capability."):
            hint += "; it must be one of audit.tasks"
        yield Problem(("audit", "limits", name), f"no measurement of this name{hint}")
