"""From a policy to a verdict: the one place where loading, resolving, editing, auditing and the manifest meet.

The commands and `import unlearn` call what is here. Importing it loads no torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from unlearn.files import at_home, sha256_of_file
from unlearn.policy import Policy
from unlearn.policy.file import load_policy
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.report import Report
from unlearn.runs import manifest
from unlearn.runs.folder import PATCH, patch_of, whole_folder
from unlearn.runs.log import log_to
from unlearn.runs.outcome import Stopwatch, write_outcome
from unlearn.runs.sealed import whole
from unlearn.runs.sources import read_by
from unlearn.store import Store, usual_cache

if TYPE_CHECKING:
    from unlearn.audit.pipeline import Findings
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Requests
    from unlearn.patch import Patch
    from unlearn.report.html.page import FactText

log = logging.getLogger("unlearn")


@dataclass(frozen=True)
class Placement:
    """Where a model is put, and in which dtype it computes."""

    device: str = "auto"
    """``auto`` (CUDA if there is one), ``cpu``, ``cuda``, ``cuda:1`` ..."""
    dtype: str = "auto"
    """``auto`` (float32 on a CPU, the checkpoint's elsewhere), ``float32``, ``bfloat16``, ``float16``."""
    trust_remote_code: bool = False
    """Run code that comes with a model."""


def _unsaid(sentence: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Means:
    """What a run works with, besides what it is about."""

    placement: Placement = Placement()
    cache: Store | None = None
    """Where statistics and measurements are kept for later runs; None for nowhere."""
    progress: Progress = NO_PROGRESS
    tell: Callable[[str], None] = _unsaid
    """Is told how long the audit will take, before it begins."""


@dataclass(frozen=True)
class Order:
    """What is to be done, and who asked."""

    policy: Policy
    source: manifest.Source
    """Where the policy was read from."""
    argv: tuple[str, ...] = ()
    """The words of the command line, for the manifest."""
    onto: Path | None = None
    """An earlier run or patch of the same model, to build on."""
    save_model: bool = False
    """Write the edited model into the run directory as well."""


@dataclass(frozen=True)
class Earlier:
    """A patch that an edit builds on."""

    patch: Patch
    origin: Mapping[str, str]
    """``path`` and ``sha256``."""

    @classmethod
    def read(cls, place: Path) -> Earlier:
        """Read the patch of a run directory or a file.

        Raises:
            UnlearnError: the run directory is not as its run left it.
            PatchError: the patch cannot be read.
        """
        from unlearn.patch import Patch

        whole(place)
        file = patch_of(place)
        return cls(Patch.load(file), {"path": str(place), "sha256": sha256_of_file(file)})


@dataclass(frozen=True)
class Outcome:
    """A report, and the requests that it is about."""

    report: Report
    requests: Requests

    @property
    def texts(self) -> dict[str, FactText]:
        """By fact id, what a page may show of the facts where it was asked to."""
        from unlearn.report.html.page import FactText

        return {fact.id: FactText(fact.subject, fact.relation, fact.answers) for fact in self.requests.facts}


class Search(Protocol):
    """Looks for better settings of a policy's method before the edit."""

    def __call__(
        self, model: EditableModel, requests: Requests, earlier: Earlier | None, folder: Path
    ) -> tuple[Mapping[str, object], Requests]:
        """Return what was found, for the manifest, and the requests under the chosen settings."""


def load_model(
    name: str,
    placement: Placement = Placement(),  # noqa: B008 - frozen
    patch: Patch | None = None,
    progress: Progress = NO_PROGRESS,
) -> EditableModel:
    """Load a model that can be edited.

    Args:
        name: ``embedded``, a local folder, a GGUF file or a hub id.
        placement: device and dtype, and whether code that comes with the model is run.
        patch: is to go on the model, which is then loaded in the dtype that the patch was made in.
        progress: where to show it.

    Raises:
        ModelError: it cannot be found, read, or edited.
        PolicyError: a device or dtype of no such name.

    Example:
        >>> import unlearn
        >>> unlearn.load_model("embedded").name
        'embedded'
    """
    from transformers.utils import logging as chatter

    from unlearn.model.editable import EditableModel

    # The environment does the same, unless transformers was imported before.
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    with progress.step(f"Loading {name}"):
        made_in = None if patch is None else patch.storage_dtype
        return EditableModel.load(
            name, placement.device, placement.dtype, placement.trust_remote_code, made_in
        )


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

    Example:
        >>> import unlearn
        >>> report = unlearn.run("policies/demo.yaml", out="runs/first")
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
        target: the run directory.
        sources: what the work reads, and must not be written to.
        work: is given the folder to write into.
        force: replace an earlier run directory.
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
    from unlearn.edit.pipeline import allowed, edit, resolve, settings_for

    policy, watch = order.policy, Stopwatch()
    earlier = None if order.onto is None else Earlier.read(order.onto)
    sofar = None if earlier is None else earlier.patch
    with watch.step("load"):
        model = load_model(policy.model, means.placement, sofar, means.progress)
        allowed(model, policy.model_copy(update={"method": settings_for(model, policy)}), sofar)
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
            model.save(folder / "model", patch)
    made = {"sha256": sha256_of_file(folder / PATCH), "header": manifest.textless(patch.header)}
    about = {**_about(model, requests, watch, "patch", made), **notes}
    # A search has chosen other settings than the policy's own.
    in_force = policy if search is None else requests.policy
    described = manifest.describe(in_force, order.source, order.argv, **about)
    return Outcome(_report(findings, described), requests)


def judge(order: Order, candidate: str, means: Means) -> Outcome:
    """Audit a candidate by a policy.

    Args:
        order: the policy.
        candidate: a run directory, a patch, a model's folder or hub id, or an adapter of the policy's model.
        means: what it is done with.
    """
    from unlearn.edit.elicit import resolve
    from unlearn.patch import Patch

    policy, watch = order.policy, Stopwatch()
    file = patch_of(Path(candidate))
    patch = Patch.load(file) if file.is_file() else None
    judged: Patch | EditableModel
    said: dict[str, object]
    with watch.step("load"):
        base = load_model(policy.model, means.placement, patch, means.progress)
        if patch is not None:
            judged, said = patch, {"patch": candidate, "sha256": sha256_of_file(file)}
        else:
            # At once, so that a candidate that cannot be loaded is noticed before the base model is measured.
            judged, said = _loaded(candidate, policy, base, means)
    with watch.step("resolve"):
        requests = resolve(base, policy, means.progress)
    findings = _measured(base, judged, requests, means, watch)
    about = _about(base, requests, watch, "candidate", said)
    return Outcome(_report(findings, manifest.describe(policy, order.source, order.argv, **about)), requests)


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
        means: cache and progress; by default nothing is kept and nothing shown.

    Returns:
        The report, without a manifest: that belongs to a run.

    Raises:
        AuditError: the two models cannot be compared.
        ModelError: the patch was made for other weights, or the control cannot be loaded.

    Example:
        >>> import unlearn
        >>> policy = unlearn.load_policy("policies/demo.yaml")
        >>> model = unlearn.load_model(policy.model)
        >>> requests = unlearn.resolve(model, policy)
        >>> report = unlearn.audit(model, unlearn.edit(model, requests), requests)
        >>> report.passed, report.failures
        (True, ())
    """
    return _report(_measured(model, candidate, requests, means, Stopwatch()), {})


def _measured(
    model: EditableModel, candidate: Patch | EditableModel, requests: Requests, means: Means, watch: Stopwatch
) -> Findings:
    """The unedited model and the control first, then the candidate."""
    from unlearn.audit import pipeline
    from unlearn.audit.compared import compared_with, kept_in
    from unlearn.audit.control import control_of
    from unlearn.patch import Patch

    judged = candidate if isinstance(candidate, Patch) else lambda: nullcontext(candidate)
    cache, progress, name = means.cache, means.progress, control_of(requests.policy)
    with watch.step("audit before"):
        # At once, so that a control that cannot be loaded is noticed before anything is measured.
        control = None if name is None else load_model(name, _beside(model, means), progress=progress)
        before, never_knew = compared_with(model, control, requests, cache, progress, means.tell)
    with watch.step("audit after"):
        kept = kept_in(cache, model, requests)
        return pipeline.audit(model, judged, requests, progress, before, never_knew, kept)


def _beside(model: EditableModel, means: Means) -> Placement:
    """Where a second model is put: `auto` would follow what it was saved in, and not what the first computes in."""
    return replace(means.placement, dtype=str(model.dtype))


def _loaded(
    candidate: str, policy: Policy, base: EditableModel, means: Means
) -> tuple[EditableModel, dict[str, object]]:
    """Load a candidate that is a whole model, or an adapter of the policy's model; and say what it is."""
    from unlearn.model.about import base_of
    from unlearn.model.merged import CONFIG, WEIGHTS, is_adapter, with_adapter

    folder = Path(candidate)
    if not is_adapter(folder):
        edited = load_model(candidate, _beside(base, means), progress=means.progress)
        return edited, base_of(edited)
    # A copy of its own: the unedited model is needed as it is.
    edited = with_adapter(load_model(policy.model, means.placement, progress=means.progress), folder)
    files = {name: sha256_of_file(folder / name) for name in (CONFIG, WEIGHTS)}
    return edited, {**base_of(edited), "adapter_of": policy.model, "adapter": files}


def _about(
    model: EditableModel, requests: Requests, watch: Stopwatch, kind: str, judged: Mapping[str, object]
) -> dict[str, object]:
    """What a manifest says besides the policy: of the model, of the patch or the candidate, and of the machine."""
    from unlearn.model.about import base_of, device_in_words, dtype_in_words

    return {
        "base": base_of(model),
        kind: judged,
        "hardware": manifest.hardware(device_in_words(model), dtype_in_words(model)),
        "facts": {"total": len(requests.facts), "known": sum(fact.known for fact in requests.facts)},
        "times": watch.described(),
    }


def _report(findings: Findings, described: Mapping[str, object]) -> Report:
    return Report.of(findings.measurements, findings.not_tested, described, findings.facts, findings.drawings)
