"""`unlearn verify`: is a run directory still what the run wrote, and do its parts agree with each other?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unlearn.commands import forged_patch, forgery
from unlearn.commands.options import Place, as_json, model_options, quiet, tokenizer_elsewhere
from unlearn.commands.report import report_at
from unlearn.commands.said import FAILED, PASSED, say
from unlearn.errors import PatchError, UnlearnError
from unlearn.files import sha256_of_file
from unlearn.loaded import load_model
from unlearn.order import Placement
from unlearn.policy import Policy
from unlearn.progress import progress_for
from unlearn.report import Report
from unlearn.runs import manifest
from unlearn.runs.folder import PATCH
from unlearn.runs.sealed import REPORT, changes, is_trace
from unlearn.shown import shown

if TYPE_CHECKING:
    from unlearn.patch import Patch


@click.command(short_help="Check a run directory for anything that was changed or forged.")
@click.argument("run", type=Place(exists=True, file_okay=False))
@click.option(
    "--policy",
    type=Place(True, dir_okay=False),
    help="The run's policy, where its file has moved or changed.",
)
@click.option("--model", help="The base model, where it now lies elsewhere.")
@tokenizer_elsewhere
@click.option("--files-only", is_flag=True, help="Do not load the model.")
@model_options
@as_json
@quiet
def verify(
    run: Path,
    policy: Path | None,
    model: str | None,
    tokenizer: str | None,
    files_only: bool,
    placement: Placement,
    as_json: bool,
    quiet: bool,
) -> int:
    """Check a RUN directory against its manifest, its policy, its own numbers, and the base model's weights.

    Hashes of every file; documents rendered again; verdict, intervals and shares from the counts behind them; limits
    from the policy; the patch's length on the model. The exit code is 3 if anything differs. What could not be
    checked is listed. The measurements themselves are repeated by `unlearn audit`.

    \b
    Examples:
        unlearn verify runs/first
        unlearn verify runs/first --policy policies/demo.yaml
        unlearn verify runs/first --files-only --json
    """
    recorded = manifest.read(run)
    found = forgery.Findings({"files": changes(run, recorded)})
    known = _report(run, recorded, found)
    if known is not None:
        typed, report = known
        in_force = forgery.policy_in_force(typed, policy, found)
        forgery.of_numbers(typed, report, in_force, found)
        forgery.of_documents(run, typed, report, found)
        patch = _patch(run, typed, report, in_force, found)
        if not (files_only or found.problems.get("patch")):
            name, apart = model or typed.base.name, tokenizer or typed.base.tokenizer
            loaded = load_model(name, placement, patch, progress_for(quiet), apart)
            found.problems["weights"] = list(forged_patch.of_weights(typed, report, patch, loaded))
        else:
            found.unchecked["weights"] = "--files-only" if files_only else "the patch is not the run's"
        if typed.candidate is not None:
            found.unchecked["candidate"] = "what was audited is not loaded; `unlearn audit` measures it anew"
    elif policy is not None and sha256_of_file(policy) != recorded["policy"]["sha256"]:
        found.problems["policy"] = [f"{policy} is not the policy of this run"]
    failed = any(found.problems.values())
    if as_json:
        said = {
            "verified": not failed,
            "problems": found.problems,
            "not_checked": found.unchecked,
            "overrides": found.overrides,
        }
        say(json.dumps(said, indent=2))
    else:
        _tell(run, found, failed)
    return FAILED if failed else PASSED


def _tell(run: Path, found: forgery.Findings, failed: bool) -> None:
    for name, problems in found.problems.items():
        whole = "not checked" if name in found.unchecked else "ok"
        for label, line in zip((name, *[""] * len(problems)), problems or [whole], strict=False):
            say(shown(f"{label:<9} {line}"))
    if found.overrides:
        say(shown(f"not the policy's own, by the run's command line: {' '.join(found.overrides)}"))
    for name, reason in found.unchecked.items():
        say(shown(f"not checked: {name}: {reason}"))
    say(f"{run}: " + ("something differs from what the run wrote" if failed else "verified"))


def _report(
    run: Path, recorded: Mapping[str, Any], found: forgery.Findings
) -> tuple[forgery.Recorded, Report] | None:
    """The typed manifest and the report; None for a trace, which has no report, and where one cannot be read."""
    if is_trace(recorded):
        found.unchecked["report"] = "a trace edits and judges nothing"
        return None
    problems = found.problems["report"] = []
    try:
        report, typed = report_at(run / REPORT), forgery.recorded_in(recorded)
    except UnlearnError as problem:
        problems.append(str(problem))
        return None
    if report.manifest != {key: value for key, value in recorded.items() if key != "files"}:
        problems.append(f"{REPORT} was written for another manifest")
    return typed, report


def _patch(
    run: Path, recorded: forgery.Recorded, report: Report, policy: Policy | None, found: forgery.Findings
) -> Patch | None:
    """The run's patch; None where an audit of something else has none, or it cannot be read."""
    file = run / PATCH
    if recorded.patch is None and not file.exists():
        return None
    from unlearn.patch import Patch

    problems = found.problems["patch"] = []
    try:
        patch = Patch.load(file)
    except PatchError as problem:
        problems.append(str(problem))
        return None
    problems += forged_patch.of_patch(recorded, report, patch, sha256_of_file(file), policy)
    return patch
