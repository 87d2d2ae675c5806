"""`unlearn apply --dry-run`: what would be done, where, and about how long it would take. Nothing is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unlearn.commands.said import say
from unlearn.policy import EMBEDDED, Policy, is_question, listed_in
from unlearn.shown import shown

if TYPE_CHECKING:
    from unlearn.edit.conflict_report import Conflicts
    from unlearn.edit.plan import Plan
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Fact
    from unlearn.patch import Patch

ROWLESS = ("guard", "none")
"""Methods that read no prompt with its refusal."""


def tell_plan(
    policy: Policy, model: EditableModel, as_json: bool, earlier: Patch | None = None, show_text: bool = False
) -> int:
    """Print the plan on stdout.

    Args:
        as_json: print JSON, which never holds an answer.
    """
    found = plan(policy, model, earlier, show_text and not as_json)
    say(json.dumps(found, indent=2) if as_json else _table(policy, found))
    return 0


def plan(
    policy: Policy, model: EditableModel, earlier: Patch | None = None, show_text: bool = False
) -> dict[str, Any]:
    """Lay out the edit and the audit of a policy, with estimates from two short timed runs of the model.

    The model is asked for the answers that the policy does not give; `show_text` puts them beside their facts' ids.

    Raises:
        PolicyError: the policy asks for layers that the model does not have, for neighbours that nobody knows, or for
            what an edit cannot do.
        ModelError: a subject has no tokens in one of its prompts, a prompt is longer than the model's context, or the
            earlier patch was made for another model.
        PatchError: nothing can be built on the earlier patch.
    """
    from unlearn.commands.forecast import memory, seconds
    from unlearn.edit.choose import allowed, choose
    from unlearn.edit.forms import fits, prompts_of, target_of
    from unlearn.edit.requests.named import with_neighbours
    from unlearn.edit.requests.resolve import guessed, neighbours, outline
    from unlearn.edit.sequence import Sofar
    from unlearn.edit.statistics import Source
    from unlearn.store import Store, cache_folder

    asked_for = policy.keep.neighbours == "auto" and policy.model != EMBEDDED
    allowed(model, policy, earlier)
    policy = with_neighbours(model, policy)
    asked_of = outline(policy)
    if policy.method.name not in ROWLESS:
        for fact in asked_of.facts:
            for _, prompt in prompts_of(model, asked_of, fact):
                fits(model, fact.id, len(prompt.ids) + len(target_of(model, policy, fact, prompt)))
    source = Source.of(policy, model, Store.existing(cache_folder()), reads=False)
    chosen = choose(model, asked_of, source, Sofar.after(earlier, model))
    protected, tested = neighbours(policy)
    prompts = look_ups(policy, model)
    rows = [row for fact in prompts for row in fact["prompts"]]
    elicited, asked = _generations(policy, protected, tested)
    return {
        "model": model.name,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "method": chosen.name,
        "reasons": dict(chosen.reasons),
        "layers": list(chosen.layers),
        "weights": weights(model, chosen),
        "facts": prompts,
        "answers": [_guess(fact, show_text) for fact in guessed(model, policy)],
        "siblings": len(policy.sibling_pairs),
        "neighbours_protected": sum(map(len, protected.values())),
        "neighbours_tested": sum(map(len, tested.values())),
        **(
            {"named": [*listed_in(policy.keep.neighbours), *listed_in(policy.keep.held_out_neighbours)]}
            if asked_for
            else {}
        ),
        "conflicts": chosen.conflicts,
        "generations": {"before_the_edit": elicited, "per_audit": asked},
        "memory_bytes": memory(chosen, model, [row["tokens"] for row in rows], elicited),
        "seconds": seconds(policy, model, chosen, asked_of, [row["tokens"] for row in rows], elicited),
    }


def _generations(
    policy: Policy, protected: Mapping[str, Sequence[str]], tested: Mapping[str, Sequence[str]]
) -> tuple[int, int]:
    """Replies that are asked for before the edit, and by one audit, given the neighbours by relation."""
    from unlearn.audit.suite import load_suite

    suite = load_suite(policy.audit.suite)
    samples = suite.samples if suite.asks("sampled") else 0
    seen = {name: len(relation.prompts) for name, relation in policy.relations.items()}
    held_out = {name: len(relation.held_out) for name, relation in policy.relations.items()}
    forgotten = [fact.relation for fact in policy.facts]
    siblings = [name for _, name in policy.sibling_pairs]
    elicited = sum(seen[name] for name in (*forgotten, *siblings))
    elicited += sum((len(protected[name]) + len(tested[name])) * seen[name] for name in protected)
    asked = sum(seen[name] + (1 + samples) * held_out[name] for name in forgotten)
    asked += sum(held_out[name] for name in siblings)
    asked += sum(len(names) * held_out[name] for name, names in tested.items())
    return elicited, asked


def weights(model: EditableModel, chosen: Plan) -> list[str]:
    """Names of the weights that a plan changes."""
    from unlearn.edit.settings import Adapting
    from unlearn.model.adapters import linears
    from unlearn.policy.settings_trained import RepSelect

    if isinstance(chosen.algorithm, Adapting):
        return linears(model, chosen.algorithm.targets)
    if isinstance(chosen.algorithm, RepSelect):
        return linears(model, "mlp")
    return [model.anatomy.weight_name(layer) for layer in chosen.layers]


def look_ups(policy: Policy, model: EditableModel) -> list[dict[str, Any]]:
    """Return per fact the prompts that the edit would see, each with its tokens and its look-up tokens as text."""
    from unlearn.model.prompts import ask

    found = []
    for fact in policy.facts:
        prompts = []
        for template in policy.relations[fact.relation].prompts:
            prompt = ask(model.tokenizer, template, fact.subject)
            at = prompt.subject_last
            subject = None if at is None else model.tokenizer.decode([prompt.ids[at]])
            prompts.append(
                {
                    "prompt": template,
                    "form": "question" if is_question(template) else "statement",
                    "tokens": len(prompt.ids),
                    "subject_token": {"at": at, "text": subject},
                    "last_token": {
                        "at": prompt.last,
                        "text": model.tokenizer.decode([prompt.ids[prompt.last]]),
                    },
                }
            )
        found.append({"id": fact.id, "relation": fact.relation, "prompts": prompts})
    return found


def _table(policy: Policy, found: dict[str, Any]) -> str:
    memory, seconds = found["memory_bytes"], found["seconds"]
    lines = [
        f"{policy.name}: {found['method']} on {found['model']} ({found['device']}, {found['dtype']})",
        *(f"  why {name.replace('_', ' '):<9}{why}" for name, why in found["reasons"].items()),
        f"  layers       {', '.join(map(str, found['layers'])) or 'none'}"
        + (f"  (of {found['weights'][0]} and its like)" if found["weights"] else ""),
        f"  kept         {found['siblings']} sibling facts, {found['neighbours_protected']} neighbours; "
        f"{found['neighbours_tested']} more neighbours are only asked by the audit",
        *([f"  named        by the model: {', '.join(found['named'])}"] if "named" in found else []),
        f"  generations  {found['generations']['before_the_edit']} to learn the answers, "
        f"{found['generations']['per_audit']} per audit (before and after)",
        f"  memory       about {_bytes(memory['device'])} on {found['device']}, "
        f"{_bytes(memory['host_statistics'])} of statistics on the host",
        "  time         about "
        + ", ".join(f"{value:.0f} s {name.replace('_', ' ')}" for name, value in seconds.items()),
        *_lines_about(found["conflicts"]),
        *_guesses(found["answers"]),
        "",
        "  facts and look-up tokens (subject token, last token):",
    ]
    for fact in found["facts"]:
        lines.append(f"    {fact['id']} ({fact['relation']})")
        for row in fact["prompts"]:
            at, last = row["subject_token"], row["last_token"]
            tokens = f"{at['at']} {at['text']!r}, {last['at']} {last['text']!r}"
            lines.append(f"      {row['form']:<10}{tokens:<30}  {row['prompt']}")
    lines += ["", "nothing was written"]
    return "\n".join(map(shown, lines))


def _lines_about(conflicts: Conflicts | None) -> list[str]:
    from unlearn.edit.conflict_report import lines_of

    return [] if conflicts is None else ["", *(f"  {line}" for line in lines_of(conflicts))]


def _guess(fact: Fact, show_text: bool) -> dict[str, Any]:
    return {"id": fact.id, "doubt": fact.doubt, **({"text": list(fact.answers)} if show_text else {})}


def _guesses(answers: list[dict[str, Any]]) -> list[str]:
    if not answers:
        return []
    doubtful = sum(row["doubt"] is not None for row in answers)
    head = f"  answers from the model ({len(answers)}, {doubtful} doubtful"
    lines = ["", head + ("; --show-text shows them):" if "text" not in answers[0] else "):")]
    for row in answers:
        text = f"  {' / '.join(row['text'])!r}" if "text" in row else ""
        doubt = f"  doubtful: {row['doubt']}; give the answer of fact {row['id']}" if row["doubt"] else ""
        lines.append(f"    {row['id']}{text}{doubt}")
    return lines


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
