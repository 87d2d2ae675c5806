"""From a policy to a verdict: the one place where loading, resolving, editing, auditing and the manifest meet.

The commands and `import unlearn` call what is here. Importing it loads no torch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unlearn.files import at_home, sha256_of_file
from unlearn.loaded import about_model, checkpoint_of, judged_of, load_model
from unlearn.order import Earlier, Means, Order, Outcome, Search
from unlearn.policy.file import load_policy
from unlearn.policy.paths import read_by
from unlearn.report import Report
from unlearn.runs import manifest
from unlearn.runs.folder import PATCH, whole_folder
from unlearn.runs.log import log_to
from unlearn.runs.outcome import Stopwatch, write_outcome
from unlearn.stages import curves, noted
from unlearn.store import usual_cache

if TYPE_CHECKING:
    from unlearn.audit.compared import Compared
    from unlearn.audit.pipeline import Findings
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Requests
    from unlearn.patch import Patch

log = logging.getLogger("unlearn")


def run(
    policy: str | Path,
    out: str | Path,
    *,
    overrides: Mapping[str, str] | None = None,
    onto: str | Path | None = None,
    save_model: bool = False,
    force: bool = False,
    means: Means | None = None,
) -> Report:
    """Edit a model as a policy says, measure it before and after, and write a run directory, as `unlearn apply` does.

    Args:
        policy: the file of the policy.
        out: the run directory; it appears whole, or not at all.
        overrides: values by dotted key, such as ``{"method.name": "rome"}``, in the place of the policy's own.
        onto: an earlier run or patch of the same model, to build on.
        save_model: write the edited model to ``model/`` in the run directory as well.
        force: replace an earlier run directory.
        means: device, cache and progress; by default the usual cache is used, and no progress is shown.

    Returns:
        The report. Its manifest has the words of the command line that does the same.

    Raises:
        PolicyError: the policy or the place is wrong; nothing was loaded or written.
        ModelError, PatchError, AuditError: the run could not be carried out; nothing was written.

    Examples:
        >>> import unlearn
        >>> report = unlearn.run("examples/forget.yaml", out="runs/first")
        >>> report.verdict
        'passed'
    """
    from unlearn.audit.known import known_audit

    file, target = Path(at_home(str(policy))), Path(at_home(str(out)))
    loaded = load_policy(file, overrides)
    earlier = None if onto is None else Path(at_home(str(onto)))
    words = ["apply", str(policy), "--out", str(out)]
    words += [word for key, value in (overrides or {}).items() for word in ("--set", f"{key}={value}")]
    words += [] if onto is None else ["--onto", str(onto)]
    words += ["--save-model"] * save_model + ["--force"] * force
    known_audit(loaded)
    order = Order(loaded, manifest.Source.of(file), tuple(words), earlier, save_model)
    chosen = means or Means(cache=usual_cache(log.warning))
    sources = read_by(loaded, file, earlier)
    return in_folder(target, sources, lambda folder: apply(order, folder, chosen), force).report


def in_folder(
    target: Path,
    sources: Iterable[Path | str | None],
    work: Callable[[Path], Outcome],
    force: bool = False,
    show_text: bool = False,
) -> Outcome:
    """Do some work in a run directory that appears whole or not at all, and write its outcome there.

    Args:
        sources: what the work reads, and must not be written to.
        work: is given the folder to write into.
        show_text: show subjects and answers in report.html.
    """
    with whole_folder(target, force, sources, private=True) as folder, log_to(folder / "log.txt"):
        outcome = work(folder)
        write_outcome(folder, outcome.report, outcome.texts if show_text else None)
    return outcome


def apply(order: Order, folder: Path, means: Means, search: Search | None = None) -> Outcome:
    """Edit the policy's model, write the patch, and audit it.

    Args:
        order: what is to be done.
        folder: where the patch is written, and the model if it is to be saved.
        means: what it is done with.
        search: looks for better settings first.
    """
    from unlearn.edit.allowed import allowed
    from unlearn.edit.pipeline import edit
    from unlearn.edit.requests.resolve import resolve
    from unlearn.model.exported import export

    policy, watch = order.policy, Stopwatch()
    earlier = None if order.onto is None else Earlier.read(order.onto)
    sofar = None if earlier is None else earlier.patch
    with watch.step("load"):
        model = load_model(policy.model, means.placement, sofar, means.progress, policy.tokenizer)
        allowed(model, policy, sofar, order.save_model)
    with watch.step("resolve"):
        requests = resolve(model, policy, means.progress)
    known = sum(fact.known for fact in requests.facts)
    log.info("%d of %d facts known to the unedited model", known, len(requests.facts))
    notes: dict[str, object] = {} if earlier is None else {"onto": dict(earlier.origin)}
    if search is not None:
        with watch.step("tune"):
            notes["tuning"], requests = search(model, requests, earlier, folder)
    with watch.step("edit"):
        patch = edit(model, requests, cache=means.cache, progress=means.progress, earlier=sofar)
        patch.save(folder / PATCH)
    findings = _measured(model, patch, requests, means, watch)
    if order.save_model:
        with watch.step("save model"):
            (folder / "model").mkdir()
            base = checkpoint_of(policy.model, means.placement, patch, policy.tokenizer)
            export(base, patch, folder / "model", means.progress)
    made = {"sha256": sha256_of_file(folder / PATCH), "header": manifest.textless(patch.header)}
    about = {**_about(model, requests, watch, "patch", made), **notes}
    # A search has chosen other settings than the policy's own.
    in_force = policy if search is None else requests.policy
    described = manifest.describe(in_force, order.source, order.argv, **about)
    grown = replace(findings, drawings=[*findings.drawings, *curves(noted(patch.header))])
    return Outcome(grown.report(described), requests)


def judge(order: Order, candidate: str, means: Means) -> Outcome:
    """Audit a candidate by a policy.

    Args:
        order: the policy.
        candidate: a run directory, a patch, a model's folder or hub id, or an adapter of the policy's model.
        means: what it is done with.
    """
    from unlearn.edit.requests.resolve import resolve

    policy, watch = order.policy, Stopwatch()
    with watch.step("load"):
        base, judged, said = judged_of(candidate, policy, means)
    with watch.step("resolve"):
        requests = resolve(base, policy, means.progress)
    findings = _measured(base, judged, requests, means, watch)
    about = _about(base, requests, watch, "candidate", said)
    described = manifest.describe(policy, order.source, order.argv, **about)
    return Outcome(findings.report(described), requests)


def audit(
    model: EditableModel,
    candidate: Patch | EditableModel,
    requests: Requests,
    means: Means = Means(),  # noqa: B008 - frozen
) -> Report:
    """Measure the unedited and the edited model, and the control if the policy has one, and judge by its limits.

    Args:
        model: the unedited one.
        candidate: a patch of it, or an edited model.
        requests: the policy with its answers (``resolve``).
        means: cache and progress; by default nothing is kept or shown.

    Returns:
        The report, without a manifest: that belongs to a run.

    Raises:
        AuditError: the two models cannot be compared.
        ModelError: the patch was made for other weights, or the control cannot be loaded.

    Examples:
        With ``model``, ``requests`` and ``patch`` of the examples of ``resolve`` and ``edit``:

        >>> report = unlearn.audit(model, patch, requests)
        >>> report.passed, report.failures
        (True, ())
    """
    return _measured(model, candidate, requests, means, Stopwatch()).report({})


@dataclass(frozen=True)
class Bench:
    """One model and what every audit asks of it, with what the unedited model said: several edits are tried on it."""

    model: EditableModel
    requests: Requests
    means: Means
    compared: Compared

    @classmethod
    def of(cls, model: EditableModel, requests: Requests, means: Means) -> Bench:
        """Observe the unedited model; the control, if the policy has one, is left out."""
        return cls(model, requests, means, unedited(model, requests, means, with_control=False))

    def tried(self, wanted: Requests, earlier: Patch | None = None) -> Tried:
        """Edit as some requests ask, on top of an earlier patch, and measure by those of the bench."""
        from unlearn.edit.pipeline import edit

        begin = time.monotonic()
        patch = edit(self.model, wanted, self.means.cache, self.means.progress, earlier=earlier)
        seconds = time.monotonic() - begin
        return Tried(patch, seconds, measured(self.model, patch, self.requests, self.means, self.compared))


class Tried(NamedTuple):
    """One edit of several."""

    patch: Patch
    seconds: float
    """Of the edit, without the audit."""
    findings: Findings


def _measured(
    model: EditableModel, candidate: Patch | EditableModel, requests: Requests, means: Means, watch: Stopwatch
) -> Findings:
    """The unedited model and the control first, then the candidate."""
    with watch.step("audit before"):
        compared = unedited(model, requests, means)
    with watch.step("audit after"):
        return measured(model, candidate, requests, means, compared)


def unedited(model: EditableModel, requests: Requests, means: Means, with_control: bool = True) -> Compared:
    """Observe what candidates are compared with: the unedited model, and the control if the policy has one."""
    from unlearn.audit.compared import compared_with
    from unlearn.audit.control import control_of

    name = control_of(requests.policy) if with_control else None
    # At once, so that a control that cannot be loaded is noticed before anything is measured.
    control = (
        None if name is None else load_model(name, means.placement.beside(model), progress=means.progress)
    )
    return compared_with(model, control, requests, means.cache, means.progress, means.announce)


def measured(
    model: EditableModel,
    candidate: Patch | EditableModel,
    requests: Requests,
    means: Means,
    compared: Compared,
) -> Findings:
    """Audit one candidate of several that are compared with the same unedited model (`unedited`)."""
    from unlearn.audit import pipeline
    from unlearn.audit.compared import kept_in
    from unlearn.patch import Patch

    judged = candidate if isinstance(candidate, Patch) else lambda: nullcontext(candidate)
    kept = kept_in(means.cache, model, requests)
    return pipeline.audit(model, judged, requests, means.progress, *compared, kept)


def _about(
    model: EditableModel, requests: Requests, watch: Stopwatch, kind: str, judged: Mapping[str, object]
) -> dict[str, object]:
    """What a manifest says besides the policy: of the model, of the patch or the candidate, and of the machine."""
    return {
        **about_model(model),
        kind: judged,
        "facts": {"total": len(requests.facts), "known": sum(fact.known for fact in requests.facts)},
        "times": watch.described(),
    }
