"""`unlearn apply`: from a policy to a verdict."""

from __future__ import annotations

import json
import logging
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unlearn.commands.common import (
    base_of,
    cache_for,
    command_line,
    device_in_words,
    known_audit,
    load_model,
    log_to,
    read_by,
    settle,
)
from unlearn.commands.options import (
    Place,
    as_json,
    force,
    model_options,
    overrides,
    policy_overrides,
    quiet,
    suite,
)
from unlearn.commands.outcome import (
    Stopwatch,
    Texts,
    facts_known,
    show_text,
    tell,
    texts_of,
    write_outcome,
    written,
)
from unlearn.commands.said import warn
from unlearn.files import sha256_of_file
from unlearn.policy import Policy
from unlearn.policy.file import load_policy
from unlearn.progress import progress_for
from unlearn.report import Report
from unlearn.runs import manifest
from unlearn.runs.folder import PATCH, check_target, patch_of, whole_folder
from unlearn.runs.sealed import whole

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Requests
    from unlearn.patch import Patch
    from unlearn.progress import Progress
    from unlearn.store import Store

log = logging.getLogger("unlearn")


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
    "--tune",
    type=click.IntRange(min=1),
    metavar="TRIALS",
    help="First search better settings on validation prompts; asked again, the search goes on.",
)
@click.option("--no-cache", is_flag=True, help="Neither read nor write cached statistics and measurements.")
@suite
@policy_overrides
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
    tune: int | None,
    no_cache: bool,
    model: str | None,
    method: str | None,
    settings: tuple[str, ...],
    suite: str | None,
    device: str,
    dtype: str,
    trust_remote_code: bool,
    show_text: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Edit a model as POLICY says, measure it before and after, and give a verdict.

    Writes a run directory: manifest.json, patch.safetensors, log.txt and the report as report.json, report.html,
    report.md, junit.xml and model-card.md; or nothing at all if anything goes wrong on the way. Only you can read the
    files. The exit code is 3 if the edited model misses a limit of the policy.
    With --onto, policies are applied one after another: the audit compares the unedited model with the sum. The model
    is loaded in the dtype of the earlier run, where that is narrower than the checkpoint's.

    \b
    Examples:
        unlearn apply policies/demo.yaml
        unlearn apply policies/demo.yaml --method rome --out runs/rome
        unlearn apply policy.yaml --model Qwen/Qwen2.5-7B-Instruct --save-model
        unlearn apply second.yaml --onto runs/first
        unlearn apply policy.yaml --tune 40
        unlearn apply policies/demo.yaml --set audit.limits.leak.cloze=0.05 --json
    """
    loaded = load_policy(policy, overrides(model, method, settings, suite))
    source = manifest.Source.of(policy)
    settle(loaded)
    known_audit(loaded)
    options = (device, dtype, trust_remote_code, quiet)
    target = out or default_folder(loaded)
    sources = read_by(loaded, policy, onto)
    if dry_run:
        check_target(target, force, sources)
        from unlearn.commands.plan import tell_plan

        earlier = None if onto is None else _earlier(onto)[0]
        found = load_model(loaded.model, *options, patch=earlier)
        return tell_plan(loaded, found, as_json, earlier, show_text)
    with whole_folder(target, force, sources, private=True) as folder, log_to(folder / "log.txt"):
        report, texts = _run(loaded, source, folder, options, save_model, no_cache, onto, tune)
        write_outcome(folder, report, texts if show_text else None)
    written(target)
    if not (quiet or as_json):
        for warning in report.manifest["patch"]["header"].get("warnings", ()):
            warn(warning)
    return tell(report, as_json, target)


def default_folder(policy: Policy) -> Path:
    """Return runs/NAME-METHOD-TIME; the time keeps one run from meeting another."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", policy.name)
    return Path("runs") / f"{name}-{policy.method.name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _earlier(onto: Path) -> tuple[Patch, dict[str, str]]:
    """Read the patch of a run directory or a file, and say which it was."""
    from unlearn.patch import Patch

    whole(onto)
    file = patch_of(onto)
    return Patch.load(file), {"path": str(onto), "sha256": sha256_of_file(file)}


def _run(
    policy: Policy,
    source: manifest.Source,
    folder: Path,
    options: tuple[str, str, bool, bool],
    save_model: bool,
    no_cache: bool,
    onto: Path | None,
    tune: int | None,
) -> tuple[Report, Texts]:
    from unlearn.audit import pipeline
    from unlearn.commands.observing import compared_with, kept_in
    from unlearn.edit.pipeline import allowed, edit, resolve, settings_for

    cache = cache_for(no_cache)
    progress = progress_for(options[-1])
    watch = Stopwatch()
    earlier, origin = (None, None) if onto is None else _earlier(onto)
    with watch.step("load"):
        model = load_model(policy.model, *options, patch=earlier)
        allowed(model, policy.model_copy(update={"method": settings_for(model, policy)}), earlier)
    with watch.step("resolve"):
        requests = resolve(model, policy, progress)
    log.info(facts_known({fact.id: fact.known for fact in requests.facts}))
    tuned = None
    if tune is not None:
        with watch.step("tune"):
            tuned, requests = _tuned(
                model, requests, tune, cache, folder, progress, options[-1], earlier, origin
            )
        policy = requests.policy
    with watch.step("edit"):
        patch = edit(model, requests, cache=cache, progress=progress, earlier=earlier)
        patch.save(folder / PATCH)
    with watch.step("audit before"):
        before, control = compared_with(model, requests, options, cache, progress)
    with watch.step("audit after"):
        kept = kept_in(cache, model, requests)
        findings = pipeline.audit(model, patch, requests, progress, before, control, kept)
    if save_model:
        with watch.step("save model"):
            model.save(folder / "model", patch)
    about: dict[str, Any] = {
        "base": base_of(model),
        "patch": {
            "sha256": sha256_of_file(folder / PATCH),
            "header": manifest.textless(patch.header),
        },
        "hardware": manifest.hardware(device_in_words(model), str(model.dtype).removeprefix("torch.")),
        "facts": {"total": len(requests.facts), "known": sum(fact.known for fact in requests.facts)},
        "times": watch.described(),
    }
    if origin is not None:
        about["onto"] = origin
    if tuned is not None:
        about["tuning"] = tuned
    described = manifest.describe(policy, source, command_line(), **about)
    report = Report.of(
        findings.measurements, findings.not_tested, described, findings.facts, findings.drawings
    )
    return report, texts_of(requests)


def _tuned(
    model: EditableModel,
    requests: Requests,
    trials: int,
    cache: Store | None,
    folder: Path,
    progress: Progress,
    quiet: bool,
    earlier: Patch | None,
    onto: dict[str, str] | None,
) -> tuple[dict[str, Any], Requests]:
    """Search, write tuning.json, show the Pareto table, and put the chosen settings into the policy."""
    from rich.console import Console

    from unlearn.search.tune import pareto, tune

    found = tune(model, requests, trials, cache, progress, earlier, onto)
    (folder / "tuning.json").write_text(json.dumps(found.described(), indent=2) + "\n", encoding="utf-8")
    if not quiet:
        Console(stderr=True, highlight=False).print(pareto(found))
    short = {key: value for key, value in found.described().items() if key != "trials"}
    return {**short, "trials": len(found.trials)}, requests.under(method=found.settings)
