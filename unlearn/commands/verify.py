"""`unlearn verify`: is a run directory still what the run wrote, and does its patch fit its model?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from unlearn import manifest
from unlearn.commands.common import load_model
from unlearn.commands.options import Place, as_json, model_options, quiet
from unlearn.commands.said import say
from unlearn.errors import PatchError, UnlearnError
from unlearn.files import read_bytes
from unlearn.report import Report
from unlearn.run_dir import PATCH
from unlearn.shown import shown

FAILED = 3
REPORT = "report.json"


@click.command(short_help="Re-hash a run directory and its patch.")
@click.argument("run", type=Place(exists=True, file_okay=False))
@click.option("--policy", type=Place(), help="Check as well that this is the run's policy.")
@click.option("--model", help="The base model, where it now lies elsewhere.")
@click.option("--files-only", is_flag=True, help="Do not load the model.")
@model_options
@as_json
@quiet
def verify(
    run: Path,
    policy: Path | None,
    model: str | None,
    files_only: bool,
    device: str,
    dtype: str,
    trust_remote_code: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Re-hash a RUN directory against its manifest, and its patch against the base model's weights.

    The exit code is 3 if anything differs. The measurements themselves are repeated by `unlearn audit`.

    \b
    Examples:
        unlearn verify runs/first
        unlearn verify runs/first --files-only --json
    """
    recorded = manifest.read(run)
    checks: dict[str, list[str]] = {"files": manifest.changes(run, recorded)}
    if REPORT in recorded["files"] or "times" in recorded:  # a trace has neither
        checks["report"] = _report(run, recorded)
    if policy is not None:
        same = manifest.sha256_of_file(policy) == recorded["policy"]["sha256"]
        checks["policy"] = [] if same else [f"{policy} is not the policy of this run"]
    # An audit of a stranger's model, or a trace, has none.
    if ("patch" in recorded or (run / PATCH).exists()) and not files_only:
        name = model or recorded["base"]["name"]
        checks["weights"] = _weights(run, name, device, dtype, trust_remote_code, quiet)
    failed = any(checks.values())
    if as_json:
        say(json.dumps({"verified": not failed, "problems": checks}, indent=2))
    else:
        for name, problems in checks.items():
            for i, problem in enumerate(problems or ["ok"]):
                say(shown(f"{'' if i else name:<8} {problem}"))
        say(f"{run}: " + ("something differs from what the run wrote" if failed else "verified"))
    return FAILED if failed else 0


def _report(run: Path, recorded: dict[str, object]) -> list[str]:
    try:
        report = Report.from_json(read_bytes(run / REPORT))
    except UnlearnError as error:
        return [f"report.json: {error}"]
    known = {key: value for key, value in recorded.items() if key != "files"}
    return [] if report.manifest == known else ["report.json was written for another manifest"]


def _weights(
    run: Path, name: str, device: str, dtype: str, trust_remote_code: bool, quiet: bool
) -> list[str]:
    from unlearn.patch import Patch

    try:
        patch = Patch.load(run / PATCH)
    except PatchError as problem:
        return [str(problem)]
    model = load_model(name, device, dtype, trust_remote_code, quiet, patch)
    try:
        with model.patched(patch):
            return []
    except UnlearnError as error:
        return [str(error)]
