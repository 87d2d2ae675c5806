"""`unlearn trace`: where a model recalls what a policy forbids."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unlearn.commands.common import command_line, read_policy, run_folder
from unlearn.commands.options import Place, as_json, force, model_options, policy_overrides, quiet
from unlearn.commands.said import say, written
from unlearn.errors import AuditError
from unlearn.loaded import about_model, load_model
from unlearn.matching import words
from unlearn.order import Placement
from unlearn.policy import Keep, Policy, is_question
from unlearn.policy.paths import read_by
from unlearn.progress import progress_for
from unlearn.runs import manifest
from unlearn.runs.folder import whole_folder
from unlearn.runs.log import warned

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel
    from unlearn.model.prompts import Prompt
    from unlearn.model.requests import Fact, Requests
    from unlearn.model.traced import Traceable
    from unlearn.progress import Progress

LENGTH = 24
"""Longest reply that is looked at for the answer, in tokens."""


@click.command(short_help="Trace where a model recalls the facts; propose layers.")
@click.argument("policy", type=Place())
@click.option(
    "--prompts", type=click.IntRange(min=1), default=48, show_default=True,
    help="Most prompts to trace, taken from the facts in turn.",
)  # fmt: skip
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Draws of the noise per prompt.",
)
@click.option(
    "--noise", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True,
    help="Standard deviation of the noise, relative to that of the subjects' embeddings.",
)  # fmt: skip
@click.option(
    "--window", type=click.IntRange(min=1),
    help="Layers of MLP or attention outputs restored together [default: a fifth of the depth].",
)  # fmt: skip
@click.option("--out", type=Place(), help="Where to write [default: runs/NAME-trace-TIME].")
@policy_overrides
@model_options
@force
@as_json
@quiet
def trace(
    policy: Path,
    prompts: int,
    samples: int,
    noise: float,
    window: int | None,
    out: Path | None,
    given: dict[str, str],
    placement: Placement,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Trace where the model recalls the facts of POLICY, and propose layers for its method to write.

    The subject's embeddings are made noisy, and one hidden state at a time is put back; the table shows how much of
    the answer's probability returns, by layer and by kind of token. Only prompts are traced whose reply begins with the
    answer. Writes trace.json, the heat maps (trace.svg) and manifest.json. The exit code is 0 whether or
    not layers can be proposed.

    \b
    Examples:
        unlearn trace policies/demo.yaml
        unlearn trace policies/demo.yaml --prompts 12 --set method.look_up=subject --out runs/trace
        unlearn trace policy.yaml --model Qwen/Qwen2.5-7B-Instruct --samples 10 --json
    """
    loaded, source = read_policy(policy, given)
    from unlearn.commands.trace_shown import table

    target = out or run_folder(loaded, "trace")
    with whole_folder(target, force, read_by(loaded, policy), private=True) as folder:
        edited = load_model(loaded.model, placement, None, progress_for(quiet), loaded.tokenizer)
        with warned(quiet or as_json):
            found, drawn = _traced(edited, loaded, prompts, samples, noise, window, progress_for(quiet))
        (folder / "trace.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        (folder / "trace.svg").write_text(drawn, encoding="utf-8")
        manifest.write(folder, manifest.describe(loaded, source, command_line(), **about_model(edited)))
    written(target)
    say(json.dumps(found, indent=2) if as_json else f"{table(found)}\n\ntrace and heat maps: {target}")
    return 0


def traceable(
    model: EditableModel, requests: Requests, most: int, progress: Progress
) -> tuple[list[Traceable], int, int]:
    """Prompts whose reply begins with the answer, from the facts in turn, questions and statements by turns.

    Returns:
        The prompts, how many facts they are about, and how many prompts were asked.

    Raises:
        AuditError: there is none.
    """
    from unlearn.model.prompts import ask
    from unlearn.model.traced import Traceable

    # Twice as many as are wanted, and four at least: some will not do.
    each = max(4, 2 * math.ceil(most / len(requests.facts)))
    asked: list[tuple[int, Fact, Prompt]] = []
    for fact in requests.facts:
        templates = by_turns(requests.policy.relations[fact.relation].prompts)[:each]
        asked += [(turn, fact, ask(model.tokenizer, t, fact.subject)) for turn, t in enumerate(templates)]
    replies = model.generate(
        [prompt for *_, prompt in asked], max_new_tokens=LENGTH, progress=progress, label="Asking"
    )
    firsts = model.generate_ids([prompt.ids for *_, prompt in asked], max_new_tokens=1)
    found: list[tuple[int, str, Traceable]] = []
    for (turn, fact, prompt), (reply, *_), first in zip(asked, replies, firsts, strict=True):
        if (
            begins_with(reply, fact.answers)
            and prompt.subject_first is not None
            and prompt.subject_last is not None
        ):
            span = (prompt.subject_first, prompt.subject_last)
            found.append((turn, fact.id, Traceable(prompt.ids, span, first[0])))
    if not found:
        raise AuditError(
            f"none of {len(asked)} prompts can be traced: the model's reply begins with the answer to none of them; "
            "give the policy prompts that the answer follows at once, such as statements to complete"
        )
    chosen = sorted(found, key=lambda row: row[0])[:most]
    return [row for *_, row in chosen], len({fact for _, fact, _ in chosen}), len(asked)


def by_turns(templates: tuple[str, ...]) -> list[str]:
    """Questions and statements by turns, each in their order."""
    groups = [[t for t in templates if is_question(t) is kind] for kind in (True, False)]
    longest = max(map(len, groups))
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def begins_with(reply: str, answers: tuple[str, ...]) -> bool:
    """Whether the first words of a reply are an answer."""
    said = words(reply, articles=True)
    return any(
        wanted and said[: len(wanted)] == wanted for wanted in (words(a, articles=True) for a in answers)
    )


def _traced(
    model: EditableModel,
    policy: Policy,
    most: int,
    samples: int,
    noise: float,
    window: int | None,
    progress: Progress,
) -> tuple[dict[str, Any], str]:
    from unlearn.commands.trace_shown import picture
    from unlearn.edit.choose import look_up_of
    from unlearn.edit.requests.resolve import resolve
    from unlearn.model import traced
    from unlearn.model.trace import trace as traces_of

    # Only the facts' own answers are needed.
    requests = resolve(model, policy.model_copy(update={"keep": Keep(siblings=(), neighbours=())}), progress)
    rows, facts, asked = traceable(model, requests, most, progress)
    traces = traces_of(model, rows, noise, samples, window, policy.seed, progress=progress)
    found = traced.average(traces)
    look_up = look_up_of(model, policy)
    role = traced.ROLES[2] if look_up == "subject" else traced.ROLES[4]
    one = "layer" in type(policy.method).model_fields
    layers = traced.propose(found, role, 1, 1) if one else traced.propose(found, role)
    described = {
        "policy": policy.name,
        "model": model.name,
        "method": policy.method.name,
        "facts": facts,
        "prompts": len(rows),
        "prompts_asked": asked,
        "noise": noise,
        "samples": samples,
        "window": window or traced.default_window(model.anatomy.layers),
        "clean": found.clean,
        "corrupted": found.corrupted,
        "roles": list(traced.ROLES),
        "prompts_by_role": list(found.counts),
        "effects": {kind: _numbers(values) for kind, values in found.effects.items()},
        "standard_errors": {kind: _numbers(values) for kind, values in found.errors.items()},
        "proposal": {
            "look_up": look_up,
            "token": role,
            "mediated_by_mlps": _numbers(traced.mediated(found, role)[None])[0],
            "layers": list(layers),
            "setting": setting(policy, layers),
        },
    }
    return described, picture(found, described)


def setting(policy: Policy, layers: tuple[int, ...]) -> str | None:
    """The line of a policy that takes a proposal up; None without one, or for a method that writes no layers."""
    fields = type(policy.method).model_fields
    if not layers:
        return None
    if "layers" in fields:
        return f"method.layers={list(layers)}"
    return f"method.layer={layers[0]}" if "layer" in fields else None


def _numbers(values: Any) -> list[list[float | None]]:
    return [[None if math.isnan(v) else round(v, 5) for v in row] for row in values.tolist()]
