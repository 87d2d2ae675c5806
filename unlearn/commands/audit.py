"""`unlearn audit`: judge an edited model, by this tool or any other, against the model that it came from."""

from __future__ import annotations

from pathlib import Path

import click

from unlearn.audit.known import known_audit
from unlearn.commands.common import command_line, means_of, read_policy, same_policy
from unlearn.commands.options import Place, as_json, audit_overrides, force, model_options, quiet
from unlearn.commands.said import show_text, tell, written
from unlearn.files import at_home
from unlearn.order import Order, Outcome, Placement
from unlearn.policy.paths import read_by
from unlearn.run import in_folder, judge
from unlearn.runs import manifest
from unlearn.runs.log import warned
from unlearn.runs.sealed import whole


@click.command(short_help="Judge any edited model by a policy.")
@click.argument("candidate")
@click.option("--policy", "-p", type=Place(), required=True, help="What the candidate is judged by.")
@click.option("--out", type=Place(), help="Write a run directory with the report.")
@click.option(
    "--no-cache",
    is_flag=True,
    help="Measure everything anew, and keep nothing for an interrupted audit to go on from.",
)
@audit_overrides
@model_options
@show_text
@force
@as_json
@quiet
def audit(
    candidate: str,
    policy: Path,
    out: Path | None,
    no_cache: bool,
    given: dict[str, str],
    placement: Placement,
    show_text: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Measure CANDIDATE against the policy's unedited model, and give a verdict.

    CANDIDATE is a run directory, a patch file, a model folder, a LoRA adapter's folder as peft writes it (for the
    policy's model), or a hub id, edited or trained by anything.
    The unedited model is the policy's `model` (or --model). The exit code is 3 if a limit is missed.
    An audit that was interrupted goes on where it stopped when it is started again.

    \b
    Examples:
        unlearn audit runs/first --policy policies/demo.yaml
        unlearn audit edited-model --policy policies/demo.yaml --suite full --out runs/audit
        unlearn audit refusal-lora --policy policies/demo.yaml --suite my-suite.yaml
        unlearn audit someone/scrubbed-model --policy policy.yaml --model someone/base-model --json
    """
    candidate = at_home(candidate)
    loaded, source = read_policy(policy, given, candidate)
    known_audit(loaded)
    path = Path(candidate)
    recorded = whole(path) if path.is_file() or manifest.is_run(path) else None
    if recorded is not None and path.is_dir():
        same_policy(recorded, policy, source.sha256)
    order = Order(loaded, source, command_line())

    def work(_folder: Path | None = None) -> Outcome:
        return judge(order, candidate, means_of(placement, no_cache, quiet))

    if out is None:
        if show_text:
            raise click.UsageError("--show-text is about report.html, which is written only with --out")
        with warned(quiet or as_json):
            outcome = work()
        return tell(outcome.report, as_json, None)
    sources = read_by(loaded, policy, candidate)
    report = in_folder(out, sources, work, force, show_text).report
    written(out)
    return tell(report, as_json, out)
