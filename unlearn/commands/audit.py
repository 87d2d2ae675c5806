"""`unlearn audit`: judge an edited model, by this tool or any other, against the model that it came from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
    same_policy,
    settle,
    warned,
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
from unlearn.commands.outcome import Stopwatch, Texts, show_text, tell, texts_of, write_outcome, written
from unlearn.files import at_home, sha256_of_file
from unlearn.policy import Policy
from unlearn.policy.file import load_policy
from unlearn.progress import progress_for
from unlearn.report import Report
from unlearn.runs import manifest
from unlearn.runs.folder import patch_of, whole_folder
from unlearn.runs.sealed import whole

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel


@click.command(short_help="Judge any edited model by a policy.")
@click.argument("candidate")
@click.option("--policy", "-p", type=Place(), required=True, help="What the candidate is judged by.")
@click.option("--out", type=Place(), help="Write a run directory with the report.")
@click.option(
    "--no-cache",
    is_flag=True,
    help="Measure everything anew, and keep nothing for an interrupted audit to go on from.",
)
@suite
@policy_overrides
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
    loaded = load_policy(policy, overrides(model, method, settings, suite))
    source = manifest.Source.of(policy)
    settle(loaded, candidate)
    known_audit(loaded)
    path = Path(candidate)
    recorded = whole(path) if path.is_file() or manifest.is_run(path) else None
    if recorded is not None and path.is_dir():
        same_policy(recorded, policy, source.sha256)
    options = (device, dtype, trust_remote_code, quiet)
    if out is None:
        if show_text:
            raise click.UsageError("--show-text is about report.html, which is written only with --out")
        with warned(quiet or as_json):
            report, _ = _judge(candidate, loaded, source, options, no_cache)
        return tell(report, as_json, None)
    sources = read_by(loaded, policy, candidate)
    with whole_folder(out, force, sources, private=True) as folder, log_to(folder / "log.txt"):
        report, texts = _judge(candidate, loaded, source, options, no_cache)
        write_outcome(folder, report, texts if show_text else None)
    written(out)
    return tell(report, as_json, out)


def _judge(
    candidate: str,
    policy: Policy,
    source: manifest.Source,
    options: tuple[str, str, bool, bool],
    no_cache: bool,
) -> tuple[Report, Texts]:
    from unlearn.audit import pipeline
    from unlearn.commands.observing import compared_with, kept_in
    from unlearn.edit.elicit import resolve
    from unlearn.patch import Patch

    cache = cache_for(no_cache)
    progress = progress_for(options[-1])
    watch = Stopwatch()
    path = Path(candidate)
    file = patch_of(path)
    patch = Patch.load(file) if file.is_file() else None
    judged: Patch | Callable[[], AbstractContextManager[EditableModel]]
    with watch.step("load"):
        base = load_model(policy.model, *options, patch=patch)
        if patch is not None:
            judged, about = patch, {"patch": candidate, "sha256": sha256_of_file(file)}
        else:
            # At once, so that a candidate that cannot be loaded is noticed before the base model is measured.
            edited, about = _loaded(candidate, policy, options, base)
            judged = lambda: nullcontext(edited)  # noqa: E731 - opened more than once
    with watch.step("resolve"):
        requests = resolve(base, policy, progress)
    with watch.step("audit before"):
        before, control = compared_with(base, requests, options, cache, progress)
    with watch.step("audit after"):
        kept = kept_in(cache, base, requests)
        findings = pipeline.audit(base, judged, requests, progress, before, control, kept)
    described = manifest.describe(
        policy,
        source,
        command_line(),
        base=base_of(base),
        candidate=about,
        hardware=manifest.hardware(device_in_words(base), str(base.dtype).removeprefix("torch.")),
        facts={"total": len(requests.facts), "known": sum(fact.known for fact in requests.facts)},
        times=watch.described(),
    )
    report = Report.of(
        findings.measurements, findings.not_tested, described, findings.facts, findings.drawings
    )
    return report, texts_of(requests)


def _loaded(
    candidate: str, policy: Policy, options: tuple[str, str, bool, bool], base: EditableModel
) -> tuple[EditableModel, dict[str, Any]]:
    """Load a candidate that is a whole model, or an adapter of the policy's model; and say what it is."""
    from unlearn.model.merged import CONFIG, WEIGHTS, is_adapter, with_adapter

    folder = Path(candidate)
    if not is_adapter(folder):
        device, _, trust, quiet = options
        # `auto` would follow what the candidate was saved in, and not what the unedited model computes in.
        edited = load_model(candidate, device, str(base.dtype), trust, quiet)
        return edited, base_of(edited)
    # A copy of its own: the unedited model is needed as it is.
    edited = with_adapter(load_model(policy.model, *options), folder)
    files = {name: sha256_of_file(folder / name) for name in (CONFIG, WEIGHTS)}
    return edited, {**base_of(edited), "adapter_of": policy.model, "adapter": files}
