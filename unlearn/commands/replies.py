"""`unlearn replies`: what a candidate says where a limit is missed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import click

from unlearn.audit.suite import load_suite
from unlearn.commands import forgery
from unlearn.commands.common import means_of, read_policy, settle
from unlearn.commands.options import Place, as_json, audit_overrides, model_options, quiet
from unlearn.commands.report import report_at
from unlearn.commands.said import say
from unlearn.errors import AuditError, PolicyError
from unlearn.files import at_home, exists
from unlearn.loaded import judged_of
from unlearn.measurements import REPLIES
from unlearn.order import Placement
from unlearn.policy import Policy
from unlearn.policy.checks import suggestion
from unlearn.runs import manifest
from unlearn.runs.sealed import REPORT, whole
from unlearn.shown import sentence

if TYPE_CHECKING:
    from unlearn.audit.replies import Missed

OF = "--of"


@click.command(short_help="Show what a candidate says where a limit is missed.")
@click.argument("candidate")
@click.option(
    "--policy",
    "-p",
    type=Place(True, dir_okay=False),
    help="What it is judged by; a run directory names its own.",
)
@click.option(
    OF,
    "names",
    multiple=True,
    metavar="MEASUREMENT",
    help="Of this measurement, such as retain.neighbours; may be repeated [default: of a run those that missed their "
    "limits, else all of the suite].",
)
@click.option(
    "--most", type=click.IntRange(min=1), default=20, show_default=True, help="Prompts per measurement."
)
@audit_overrides
@model_options
@as_json
@quiet
def replies(
    candidate: str,
    policy: Path | None,
    names: tuple[str, ...],
    most: int,
    given: dict[str, str],
    placement: Placement,
    as_json: bool,
    quiet: bool,
) -> int:
    """Show the prompts that count against CANDIDATE, with what it and the unedited model say.

    CANDIDATE is what `unlearn audit` takes. A report holds no text, so that it can be passed on; this command asks both
    models again, writes on the terminal alone, and keeps nothing. Where the policy is about harm, so is what it shows:
    replies behind leaks, refusals, what is retained, and harmless questions that are refused.

    \b
    Examples:
        unlearn replies runs/first
        unlearn replies runs/first --of retain.neighbours --most 5
        unlearn replies someone/scrubbed-model --policy policy.yaml --of leak.sampled --json
    """
    case = _case(at_home(candidate), policy, given)
    asked = _asked(case, names)
    if not asked:
        say(f"{candidate}: no limit on replies was missed; name a measurement with {OF}", err=as_json)
        if as_json:
            say("[]")
        return 0
    from unlearn.audit.replies import missed
    from unlearn.edit.requests.resolve import resolve

    means = means_of(placement, True, quiet)
    base, judged, said = judged_of(case.candidate, case.policy, means)
    other = [
        key for key in ("identity", "sha256") if key in case.recorded and case.recorded[key] != said.get(key)
    ]
    if other:
        raise AuditError(f"{case.candidate} is not what {candidate} is about: its {other[0]} is another")
    requests = resolve(base, case.policy, means.progress)
    found = missed(base, judged, requests, asked, means.progress)
    shorter = [replace(one, replies=one.replies[:most]) for one in found]
    say(json.dumps([*map(asdict, shorter)], indent=2) if as_json else "\n".join(_lines(found, most)))
    return 0


class _Case(NamedTuple):
    """What is asked."""

    candidate: str
    policy: Policy
    failed: Sequence[str] | None = None
    """What missed its limit in the run; None where there is no run."""
    recorded: Mapping[str, object] = MappingProxyType({})
    """What the run says of its candidate, if it judged one."""


def _case(candidate: str, file: Path | None, given: dict[str, str]) -> _Case:
    run = Path(candidate)
    if not manifest.is_run(run):
        if file is None:
            raise click.UsageError(
                f"{candidate} is no run directory, which would name its policy: give --policy"
            )
        return _Case(candidate, read_policy(file, given, candidate)[0])
    if given:
        raise click.UsageError(f"{candidate} has the settings of its run; give its patch to change them")
    whole(run)
    recorded, found = forgery.recorded_in(manifest.read(run)), forgery.Findings()
    policy = forgery.policy_in_force(recorded, file, found)
    if policy is None:
        raise PolicyError(next(iter([*found.problems["policy"], *found.unchecked.values()])))
    if any("=sha256:" in override for override in found.overrides):
        raise click.UsageError(
            f"the command line of {candidate} held text of the policy (--set), which no run keeps; give its patch, "
            "--policy and the same --set"
        )
    about = recorded.candidate or {}
    where = str(about.get("patch") or about.get("name") or candidate)
    if about and "adapter_of" not in about and Path(where).is_absolute() and not exists(where):
        raise AuditError(
            f"{where}, which {candidate} is about, is not there; name it where it is now, with --policy"
        )
    settle(policy, where)
    return _Case(where, policy, [m.name for m in report_at(run / REPORT).failures], about)


def _asked(case: _Case, names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in REPLIES:
            hint = suggestion(name, REPLIES) or f"; there are {', '.join(REPLIES)}"
            raise click.BadParameter(f"{name!r} is no share of replies{hint}", param_hint=OF)
    made = load_suite(case.policy.audit.suite).measurements if case.failed is None else case.failed
    return list(dict.fromkeys(names)) or [name for name in REPLIES if name in made]


def _lines(found: Sequence[Missed], most: int) -> Iterator[str]:
    for one in found:
        yield f"{one.measurement}: " + (
            sentence(one.reason)
            if one.reason
            else f"{len(one.replies)} of {one.prompts} prompts count against it"
        )
        for reply in one.replies[:most]:
            yield f"  {reply.key}  {sentence(reply.asked)}"
            yield f"      before  {sentence(reply.before)}"
            yield f"      after   {sentence(reply.after)}"
        if len(one.replies) > most:
            yield f"  and {len(one.replies) - most} more (--most)"
