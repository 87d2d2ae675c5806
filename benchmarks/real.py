"""Policies for a real model, drawn by a seed from the plain facts of benchmarks/facts that it knows.

    python benchmarks/real.py --model FOLDER
    python benchmarks/real.py --model FOLDER --relations capital --count 10 --seed 0 --out capitals.yaml
    python benchmarks/real.py --model FOLDER --count 60 --seed 1 --without capitals.yaml --out many.yaml

The model is asked greedily, in its own chat template where it has one. A fact that it tells in most phrasings is known;
some of those are to be forgotten, and the others of the same relations are neighbours, half of them held out. What it
does not know are neighbours too: what it says of them stays.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # called as a script: the package `benchmarks` lies in the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import yaml  # noqa: E402

from benchmarks.known import FACTS, SHARE, Known, Relation, known, read_lists  # noqa: E402
from benchmarks.options import chosen, kept, told  # noqa: E402
from benchmarks.rows import Rows  # noqa: E402
from unlearn.errors import PolicyError  # noqa: E402
from unlearn.model.editable import EditableModel  # noqa: E402
from unlearn.policy import Policy  # noqa: E402
from unlearn.policy.file import load_policy  # noqa: E402
from unlearn.progress import progress_for  # noqa: E402

REFUSAL = "I'm sorry, but I can't help with that."
LEAST = 4
"""Neighbours that a relation keeps at least; one that the model knows too little of is left out."""

Pair = tuple[str, str]
"""Relation and subject."""


@dataclass(frozen=True)
class Drawn:
    """What goes into a policy, by relation."""

    forgotten: Mapping[str, tuple[str, ...]]
    neighbours: Mapping[str, tuple[str, ...]]
    held_out: Mapping[str, tuple[str, ...]]


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="real", description=__doc__.splitlines()[0])
    options.add_argument(
        "--model", required=True, help="a local folder, a GGUF file, package:NAME, or a hub id"
    )
    options.add_argument("--facts", type=Path, default=FACTS, help="a folder of lists")
    options.add_argument("--relations", help="which of the lists' relations, with commas [default: all]")
    options.add_argument(
        "--share", type=float, default=SHARE, help="of the prompts that a known fact answers"
    )
    options.add_argument("--count", type=int, default=10, help="facts to be forgotten")
    options.add_argument("--kept", type=int, default=24, help="most neighbours per relation")
    options.add_argument("--seed", type=int, default=0, help="of the draw")
    options.add_argument(
        "--without", default="", help="policies whose facts are not drawn again, with commas"
    )
    options.add_argument("--corpus", default="auto", help="for the policy: text behind the key statistics")
    options.add_argument("--text", default="auto", help="for the policy: held-out text for the divergence")
    options.add_argument("--name", help="of the policy [default: the name of its file]")
    options.add_argument(
        "--out", type=Path, help="the policy; without it, only what the model knows is shown"
    )
    options.add_argument("--device", default="auto")
    kept(options)
    return options


def drawn(
    facts: Mapping[str, Sequence[str]], count: int, seed: int, kept: int, without: Collection[Pair] = ()
) -> Drawn:
    """Draw facts to forget, as evenly from the relations as can be, and the neighbours that stay.

    Args:
        facts: known subjects by relation.
        count: of facts to forget.
        seed: of the draw.
        kept: most neighbours of a relation, half of which are held out.
        without: facts that are not drawn (they may stay as neighbours).

    Raises:
        PolicyError: the model knows too few; at least half of what it knows of a relation stays.
    """
    shuffled = {name: _shuffled(subjects, seed, name) for name, subjects in facts.items()}
    pools = {
        name: [s for s in subjects if (name, s) not in without][: len(subjects) // 2]
        for name, subjects in shuffled.items()
        if len(subjects) >= 2 * LEAST
    }
    turns = zip_longest(*([(name, s) for s in pool] for name, pool in pools.items()))
    order = [pair for turn in turns for pair in turn if pair is not None]
    if len(order) < count:
        raise PolicyError(
            f"--count {count}: {len(order)} facts can be drawn, for at least half of what the model knows of a "
            "relation stays; ask for fewer, or name more --relations"
        )
    forgotten = {name: tuple(s for n, s in order[:count] if n == name) for name in pools}
    forgotten = {name: subjects for name, subjects in forgotten.items() if subjects}
    stays = {name: [s for s in shuffled[name] if s not in forgotten[name]][:kept] for name in forgotten}
    return Drawn(
        forgotten,
        {name: tuple(subjects[::2]) for name, subjects in stays.items()},
        {name: tuple(subjects[1::2]) for name, subjects in stays.items()},
    )


def _shuffled(subjects: Sequence[str], seed: int, name: str) -> list[str]:
    found = sorted(subjects)
    random.Random(f"real/{seed}/{name}").shuffle(found)
    return found


def _near(relation: Relation, picked: Drawn) -> list[str]:
    """A relation's neighbours: those drawn, and all others of its list. What is said of them stays, right or wrong."""
    name = relation.name
    taken = {*picked.forgotten[name], *picked.neighbours[name], *picked.held_out[name]}
    return [*picked.neighbours[name], *(subject for subject in relation.answers if subject not in taken)]


def policy_of(
    lists: Mapping[str, Relation], chosen_: Drawn, model: str, name: str, corpus: str, text: str
) -> dict[str, Any]:
    """A policy as YAML holds it; the method is left to the default.

    Args:
        lists: all relations.
        chosen_: what was drawn.
        model: name or path.
        name: of the policy.
        corpus: `statistics.corpus`.
        text: `audit.text`.
    """
    siblings = {
        name: [r.name for r in lists.values() if r.kept and r.kind == lists[name].kind]
        for name in chosen_.forgotten
    }
    named = dict.fromkeys([*chosen_.forgotten, *(r for names in siblings.values() for r in names)])
    keep = {
        "siblings": siblings,
        "neighbours": {r: _near(lists[r], chosen_) for r in chosen_.neighbours},
        "held_out_neighbours": {r: list(names) for r, names in chosen_.held_out.items()},
    }
    if len(chosen_.forgotten) == 1:
        keep = {key: next(iter(value.values())) for key, value in keep.items()}
    data: dict[str, Any] = {
        "version": 1,
        "name": name,
        "model": _from_anywhere(model),
        "refusal": REFUSAL,
        "relations": {
            r: {"prompts": list(lists[r].spec.prompts), "held_out": list(lists[r].spec.held_out)}
            for r in named
        },
        "facts": [
            _fact(f"{r}-{i}", s, r, lists[r].answers[s])
            for r, subjects in chosen_.forgotten.items()
            for i, s in enumerate(subjects, 1)
        ],
        "keep": keep,
        "statistics": {"corpus": _from_anywhere(corpus)},
        "audit": {"text": _from_anywhere(text)},
    }
    Policy.model_validate(data)
    return data


def _fact(name: str, subject: str, relation: str, answers: Sequence[str]) -> dict[str, Any]:
    more = {"aliases": list(answers[1:])} if answers[1:] else {}
    return {"id": name, "subject": subject, "relation": relation, "answer": answers[0], **more}


def _from_anywhere(place: str) -> str:
    """A path as it can stand in any policy, whose paths are relative to its own folder; a name as it is."""
    return str(Path(place).resolve()) if Path(place).exists() else place


def shown(found: Known, share: float) -> str:
    """How many facts a model told, by prompt, and how many it knows."""
    total = len(found.relation.answers)
    lines = [f"{found.relation.name}: {len(found.facts(share))} of {total} known"]
    lines += [f"  {count:>4}  {prompt}" for prompt, count in found.counts().items()]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> None:
    lists = read_lists(args.facts)
    names = [name for name, relation in lists.items() if not relation.kept]
    if args.relations:
        names = chosen("relations", args.relations, names)
    paths = [Path(path.strip()) for path in args.without.split(",") if path.strip()]
    without = {(fact.relation, fact.subject) for path in paths for fact in load_policy(path).facts}
    model, rows, facts = EditableModel.load(args.model, args.device), Rows(args.json), {}
    for name in names:
        found = known(model, lists[name], rows, progress_for())
        facts[name] = found.facts(args.share)
        print(shown(found, args.share), flush=True)
    print(f"{sum(map(len, facts.values()))} of {sum(len(lists[n].answers) for n in names)} facts known")
    if args.out is None:
        return
    picked = drawn(facts, args.count, args.seed, args.kept, without)
    data = policy_of(lists, picked, args.model, args.name or args.out.stem, args.corpus, args.text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110), encoding="utf-8"
    )
    print(f"{args.out}: {args.count} facts of {len(picked.forgotten)} relations")


def main(argv: Sequence[str] | None = None) -> int:
    return told(parser().parse_args(argv), run)


if __name__ == "__main__":
    sys.exit(main())
