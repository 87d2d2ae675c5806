"""The prompts of an audit, built once and asked in every model state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from unlearn import files
from unlearn.audit.suite import Suite, some
from unlearn.errors import AuditError
from unlearn.matching import words
from unlearn.model.library import Tokenizer
from unlearn.model.prompts import Prompt, ask, has_chat_template
from unlearn.model.requests import Fact, Requests
from unlearn.model.thinking import Way, ways
from unlearn.policy import is_question
from unlearn.shipped import shipped

LONGEST = 50_000
"""Characters of a question in a file."""


@dataclass(frozen=True)
class Probe:
    """One prompt and what its reply is looked at for."""

    key: str
    prompt: Prompt
    answers: tuple[str, ...] = ()
    fact: str | None = None
    question: bool = True
    part: str | None = None
    """Its relation or category, by which the report counts as well."""


def fact_probes(
    tokenizer: Tokenizer,
    facts: Iterable[Fact],
    templates: Mapping[str, Sequence[str]],
    systems: Sequence[str | None] = (None,),
    every_way: bool = True,
) -> list[Probe]:
    """One probe per fact, prompt of its relation, and for questions in a chat system prompt and way of asking.

    The ways are those of the chat template (``unlearn.model.thinking``): with and without thoughts, where it has both.

    Args:
        systems: system prompts under which questions are asked; None is none.
        every_way: False asks as the tokenizer's template stands, and in no other way.

    Raises:
        AuditError: an answer has no letter or digit, so that no reply could be seen to contain it.
    """
    found = []
    chats = has_chat_template(tokenizer)
    asked = ways(tokenizer) if every_way else (Way("", tokenizer),)
    for fact in facts:
        if not all(words(answer) for answer in fact.answers):
            raise AuditError(
                f"fact {fact.id}: an answer or alias has no letter or digit, so no reply can be judged"
            )
        for i, template in enumerate(templates.get(fact.relation, ())):
            several = chats and is_question(template)
            for (j, system), way in product(enumerate(systems), asked):
                if not several and (j or way.name):
                    continue
                found.append(
                    Probe(
                        key=f"{fact.id}/{i}" + (f"/system{j}" if j else "") + way.suffix,
                        prompt=ask(way.tokenizer, template, fact.subject, system),
                        answers=fact.answers,
                        fact=fact.id,
                        question=is_question(template),
                        part=fact.relation,
                    )
                )
    return found


def reverse_probes(tokenizer: Tokenizer, requests: Requests) -> list[Probe]:
    """One probe per fact and reverse prompt of its relation: the answer is named, the subject must not come.

    Raises:
        AuditError: an answer or a subject has no letter or digit.
    """
    found = []
    for fact in requests.facts:
        if not words(fact.answer) or not words(fact.subject):
            raise AuditError(f"fact {fact.id}: it cannot be asked in reverse without a subject and an answer")
        for i, template in enumerate(requests.policy.relations[fact.relation].reverse):
            asked = ask(tokenizer, template.replace("{answer}", fact.answer))
            found.append(
                Probe(
                    f"{fact.id}/{i}",
                    asked,
                    (fact.subject,),
                    fact.id,
                    is_question(template),
                    part=fact.relation,
                )
            )
    return found


def build_probes(tokenizer: Tokenizer, requests: Requests, suite: Suite) -> dict[str, list[Probe]]:
    """The probes of every group that is asked greedily.

    direct: the policy's prompts. held_out: questions that the edit never saw. cloze: statements to complete that the
    edit never saw. reverse, two_hop, negation, languages: the policy's prompts of these kinds, where it has any; a
    reverse prompt is given the answer, and its reply is looked at for the subject. siblings, neighbours:
    held-out prompts of what must stay. benign: ordinary questions.
    """
    policy = requests.policy
    seed = policy.audit.seed
    relations = policy.relations
    prompts = {name: relation.prompts for name, relation in relations.items()}
    held_out = {name: relation.held_out for name, relation in relations.items()}
    questions = {name: relation.questions(held_out=True) for name, relation in relations.items()}
    statements = {name: relation.statements(held_out=True) for name, relation in relations.items()}
    systems = (None,) if policy.system is None else (None, policy.system)
    groups: dict[str, list[Probe]] = {}
    if suite.makes("leak") or suite.makes("refusal") or suite.attacks:
        groups["direct"] = fact_probes(tokenizer, requests.facts, prompts, systems)
        groups["held_out"] = fact_probes(tokenizer, requests.facts, questions, systems)
        groups["cloze"] = fact_probes(tokenizer, requests.facts, statements)
    for kind in ("two_hop", "negation", "languages"):
        templates = {name: relation.further[kind] for name, relation in relations.items()}
        if suite.asks(kind) and any(templates[fact.relation] for fact in requests.facts):
            groups[kind] = fact_probes(tokenizer, requests.facts, templates)
    if suite.asks("reverse") and any(relations[fact.relation].reverse for fact in requests.facts):
        groups["reverse"] = reverse_probes(tokenizer, requests)
    if suite.asks("siblings"):
        siblings = fact_probes(tokenizer, requests.siblings, held_out)
        groups["siblings"] = some(siblings, suite.sibling_prompts, seed)
    if suite.asks("neighbours"):
        neighbours = fact_probes(tokenizer, requests.held_out_neighbours, held_out)
        groups["neighbours"] = some(neighbours, suite.neighbour_prompts, seed)
    return groups


def line_probes(tokenizer: Tokenizer, lines: Sequence[str], most: int | None, seed: int) -> list[Probe]:
    """One probe per line, named by its number; lines that do not end in ? . ! are statements to complete."""
    numbered = some(list(enumerate(lines)), most, seed)
    return [Probe(f"line {i + 1}", ask(tokenizer, line), question=is_question(line)) for i, line in numbered]


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, without blank ones and those that begin with #.

    Raises:
        AuditError: it cannot be read, has no line, or one that is too long to be asked.
    """
    found = []
    for number, line in enumerate(files.read_lines(path, error=AuditError), 1):
        question = line.strip()
        if question and not question.startswith("#"):
            found.append(askable(question, f"{path}:{number}"))
    if not found:
        raise AuditError(f"{path} has no lines to ask")
    return found


def askable(question: str, where: str) -> str:
    """A question; AuditError if it is so long that it is none, and tokenizers would be busy with it for minutes."""
    if len(question) > LONGEST:
        raise AuditError(f"{where}: a question of {len(question):,} characters; {LONGEST:,} may be asked")
    return question


def benign_lines(where: str) -> list[str]:
    """The benign questions, each once: the shipped ones for "auto", else those of a file."""
    path = shipped("evals") / "benign.txt" if where == "auto" else Path(where)
    return list(dict.fromkeys(read_lines(path)))


def generation_lines() -> list[str]:
    """The fixed prompts whose continuations are scored for toxicity."""
    return read_lines(shipped("evals") / "generation_prompts.txt")
