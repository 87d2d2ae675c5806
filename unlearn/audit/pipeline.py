"""The audit: the unedited and the edited model, the same probes, and what must be said about both."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from torch import Tensor

from unlearn.audit import agreement, cost, drift, measures, recovery, scores, shares
from unlearn.audit.attacks.scene import Update
from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.observation import Observation
from unlearn.audit.observing import observe
from unlearn.audit.pair import Pair, asked_alike
from unlearn.audit.pieces import NO_PIECES, Kept, Pieces
from unlearn.audit.suite import Suite, load_suite
from unlearn.errors import AuditError
from unlearn.measurements import ROWS, SHARES, TOPICS, about_answers, named, place, row_of
from unlearn.model.editable import EditableModel
from unlearn.model.gguf import origin_of
from unlearn.model.requests import Fact, Requests
from unlearn.patch import Patch
from unlearn.policy import Policy
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.report import Drawing, FactRow, Measurement, Report

log = logging.getLogger("unlearn")

Opened = Callable[[], AbstractContextManager[EditableModel]]
"""Opens the edited model for a while; it may be opened more than once."""


@dataclass(frozen=True)
class Findings:
    """Everything that a report needs from an audit."""

    measurements: list[Measurement]
    facts: list[FactRow]
    not_tested: list[str]
    before: Observation
    """Of the unedited model, for a cache."""
    after: Observation
    """Of the edited model."""
    drawings: list[Drawing]
    """What the attacks have to show, by state."""

    def report(self, manifest: Mapping[str, object]) -> Report:
        """The report, with what its numbers are about."""
        return Report.of(self.measurements, self.not_tested, manifest, self.facts, self.drawings)


def not_tested(policy: Policy, known: Sequence[bool], suite: Suite) -> list[str]:
    """What the reader of the report must not take for granted.

    Args:
        known: of each fact, whether the unedited model knows it.
    """
    left_out = [row.name for row in ROWS if row.suite and row.name not in suite.measurements]
    found = [f"{name} (not in the suite {suite.name})" for name in left_out]
    if suite.makes("capability") and not policy.audit.tasks:
        found.append(f"capability ({named('capability').untested})")
    unknown = len(known) - sum(known)
    if unknown:
        found.append(f"{unknown} of {len(known)} facts, which the unedited model does not know")
    looked_at = {row.topic for row in ROWS if row.name in suite.measurements}
    return [*found, *(topic for topic in TOPICS if topic not in looked_at)]


def _unquantised(model: EditableModel) -> Iterator[str]:
    """That the unedited model was made from quantised weights, if it was: the original may know more."""
    origin = origin_of(model.model.config.to_dict())
    if origin is not None:
        yield f"the model before it was quantised: it was read from {origin.file} ({origin.quantisation})"
    if model.quantised is not None:
        yield f"the model before it was quantised: its matrices are in 4 bits ({model.quantised})"


def _untested(before: Observation, after: Observation, requests: Requests, suite: Suite) -> Iterator[str]:
    """What the suite makes, but neither the policy nor the unedited model gives anything for."""
    for row in SHARES:
        wanted = row.name in suite.measurements
        reason = shares.untested(row.name, before, after, requests.policy.audit) if wanted else None
        if reason is not None:
            yield f"{row.name} ({reason})"


def _unasked(measurements: Iterable[Measurement], after: Observation, facts: Sequence[Fact]) -> Iterator[str]:
    """Relations of the facts about which a measurement that was made says nothing."""
    for made in measurements:
        if made.after is None or not about_answers(made.name):
            continue
        missed = sorted({fact.relation for fact in facts} - shares.relations_asked(made.name, after, facts))
        if missed:
            yield f"{made.name} about {', '.join(f'relations.{name}' for name in missed)}"


def _behind_the_end(model: EditableModel) -> Iterator[str]:
    """What is written by a server that does not know the end of a turn, where that is no token."""
    if model.ends.text:
        yield f"what is written behind the end of a turn, {model.ends.text!r}, unless the server stops there"


def audit(
    model: EditableModel,
    candidate: Patch | Opened,
    requests: Requests,
    progress: Progress = NO_PROGRESS,
    before: Observation | None = None,
    control: Observation | None = None,
    kept: Kept | None = None,
) -> Findings:
    """Measure the unedited and the edited model and compare them.

    Args:
        candidate: a patch of it, or something that opens the edited model as a context manager. An edited model of the
            same vocabulary is asked with the unedited one's tokenizer, chat template and end tokens.
        before: an observation of the unedited model under the same requests and suite, if there is one already.
        control: an observation of a model that never knew the facts, if there is one.
        kept: gives the place where finished pieces of the edited model's observation are kept, so that an interrupted
            audit goes on from there.

    Returns:
        One measurement for everything the suite makes and everything the policy limits; what could not be measured
        is there as a failed one.

    Raises:
        AuditError: the two observations cannot be compared.
        ModelError: the patch was made for other weights.
    """
    suite = load_suite(requests.policy.audit.suite)
    if isinstance(candidate, Patch):
        model.accepts(candidate)
    opened: Opened = (lambda: model.patched(candidate)) if isinstance(candidate, Patch) else candidate
    if before is None:
        before = observe(model, requests, progress)
    pair = Pair(model, requests, suite, progress)
    change = cost.change_of_patch(model, candidate) if isinstance(candidate, Patch) else None
    # Now, while the weights are the original ones that the update is relative to.
    made = pair.weights(change) if change else {}
    seen: _Seen | None = None
    texts: list[drift.TextDrift] = []
    # One group at least, so that the edited model is opened even where there is no text.
    for group in list(drift.groups(pair.compared_rows, model.vocabulary)) or [[]]:
        old = [found.cpu() for found in drift.log_probs(model, group)]
        with opened() as edited, asked_alike(model, edited) as unasked:
            if seen is None:
                for what in unasked:
                    log.warning("not tested: %s", what)
                seen = _seen(pair, edited, candidate, change, kept, requests, progress)
                seen = seen._replace(brought=unasked)
            texts += _moved([] if pair.other_vocabulary(edited) else group, edited, old, progress)
    if seen is None:
        raise AuditError("the edited model was never opened")
    found = _findings(model, requests, made | seen.made | pair.text(texts), before, seen, control)
    seen.pieces.clear()
    return found


def _findings(
    model: EditableModel,
    requests: Requests,
    made: dict[str, Measurement],
    before: Observation,
    seen: _Seen,
    control: Observation | None,
) -> Findings:
    """What was measured so far, and all that follows from the observations."""
    policy, after = requests.policy, seen.after
    suite = load_suite(policy.audit.suite)
    made |= {m.name: m for m in _compared(before, after, control, requests, suite)}
    made |= {m.name: m for m in _unmade(made, requests, suite)}
    known = {fact.id: fact.known for fact in requests.facts}
    left = (
        _behind_the_end(model),
        _untested(before, after, requests, suite),
        _unasked(made.values(), after, requests.facts),
        _unquantised(model),
    )
    return Findings(
        measurements=sorted(
            (m.under(policy.audit.judge) for m in made.values()), key=lambda m: place(m.name)
        ),
        facts=measures.fact_rows(known, before, after),
        not_tested=[*seen.brought, *chain(*left), *not_tested(policy, tuple(known.values()), suite)],
        before=before,
        after=after,
        drawings=[*_drawings(before, after, control), *seen.drawings],
    )


class _Seen(NamedTuple):
    """What is found out about the edited model when it is first open."""

    after: Observation
    made: dict[str, Measurement]
    drawings: list[Drawing]
    pieces: Pieces
    """Of the observation, to be cleared once the audit is done."""
    brought: tuple[str, ...] = ()
    """What the candidate brings along and was not asked with."""


def _seen(
    pair: Pair,
    edited: EditableModel,
    candidate: Patch | Opened,
    change: cost.Change | None,
    kept: Kept | None,
    requests: Requests,
    progress: Progress,
) -> _Seen:
    """Observe the edited model, and compare its weights and hidden states with the unedited one's."""
    made: dict[str, Measurement] = {}
    if change is None:
        change, made = pair.between(edited)
    said = json.dumps(dict(candidate.header)) if isinstance(candidate, Patch) else ""
    update = Update(change.names, change.delta, said) if change and change.names else None
    pieces = kept(edited, said) if kept else NO_PIECES
    after = observe(edited, requests, progress, "after", update, pieces)
    moved, drawings = pair.hidden(edited, change)
    return _Seen(after, {**made, **moved}, drawings, pieces)


def _moved(
    group: Sequence[drift.Row], edited: EditableModel, old: Sequence[Tensor], progress: Progress
) -> list[drift.TextDrift]:
    """How far the edited model's next tokens are from the unedited one's, per text."""
    found = []
    with progress.step("Divergence", total=len(group)) as bar:
        for row, mine, new in zip(group, old, drift.log_probs(edited, group), strict=False):
            found.append(drift.text_drift(mine, new, row))
            bar.advance(1)
    return found


def _drawings(before: Observation, after: Observation, control: Observation | None) -> Iterator[Drawing]:
    for state, seen in (("before", before), ("after", after), ("control", control)):
        for attacked in seen.attacks.values() if seen else ():
            yield from (drawing.model_copy(update={"state": state}) for drawing in attacked.drawings)


def _compared(
    before: Observation,
    after: Observation,
    control: Observation | None,
    requests: Requests,
    suite: Suite,
) -> Iterator[Measurement]:
    if before.suite != after.suite:
        raise AuditError(
            f"before was measured with the suite {before.suite}, after with {after.suite}; measure both anew"
        )
    audit = requests.policy.audit
    for row in SHARES:
        if row.name in suite.measurements and shares.untested(row.name, before, after, audit) is None:
            yield measures.share(row.name, before, after, audit.limit, control, requests.about(row.group))
    yield agreement.agreement(before, after, audit.limit)
    for name in suite.attacks:
        yield recovery.attack(ATTACKS[name], before, after, control, audit, requests.facts)
    if suite.makes("capability"):
        for task in audit.task_names:
            yield scores.capability(task, before, after, audit.limit)
    if suite.makes("toxicity"):
        scorer = after.toxicity or before.toxicity
        name = scorer.scorer if scorer else audit.toxicity.rpartition("/")[2].replace(".", "-")
        yield from scores.toxicity(name, before, after, audit.limit, audit.seed)


def _unmade(made: dict[str, Measurement], requests: Requests, suite: Suite) -> Iterator[Measurement]:
    """What the policy itself sets a limit for, but nothing measured: a failed limit, never a missing row."""
    audit = requests.policy.audit
    for name, limit in audit.limits.items():
        if name in made or any(m.startswith(name + ".") for m in made):
            continue
        row = row_of(name)
        family = name.partition(".")[0]
        if not suite.makes(row.name if row is not None and row.suite else family):
            reason = f"the suite {suite.name} does not make this measurement; choose another audit.suite"
        elif family == "capability":
            reason = "the policy names no such task under audit.tasks"
        else:
            reason = "nothing that was measured has this name"
        yield Measurement.missing(name, reason, limit, unit="share" if row is None else row.unit)
