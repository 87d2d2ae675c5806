"""`unlearn apply`: from a policy to a verdict."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unlearn.audit.known import known_audit
from unlearn.commands.common import command_line, means_of, read_policy, run_folder
from unlearn.commands.options import Place, as_json, audit_overrides, force, model_options, no_cache, quiet
from unlearn.commands.said import show_text, tell, warn, written
from unlearn.errors import PolicyError
from unlearn.loaded import model_or_outline
from unlearn.order import Earlier, Means, Order, Outcome, Placement, Search
from unlearn.policy.paths import read_by
from unlearn.progress import progress_for
from unlearn.run import apply as carry_out
from unlearn.run import in_folder
from unlearn.runs.folder import check_target

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Requests


@click.command(short_help="Edit a model, measure it before and after, give a verdict.")
@click.argument("policy", type=Place())
@click.option("--out", type=Place(), help="The run directory [default: runs/NAME-METHOD-TIME].")
@click.option(
    "--save-model", is_flag=True, help="Write the edited model to model/ in the run directory as well."
)
@click.option(
    "--onto",
    type=Place(),
    metavar="RUN_OR_PATCH",
    help="Build on an earlier run or patch of the same model; the result holds both.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, with estimates; write nothing.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="TFLOPS",
    help="With --dry-run: reckon times at so many 10^12 operations a second, and not at what this machine does.",
)
@click.option(
    "--tune",
    type=click.IntRange(min=1),
    metavar="TRIALS",
    help="First search better settings on validation prompts; asked again, the search goes on.",
)
@no_cache
@audit_overrides
@model_options
@show_text
@force
@as_json
@quiet
def apply(
    policy: Path,
    out: Path | None,
    save_model: bool,
    onto: Path | None,
    dry_run: bool,
    rate: float | None,
    tune: int | None,
    no_cache: bool,
    given: dict[str, str],
    placement: Placement,
    show_text: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Edit a model as POLICY says, measure it before and after, and give a verdict.

    Writes a run directory: manifest.json, patch.safetensors, log.txt and the report as report.json, report.html,
    report.md, junit.xml and model-card.md; or nothing at all if anything goes wrong on the way. Only you can read the
    files. The exit code is 3 if the edited model misses a limit of the policy.
    --dry-run does without the weights of a model that has none here, or more than the memory holds.
    With --onto, policies are applied one after another: the audit compares the unedited model with the sum. The model
    is loaded in the dtype of the earlier run, where that is narrower than the checkpoint's.

    \b
    Examples:
        unlearn apply policies/demo.yaml
        unlearn apply policies/demo.yaml --method rome --out runs/rome
        unlearn apply policy.yaml --model Qwen/Qwen2.5-7B-Instruct --save-model
        unlearn apply policy.yaml --model FOLDER --dry-run --dtype bfloat16 --rate 400
        unlearn apply second.yaml --onto runs/first
        unlearn apply policy.yaml --tune 40
        unlearn apply policies/demo.yaml --set audit.limits.leak.cloze=0.05 --json
    """
    loaded, source = read_policy(policy, given)
    known_audit(loaded)
    target = out or run_folder(loaded, loaded.method.name)
    sources = read_by(loaded, policy, onto)
    _refuse_odd(dry_run, rate, tune)
    if dry_run:
        check_target(target, force, sources)
        from unlearn.commands.plan import tell_plan

        earlier = None if onto is None else Earlier.read(onto).patch
        found = model_or_outline(loaded.model, placement, earlier, progress_for(quiet), loaded.tokenizer)
        return tell_plan(loaded, found, as_json, earlier, show_text, rate and 1e12 * rate)
    order = Order(loaded, source, command_line(), onto, save_model)

    def work(folder: Path) -> Outcome:
        means = means_of(placement, no_cache, quiet)
        return carry_out(order, folder, means, None if tune is None else _search(tune, means, quiet))

    report = in_folder(target, sources, work, force, show_text).report
    written(target)
    if not (quiet or as_json):
        for warning in report.manifest["patch"]["header"].get("warnings", ()):
            warn(warning)
    return tell(report, as_json, target)


def _refuse_odd(dry_run: bool, rate: float | None, tune: int | None) -> None:
    if rate is not None and not (dry_run and math.isfinite(rate)):
        raise PolicyError("--rate reckons the times of a dry run, by a finite number; give --dry-run as well")
    if tune is not None and dry_run:
        raise PolicyError("a dry run does not plan the trials of --tune; leave one of them out")


def _search(trials: int, means: Means, quiet: bool) -> Search:
    """A search that writes tuning.json and shows the Pareto table."""

    def search(
        model: EditableModel, requests: Requests, earlier: Earlier | None, folder: Path
    ) -> tuple[dict[str, object], Requests]:
        from rich.console import Console

        from unlearn.search.tune import pareto, tune

        built_on = (None, None) if earlier is None else (earlier.patch, earlier.origin)
        found = tune(model, requests, trials, means.cache, means.progress, *built_on)
        described = found.described()
        (folder / "tuning.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        if not quiet:
            Console(stderr=True, highlight=False).print(pareto(found))
        return {**described, "trials": len(found.trials)}, requests.under(method=found.settings)

    return search
