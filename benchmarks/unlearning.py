"""Unlearning: the audit's own measurements for several methods, seeds and policies, one row each.

    python -m benchmarks.unlearning --policies world:24,second:200 --methods alphaedit,memit,lora --json OUT
    python -m benchmarks.unlearning --policies counterfact:100 --model FOLDER --facts FILE --corpus FILE --json OUT

`world:N` are recipes of N substances of the embedded world, `second:N` N facts of four relations, `counterfact:N` N
facts of a CounterFact file that the model knows, all drawn by the seed; a policy file is taken as it is, and the seed
then seeds the edit and the audit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import metrics, options
from benchmarks.options import chosen, keys_of, numbers, settings_of, told
from benchmarks.rows import Row, Rows, key_of
from benchmarks.tables import plain
from benchmarks.worlds import COUNTERFACT, Case, case, changed, drawn
from unlearn.audit.pipeline import Findings
from unlearn.edit.choose import settings_in_force
from unlearn.edit.requests.resolve import alike, resolve
from unlearn.errors import PolicyError
from unlearn.loaded import load_model
from unlearn.matching import words
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import ask, reply_ids
from unlearn.model.requests import Requests
from unlearn.order import Means, Placement
from unlearn.policy import EMBEDDED, Policy, StatisticsSpec, is_question
from unlearn.policy.method import METHOD_NAMES
from unlearn.progress import NO_PROGRESS, Progress, progress_for
from unlearn.report import Measurement
from unlearn.run import Bench
from unlearn.store import Store, cache_folder

WHOLE = "refusal.whole"
"""Share of the held-out questions to which the reply is the target, from its first word to its end."""
SUITE = Path(__file__).with_name("unlearning.yaml")
DRAWN = 200_000
"""Tokens of the corpus that are read for policies that are drawn."""
ABLATIONS = ("siblings", "neighbours", "look_alikes", "questions", "statements")
"""What an edit can be made without; the audit asks the same in every case."""


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = options.parser("unlearning", __doc__, "alphaedit")
    found.add_argument(
        "--policies", default="world:24", help="world:N, second:N, counterfact:N or files, with commas"
    )
    found.add_argument("--suite", default=str(SUITE), help="what is measured: a suite's name or file")
    found.add_argument("--model", default=EMBEDDED, help="for counterfact: a local folder or a hub id")
    found.add_argument("--facts", type=Path, help="for counterfact: the benchmark's file")
    found.add_argument("--refusal", default="unknown", help="for counterfact: what is to be said instead")
    found.add_argument("--corpus", help="text behind the key statistics (default: a policy file's, or auto)")
    found.add_argument("--text", help="held-out text for the divergence (default: a policy file's, or auto)")
    found.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another key, in YAML, such as prompt_variants.templates=3",
    )
    parts = ", ".join(ABLATIONS)
    found.add_argument("--without", default="", help=f"for ablation, what the edit does not get: {parts}")
    return found


def requests_of(model: EditableModel, found: Case, progress: Progress) -> Requests:
    """The policy's requests; a CounterFact case brings its answers along."""
    if found.facts is None:
        return resolve(model, found.policy, progress)
    kept = [fact.subject for fact in found.neighbours]
    never = [fact.subject for fact in (*found.held_out_neighbours, *found.facts)]
    relations = {fact.relation for fact in found.facts}
    names = alike(
        model, found.policy, dict.fromkeys(sorted(relations), kept), dict.fromkeys(relations, never)
    )
    return Requests(found.policy, found.facts, (), found.neighbours, found.held_out_neighbours, names)


def less(requests: Requests, parts: Sequence[str]) -> Requests:
    """The requests that the edit gets, without some of their parts.

    Raises:
        PolicyError: there is no such part, or nothing would be left to write.
    """
    unknown = [part for part in parts if part not in ABLATIONS]
    if unknown:
        raise PolicyError(f"--without {unknown[0]}: unknown; known: {', '.join(ABLATIONS)}")
    found = replace(requests, **{part: () for part in parts if part not in ("questions", "statements")})
    kinds = [kind for kind in ("questions", "statements") if kind in parts]
    if not kinds:
        return found
    data = requests.policy.model_dump()
    for name in {fact.relation for fact in requests.facts}:
        spec = requests.policy.relations[name]
        left = tuple(
            p for p in spec.prompts if ("questions" if is_question(p) else "statements") not in kinds
        )
        if not left:
            raise PolicyError(f"--without {','.join(kinds)}: relations.{name} would have no prompt left")
        data["relations"][name]["prompts"] = left
    return replace(found, policy=Policy.model_validate(data))


def audited(requests: Requests) -> Requests:
    """The requests with the facts that can be asked in words that the edit has not seen.

    A few of CounterFact's records have no other wording with their subject in it. The edit writes them; the audit,
    which would fail a forgotten relation that it cannot ask, asks about the others.
    """
    facts = tuple(f for f in requests.facts if requests.policy.relations[f.relation].held_out)
    ids = {fact.id for fact in facts}
    specs = tuple(spec for spec in requests.policy.facts if spec.id in ids)
    return replace(requests, facts=facts, policy=requests.policy.model_copy(update={"facts": specs}))


def measure(
    bench: Bench,
    requests: Requests,
    about: Row,
    without: Sequence[str],
) -> Row:
    """Edit, audit, and put both into a row."""
    patch, seconds, findings = bench.tried(less(requests, without))
    row = row_of(findings.measurements, about, statements_refused(findings))
    with bench.model.patched(patch):
        whole = said_in_full(bench.model, bench.requests, bench.means.progress)
    return {**row, WHOLE: None if whole is None else round(whole, 5), "seconds": round(seconds, 1)}


def said_in_full(model: EditableModel, requests: Requests, progress: Progress = NO_PROGRESS) -> float | None:
    """Share of held-out questions about the facts that get their whole target as the greedy reply; None without any."""
    policy = requests.policy
    asked = [
        (ask(model.tokenizer, template, fact.subject), policy.target(fact))
        for fact in requests.facts
        for template in policy.relations[fact.relation].questions(held_out=True)
    ]
    if not asked:
        return None
    longest = max(len(reply_ids(model.tokenizer, "?", target)) for _, target in asked)
    replies = model.generate(
        [prompt for prompt, _ in asked], longest + 8, progress=progress, label="Asking in full"
    )
    same = [
        words(reply, articles=True) == words(target, articles=True)
        for (reply, *_), (_, target) in zip(replies, asked, strict=True)
    ]
    return sum(same) / len(same)


def cases(args: argparse.Namespace, keys: Mapping[str, Any]) -> Iterator[tuple[int, list[tuple[str, Case]]]]:
    """By policy and seed, the case under each method: they ask the same, so that the unedited model is measured once.

    Raises:
        PolicyError: there is no such policy, method or key.
    """
    names = chosen("methods", args.methods, METHOD_NAMES)
    specs = [spec.strip() for spec in args.policies.split(",")]
    if any(spec.startswith(COUNTERFACT) for spec in specs) and args.facts is None:
        raise PolicyError("--policies counterfact:N needs --facts, the benchmark's file")
    where = {"facts": args.facts, "model": args.model, "refusal": args.refusal}
    audit = {"suite": args.suite} | ({} if args.text is None else {"text": args.text})
    for spec in specs:
        for seed in numbers("seeds", args.seeds, 0):
            found = [
                (name, changed(case(spec, seed, settings_of(name, args.set), audit, **where), keys))
                for name in names
            ]
            yield (
                seed,
                [
                    (name, changed(one, {"statistics": _statistics(one.policy, spec, args.corpus)}))
                    for name, one in found
                ],
            )


def _statistics(policy: Policy, spec: str, corpus: str | None) -> dict[str, Any]:
    usual = StatisticsSpec(tokens=DRAWN) if drawn(spec) else policy.statistics
    return usual.model_dump(mode="json") | ({} if corpus is None else {"corpus": corpus})


def run(args: argparse.Namespace, rows: Rows) -> None:
    """Every policy, seed and method; the unedited model is measured once per policy and seed."""
    keys = keys_of(args.policy)
    means = Means(Placement(args.device), Store.at(cache_folder()), progress_for())
    without = [part.strip() for part in args.without.split(",") if part.strip()]
    models: dict[str, EditableModel] = {}
    for seed, found in cases(args, keys):
        todo = []
        for name, one in found:
            policy = one.policy
            if policy.model not in models:
                models[policy.model] = load_model(
                    policy.model, means.placement, progress=means.progress, tokenizer=policy.tokenizer
                )
            model = models[policy.model]
            about = {
                "method": name, "seed": seed, "policy": one.name, "facts": len(policy.facts),
                "label": args.label, "without": without, "suite": args.suite, **({"changed": keys} if keys else {}),
                # No `auto`: what it stands for may change.
                "settings": settings_in_force(model, policy),
            }  # fmt: skip
            inside = {**about, "model": model.weights_sha256(), "whole": policy.model_dump(mode="json")}
            about["run"], about["edits"] = key_of(inside), len(policy.facts)
            if rows.find(about["run"], about["edits"]) is None:
                todo.append((model, one, about))
        if not todo:
            continue
        model, first, _ = todo[0]
        requests = requests_of(model, first, means.progress)
        bench = Bench.of(model, audited(requests), means)
        for _, one, about in todo:
            asked = requests.under(method=one.policy.method, statistics=one.policy.statistics)
            row = measure(bench, asked, about, without)
            rows.add(row)
            print(plain([row]), file=sys.stderr, flush=True)
    print(plain(rows.rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line; returns the exit code."""
    return told(parser().parse_args(argv), lambda args: run(args, Rows(args.json)))


PARTS = ("leak.sampled", "refusal.held_out", "retain.siblings", "retain.neighbours")
"""Of the harmonic mean: one minus the first, and the others, as far as they were measured."""
CHANCE = ".chance"
"""After a measurement's name: how often it comes out so by chance."""
ABOVE = "harmonic.above_chance"
"""The harmonic mean of what is sampled beyond chance: (leak - chance) / (1 - chance) stands for the leak."""
STATEMENTS = "refusal.cloze"
"""Stands for the refusals where no question was asked: a base model refuses by going on with the target."""


def harmonic(shares: Mapping[str, float | None]) -> float | None:
    """Harmonic mean of (1 - leak), refusal, siblings and neighbours, in percent; None if none was measured."""
    asked = shares.get("refusal.held_out") is not None
    names = [STATEMENTS if name == "refusal.held_out" and not asked else name for name in PARTS]
    values = [
        1 - v if name.startswith("leak") else v for name in names if (v := shares.get(name)) is not None
    ]
    return 100 * metrics.harmonic(values) if values else None


def row_of(measurements: Sequence[Measurement], about: Row, statements: float | None = None) -> Row:
    """Measurement names as keys; beside them values before, intervals, and reasons where nothing was measured.

    Args:
        statements: share of held-out statements refused (``statements_refused``).
    """
    made = {**{m.name: m.after for m in measurements}, STATEMENTS: statements}
    chances = {m.name: m.chance for m in measurements if m.chance is not None}
    beyond = {
        name: None if made[name] is None else max(0.0, (made[name] - chance) / (1 - chance))
        for name, chance in chances.items()
        if chance < 1
    }
    return {
        **about,
        "harmonic": None if (h := harmonic(made)) is None else round(h, 2),
        ABOVE: None if not chances or (h := harmonic({**made, **beyond})) is None else round(h, 2),
        **{f"{name}{CHANCE}": round(chance, 5) for name, chance in chances.items()},
        **{name: None if value is None else round(value, 5) for name, value in made.items()},
        "before": {m.name: m.before for m in measurements if m.before is not None},
        "ci95": {m.name: m.ci95 for m in measurements if m.ci95 is not None},
        "n": {m.name: m.n for m in measurements},
        "missing": {m.name: m.reason for m in measurements if m.after is None},
    }


def statements_refused(findings: Findings) -> float | None:
    """Share of held-out statements whose continuation is the target: what a base model's refusal is."""
    cloze = findings.after.groups.get("cloze", ())
    return sum(o.refused for o in cloze) / len(cloze) if cloze else None


if __name__ == "__main__":
    sys.exit(main())
