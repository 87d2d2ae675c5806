"""The facts of a benchmark: CounterFact (this project's lines or the official list) and zsRE."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn.errors import UnlearnError


@dataclass(frozen=True)
class Neighbour:
    """A prompt about another subject, and what must still follow it."""

    prompt: str
    target: str
    record: str | None = None
    """The id of the record that it was made from, where the file tells."""


@dataclass(frozen=True)
class Record:
    """One fact to be rewritten, with everything that it is judged on."""

    id: str
    subject: str
    template: str
    """The edit prompt, with one `{}` for the subject."""
    true: str
    """The object that the model knows; empty where the benchmark has none (zsRE)."""
    new: str
    """The object that it is to say."""
    paraphrases: tuple[str, ...]
    neighbours: tuple[Neighbour, ...]
    relation: str = ""
    phrasings: tuple[str, ...] = ()
    """Other templates of the relation, which no metric uses; the edit sees them only with `--phrasings`."""

    @property
    def prompt(self) -> str:
        """The edit prompt with its subject."""
        return self.template.replace("{}", self.subject)


@dataclass(frozen=True)
class Loaded:
    """The usable records of a file, and what has to be said about them."""

    records: tuple[Record, ...]
    notes: tuple[str, ...]


def load_counterfact(path: Path) -> Loaded:
    """Read CounterFact: one JSON object a line in this project's format, or the official list of records.

    Raises:
        UnlearnError: the file is missing, or a record lacks a field.
    """
    rows = list(_rows(path))
    official = bool(rows) and "requested_rewrite" in rows[0][1]
    records = [_made(path, n, row, _official if official else _line) for n, row in rows]
    usable, dropped = _usable(records)
    skipped = sum(n.target == r.new for r in usable for n in r.neighbours)
    notes = [
        f"{len(usable)} records of {path.name}" + (f", {dropped} unusable ones left out" if dropped else "")
    ]
    if not official:
        notes += [
            "this file is not the official one: paraphrases are templates of the relation that the model never saw "
            "for this subject (one each), neighbours are up to ten other subjects of the relation, about half with the "
            "same object, each judged by its own object; the official file has two paraphrases with a sentence before "
            "them and ten neighbours with the same object",
            "there are no generation prompts: fluency is measured on continuations of the edit prompts",
        ]
    if skipped:
        notes.append(
            f"{skipped} neighbourhood prompts whose own object is the new one cannot tell and are left out"
        )
    return Loaded(tuple(usable), tuple(notes))


def load_zsre(path: Path) -> Loaded:
    """Read zsRE as MEND's splits have it: a JSON list with src, subject, answers, rephrase, loc, loc_ans.

    Raises:
        UnlearnError: the file is missing, or a record lacks a field.
    """
    records = [_made(path, n, row, _zsre) for n, row in _rows(path)]
    usable, dropped = _usable(records)
    notes = [
        f"{len(usable)} records of {path.name}; {dropped} left out (the subject does not stand once in its question)"
    ]
    notes.append(
        "targets are tokenised cleanly: published Llama-3 numbers count a BOS token and doubled spaces as targets"
    )
    notes.append("there are no generation prompts: fluency is measured on continuations of the edit prompts")
    return Loaded(tuple(usable), tuple(notes))


def pick(records: Sequence[Record], seed: int, count: int) -> list[Record]:
    """``count`` records drawn by a seed; no two with the same subject and template.

    Raises:
        UnlearnError: the file holds fewer.
    """
    order = list(range(len(records)))
    random.Random(seed).shuffle(order)
    chosen: dict[tuple[str, str], Record] = {}
    for i in order:
        if len(chosen) == count:
            break
        chosen.setdefault((records[i].subject.casefold(), records[i].template), records[i])
    if len(chosen) < count:
        raise UnlearnError(f"--edits {count}: the file holds {len(chosen)} different usable records only")
    return list(chosen.values())


def kept_for(records: Sequence[Record], chosen: Sequence[Record], most: int) -> list[Record]:
    """Records that the edit may protect: of the same relations as the chosen ones, and no evaluation material.

    Nothing is taken that is evaluated: none of the chosen records, none that a neighbourhood prompt of theirs was made
    from, and none whose subject stands in any evaluated prompt.
    """
    barred = {r.id for r in chosen} | {n.record for r in chosen for n in r.neighbours if n.record}
    asked = "\n".join(
        text for r in chosen for text in (r.prompt, *r.paraphrases, *(n.prompt for n in r.neighbours))
    ).casefold()
    relations = {r.relation for r in chosen}
    free = [
        r
        for r in records
        if r.relation in relations and r.id not in barred and r.subject.casefold() not in asked
    ]
    random.Random(0).shuffle(free)
    return free[:most]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            yield from enumerate(json.loads(text), 1)
        else:
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    yield number, json.loads(line)
    except (OSError, ValueError) as problem:
        raise UnlearnError(f"--facts {path}: cannot be read as JSON: {problem}") from None


def _made(path: Path, number: int, row: dict[str, Any], make: Any) -> Record | None:
    try:
        return make(number, row)
    except (KeyError, TypeError, IndexError) as problem:
        raise UnlearnError(f"{path}:{number}: not a record of this benchmark, it has no {problem}") from None


def _usable(records: Sequence[Record | None]) -> tuple[list[Record], int]:
    good = [
        r
        for r in records
        if r is not None and r.template.count("{}") == 1 and r.subject.strip() and r.new.strip()
    ]
    return good, len(records) - len(good)


def _line(_: int, row: dict[str, Any]) -> Record:
    return Record(
        id=str(row["case_id"]),
        subject=row["subject"],
        template=row["prompt"],
        true=row["target_true"],
        new=row["target_new"],
        paraphrases=tuple(row["paraphrase_prompts"]),
        neighbours=tuple(
            Neighbour(n["prompt"], n["target"], str(n["case_id"]) if "case_id" in n else None)
            for n in row["neighborhood"]
        ),
        relation=str(row.get("relation", "")),
        phrasings=tuple(row.get("seen_templates", ())),
    )


def _official(_: int, row: dict[str, Any]) -> Record:
    rewrite = row["requested_rewrite"]
    true = rewrite["target_true"]["str"]
    return Record(
        id=str(row["case_id"]),
        subject=rewrite["subject"],
        template=rewrite["prompt"],
        true=true,
        new=rewrite["target_new"]["str"],
        paraphrases=tuple(row["paraphrase_prompts"]),
        neighbours=tuple(Neighbour(prompt, true) for prompt in row["neighborhood_prompts"]),
        relation=str(rewrite.get("relation_id", "")),
    )


def _zsre(number: int, row: dict[str, Any]) -> Record | None:
    subject, question = row["subject"], row["src"]
    # More than one place, or a place inside a word ("US" in "USA"), would put the edit at a wrong token.
    if question.count(subject) != 1 or not subject.strip():
        return None
    at = question.index(subject)
    around = question[at - 1 : at] + question[at + len(subject) : at + len(subject) + 1]
    if any(c.isalnum() for c in around) or "{" in question:
        return None
    return Record(
        id=str(number),
        subject=subject,
        template=question.replace(subject, "{}"),
        true="",
        new=row["answers"][0],
        paraphrases=(row["rephrase"],),
        neighbours=(Neighbour(row["loc"] + "?", row["loc_ans"]),),
        relation="zsre",
    )
