"""`unlearn check`: is a policy right, and what does it ask for?"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from unlearn.audit.known import known_audit, known_suite
from unlearn.commands.options import Place, as_json, overrides, policy_overrides
from unlearn.commands.said import say
from unlearn.measurements import FAMILIES, named
from unlearn.policy import DEFAULT_LIMITS, EMBEDDED, Policy, listed_in
from unlearn.policy.file import load_policy, schema
from unlearn.shown import shown, shown_lines

if TYPE_CHECKING:
    from unlearn.audit.attacks.scene import State
    from unlearn.audit.estimate import Estimate
    from unlearn.audit.suite import Suite


@click.command(short_help="Check a policy, and say what it asks for.")
@click.argument("policy", type=Place(), required=False)
@click.option(
    "--defaults", is_flag=True, help="Print the whole policy as YAML, with every default filled in."
)
@click.option("--schema", "as_schema", is_flag=True, help="Print the JSON Schema of policies, for an editor.")
@click.option(
    "--suite",
    help="Print an audit suite: what it measures and how much it asks; with POLICY, also about how long it takes. "
    "quick, standard, full, or the path of a suite's YAML file.",
)
@as_json
@policy_overrides
def check(
    policy: Path | None,
    defaults: bool,
    as_schema: bool,
    suite: str | None,
    as_json: bool,
    given: dict[str, str],
) -> int:
    """Check a POLICY and say what it asks for; no model is loaded.

    Every problem is listed with its line, and the exit code is 2 if there is one.

    \b
    Examples:
        unlearn check policies/demo.yaml
        unlearn check policies/demo.yaml --method rome --defaults
        unlearn check --suite full
        unlearn check policies/demo.yaml --suite full
        unlearn check --schema > policy.schema.json
    """
    if as_schema:
        say(json.dumps(schema(), indent=2))
        return 0
    if policy is None and suite is None:
        raise click.UsageError("missing argument POLICY (or --schema, or --suite)")
    loaded = None if policy is None else load_policy(policy, given | overrides(suite=suite))
    if suite is not None:
        known_suite(suite)
        if loaded is not None:
            known_audit(loaded, whole=False)
        return tell_suite(suite, loaded, as_json)
    assert policy is not None and loaded is not None
    known_audit(loaded, whole=False)
    if defaults:
        data = loaded.effective()
        say(json.dumps(data, indent=2) if as_json else _yaml(data))
    elif as_json:
        say(json.dumps({"ok": True, **summary(loaded)}, indent=2))
    else:
        say(_table(policy, loaded))
    return 0


def _yaml(data: dict[str, Any]) -> str:
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    # Escapes are YAML's own, so that what is printed can be read again.
    return (text if shown_lines(text) == text else yaml.safe_dump(data, sort_keys=False)).rstrip()


def summary(policy: Policy) -> dict[str, Any]:
    """Return what a policy asks for: counts and settings, and what was probably not meant."""
    facts = Counter(fact.relation for fact in policy.facts)
    return {
        "name": policy.name,
        "model": policy.model,
        "method": policy.method.model_dump(mode="json"),
        "facts": len(policy.facts),
        "answers_given": sum(fact.answer is not None for fact in policy.facts),
        "relations": {
            name: {
                "facts": facts[name],
                "kept": name in policy.siblings,
                "questions": len(relation.questions()),
                "statements": len(relation.statements()),
                "held_out_questions": len(relation.questions(held_out=True)),
                "held_out_statements": len(relation.statements(held_out=True)),
            }
            for name, relation in policy.relations.items()
        },
        "neighbours": policy.keep.neighbours
        if policy.keep.neighbours == "auto"
        else len(listed_in(policy.keep.neighbours)),
        "held_out_neighbours": len(listed_in(policy.keep.held_out_neighbours)),
        "suite": policy.audit.suite,
        "tasks": list(policy.audit.task_names),
        "limits": {**DEFAULT_LIMITS, **policy.audit.limits},
        "notes": policy.notes(),
    }


def _table(path: Path, policy: Policy) -> str:
    found = summary(policy)
    neighbours = found["neighbours"]
    if neighbours != "auto":
        neighbours = f"{neighbours} protected, {found['held_out_neighbours']} held out"
    lines = [
        f"{path}: ok",
        f"  policy      {policy.name} for {policy.model}, by {policy.method.name}",
        f"  facts       {found['facts']} ({found['answers_given']} with an answer, the rest are asked of the model)",
        f"  neighbours  {neighbours}",
        f"  audit       {', '.join([policy.audit.suite, *policy.audit.task_names])}",
        "",
        f"  {'relation':<16}{'use':<10}{'facts':>5}{'prompts':>10}{'held out':>10}   (questions + statements)",
    ]
    for name, row in found["relations"].items():
        use = "forget" if row["facts"] else "keep" if row["kept"] else "unused"
        prompts = f"{row['questions']} + {row['statements']}"
        held_out = f"{row['held_out_questions']} + {row['held_out_statements']}"
        lines.append(f"  {name:<16}{use:<10}{row['facts'] or '':>5}{prompts:>10}{held_out:>10}")
    lines += ["", f"  {'limit':<24}{'value':>8}"]
    for name, value in found["limits"].items():
        mine = "" if name in policy.audit.limits else "   (default)"
        lines.append(f"  {name:<24}{value:>8g}{mine}")
    if found["notes"]:
        lines += ["", *(f"  note: {note}" for note in found["notes"])]
    return "\n".join(map(shown, lines))


STATES = {"before": "unedited", "after": "edited", "control": "control"}


def tell_suite(name: str, policy: Policy | None, as_json: bool) -> int:
    """Print a suite on stdout; with a policy, its work and time on that policy's facts as well.

    Raises:
        AuditError: there is no such suite.
        PolicyError: the policy asks for neighbours that nobody knows.
    """
    from unlearn.audit.suite import load_suite

    suite = load_suite(name)
    found = None if policy is None else estimated(policy, suite)
    if as_json:
        say(json.dumps(_document(suite, found), indent=2))
    else:
        lines = [*_definition(suite), *([] if found is None else ["", *_work(found)])]
        say("\n".join(map(shown, lines)))
    return 0


def estimated(policy: Policy, suite: Suite) -> Estimate:
    """What the suite asks of the states of a policy's model, with times of earlier audits; no model is loaded."""
    import torch

    from unlearn.audit.cache import Paces
    from unlearn.audit.control import states_of
    from unlearn.audit.estimate import estimate
    from unlearn.edit.requests.resolve import outline
    from unlearn.store import Store, cache_folder

    device = "cuda" if torch.cuda.is_available() else "cpu"
    paces = Paces(Store.existing(cache_folder()), policy.model, device)
    if policy.keep.neighbours == "auto" and policy.model != EMBEDDED:  # the model will name them
        unnamed = policy.keep.model_copy(update={"neighbours": ()})
        policy = policy.model_copy(update={"keep": unnamed})
    return estimate(outline(policy), suite, states_of(policy), paces)


def sizes(suite: Suite) -> dict[str, Any]:
    """Every size of a suite, in the order of its fields."""
    about = ("name", "description", "measurements")
    return {key: value for key, value in suite.model_dump(mode="json").items() if key not in about}


def _document(suite: Suite, found: Estimate | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": suite.name,
        "description": suite.description,
        "measurements": list(suite.measurements),
        "sizes": sizes(suite),
    }
    if found is not None:
        document["work"] = {state: dict(pieces) for state, pieces in found.work.items()}
        document["seconds"] = None if found.seconds is None else dict(found.seconds)
        document["timed_before"] = found.measured
    return document


def _definition(suite: Suite) -> list[str]:
    lines = [f"{suite.name}: {suite.description}", ""]
    width = max(map(len, suite.measurements))
    for name in suite.measurements:
        said = named(name).definition.format(name=FAMILIES[named(name).family].several)
        lines.append(f"  {name:<{width}}  {said}")
    lines += ["", "  sizes (upper bounds)"]
    for key, value in sizes(suite).items():
        size = "all" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else value
        lines.append(f"    {key:<22}{size}")
    return lines


def _work(found: Estimate) -> list[str]:
    from unlearn.audit.estimate import spoken

    order: list[State] = ["before", "after", "control"]
    states = [state for state in order if state in found.work]
    names = list(dict.fromkeys(name for state in states for name in found.work[state]))
    width = max(map(len, names), default=4)
    head = "".join(f"{STATES[state]:>12}" for state in states)
    lines = [f"  {'work, in generated tokens':<{width + 2}}{head}"]
    for name in names:
        counts = [found.work[state].get(name) for state in states]
        row = "".join(f"{'-' if count is None else format(round(count), ','):>12}" for count in counts)
        lines.append(f"    {name:<{width}}{row}")
    if found.seconds is not None:
        times = "".join(f"{spoken(found.seconds[state]):>12}" for state in states)
        lines.append(f"    {'time, about':<{width}}{times}")
    return [*lines, "", f"  {found.sentence()}"]
