"""`unlearn check`: is a policy right, and what does it ask for?"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
import yaml

from unlearn.audit.known import known_audit, known_suite
from unlearn.commands.options import Place, as_json, overrides, policy_overrides
from unlearn.commands.said import say
from unlearn.policy import DEFAULT_LIMITS, Policy, listed_in
from unlearn.policy.file import load_policy, schema
from unlearn.shown import shown, shown_lines


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
        from unlearn.commands.suites import tell_suite

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
