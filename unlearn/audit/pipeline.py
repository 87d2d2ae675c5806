"""The audit: the unedited and the edited model, the same probes, and what must be said about both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from unlearn.audit import drift, measures
from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.observation import Observation
from unlearn.audit.observing import observe
from unlearn.audit.probes import benign_lines, line_probes
from unlearn.audit.suite import MEASUREMENTS, Suite, load_suite
from unlearn.errors import AuditError
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy import EMBEDDED
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.report import Drawing, FactRow, Measurement

Opened = Callable[[], AbstractContextManager[EditableModel]]
"""Opens the edited model for a while; it may be opened more than once."""

NEVER_TESTED = (
    "other languages",
    "several questions in one conversation",
    "questions that need more than one step or ask in reverse",
    "adversarial prompts and prefixes",
    "recovery by fine-tuning",
    "recovery by quantisation or pruning of the weights",
    "what the hidden states still encode",
)
"""What no suite of this version looks at."""
OTHER_VOCABULARY = (
    "the two models do not share a vocabulary, so their next-token distributions cannot be compared"
)


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


def not_tested(requests: Requests, suite: Suite) -> list[str]:
    """What the reader of the report must not take for granted."""
    found = [f"{name} (not in the suite {suite.name})" for name in MEASUREMENTS if not suite.makes(name)]
    found += [
        f"attack.{name} (not in the suite {suite.name})" for name in ATTACKS if name not in suite.attacks
    ]
    if suite.makes("capability") and not requests.policy.audit.tasks:
        found.append("capability (the policy names no tasks)")
    unknown = sum(not fact.known for fact in requests.facts)
    if unknown:
        found.append(f"{unknown} of {len(requests.facts)} facts, which the unedited model does not know")
    return [*found, *NEVER_TESTED]


def audit(
    model: EditableModel,
    candidate: Patch | Opened,
    requests: Requests,
    progress: Progress = NO_PROGRESS,
    before: Observation | None = None,
    control: Observation | None = None,
) -> Findings:
    """Measure the unedited and the edited model and compare them.

    Args:
        model: the unedited model.
        candidate: a patch of it, or something that opens the edited model as a context manager.
        requests: the policy and its resolved facts.
        progress: where to show the steps.
        before: an observation of the unedited model under the same requests and suite, if there is one already.
        control: an observation of a model that never knew the facts, if there is one.

    Returns:
        One measurement for everything the suite makes and everything the policy limits; what could not be measured
        is there as a failed one.

    Raises:
        AuditError: the two observations cannot be compared.
    """
    policy = requests.policy
    suite = load_suite(policy.audit.suite)
    opened: Opened = (lambda: model.patched(candidate)) if isinstance(candidate, Patch) else candidate
    if before is None:
        before = observe(model, requests, progress)
    made: dict[str, Measurement] = {}
    limits = policy.audit.limit
    wants_text = suite.makes("drift.kl") or suite.makes("drift.perplexity")
    rows: list[drift.Row] = []
    about = ""
    if wants_text:
        try:
            rows, about = _held_out_rows(model, requests, suite, progress)
        except AuditError as problem:
            for name in ("drift.kl", "drift.perplexity"):
                made[name] = Measurement.missing(name, str(problem), limits(name))
    after: Observation | None = None
    texts: list[drift.TextDrift] = []
    vocabulary = int(model.model.config.get_text_config().vocab_size)
    if suite.makes("drift.norm") and isinstance(candidate, Patch):
        # Now, while the weights are the original ones that the update is relative to.
        made["drift.norm"] = measures.norm(drift.norm_of_patch(model, candidate), limits)
    # One group at least, so that the edited model is opened even where there is no text.
    for group in list(drift.groups(rows, vocabulary)) or [[]]:
        base = [found.cpu() for found in drift.log_probs(model, group)]
        with opened() as edited:
            if after is None:
                after = observe(edited, requests, progress, "after", _changed(model, candidate, edited))
                if suite.makes("drift.norm") and "drift.norm" not in made:
                    made["drift.norm"] = _norm(model, edited, limits)
            if edited.tokenizer.get_vocab() != model.tokenizer.get_vocab():
                rows = group = []
                for name in ("drift.kl", "drift.perplexity"):
                    made.setdefault(name, Measurement.missing(name, OTHER_VOCABULARY, limits(name)))
            with progress.step("Divergence", total=len(group)) as bar:
                for row, old, new in zip(group, base, drift.log_probs(edited, group), strict=False):
                    texts.append(drift.text_drift(old, new, row))
                    bar.advance(1)
    if after is None:
        raise AuditError("the edited model was never opened")
    if texts:
        made |= measures.divergence(texts, limits, policy.audit.seed, about)
    made |= {m.name: m for m in _compared(before, after, control, requests, suite)}
    made |= {m.name: m for m in _unmade(made, requests, suite)}
    known = {fact.id: fact.known for fact in requests.facts}
    return Findings(
        measurements=sorted(made.values(), key=lambda m: _rank(m.name)),
        facts=measures.fact_rows(known, before, after),
        not_tested=not_tested(requests, suite),
        before=before,
        after=after,
        drawings=list(_drawings(before, after, control)),
    )


def _changed(model: EditableModel, candidate: Patch | Opened, edited: EditableModel) -> tuple[str, ...]:
    """Weight matrices in which the candidate differs; none where the two cannot be compared."""
    if isinstance(candidate, Patch):
        return tuple(candidate.factors)
    try:
        return tuple(drift.norm_of_difference(model, edited)) if edited is not model else ()
    except AuditError:
        return ()


def _drawings(before: Observation, after: Observation, control: Observation | None) -> Iterator[Drawing]:
    for state, seen in (("before", before), ("after", after), ("control", control)):
        for attacked in seen.attacks.values() if seen else ():
            yield from (drawing.model_copy(update={"state": state}) for drawing in attacked.drawings)


def _held_out_rows(
    model: EditableModel, requests: Requests, suite: Suite, progress: Progress
) -> tuple[list[drift.Row], str]:
    """Token ids of the held-out text, and what it is."""
    audit = requests.policy.audit
    if audit.text != "auto":
        texts, about = drift.read_texts(audit.text), f"the policy's {audit.text.rpartition('/')[2]}"
        return drift.rows_of(model, texts, suite.text_tokens), about
    if requests.policy.model == EMBEDDED:
        from unlearn.embedded.talk import documents

        held_out = documents("held_out", audit.seed, without_hazard=True)
        return drift.rows_of(
            model, held_out, suite.text_tokens
        ), "held-out documents of the embedded world without the hazard relation"
    # Text in the model's own words needs no download, and every token of it is one that the model would say.
    probes = line_probes(model.tokenizer, benign_lines(audit.benign), suite.benign_questions, audit.seed)
    replies = model.generate(
        [p.prompt for p in probes], max_new_tokens=64, progress=progress, label="Writing held-out text"
    )
    rows, left = [], suite.text_tokens
    for probe, (reply, *_) in zip(probes, replies, strict=True):
        ids = model.tokenizer(reply, add_special_tokens=False)["input_ids"]
        row = (*probe.prompt.ids, *ids)[: left + 1]
        if ids and len(row) >= 2:
            rows.append(tuple(row))
            left -= len(row) - 1
        if left <= 0:
            break
    if not rows:
        raise AuditError(
            "the unedited model says nothing to the benign questions, so there is no text to compare on"
        )
    return rows, "benign questions and the unedited model's own replies"


def _norm(model: EditableModel, edited: EditableModel, limits: measures.Limits) -> Measurement:
    try:
        if edited is model:
            raise AuditError(
                "the edited weights replaced the unedited ones, so no difference between them can be taken"
            )
        return measures.norm(drift.norm_of_difference(model, edited), limits)
    except AuditError as problem:
        return Measurement.missing("drift.norm", str(problem), limits("drift.norm"), unit="ratio")


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
    for name, *_ in measures.SHARES:
        if name in suite.measurements:
            yield measures.share(name, before, after, audit.limit, control)
    for name in suite.attacks:
        attack = ATTACKS[name]
        yield measures.attack(name, attack, before, after, control, audit)
    if suite.makes("capability"):
        for task in audit.tasks:
            yield measures.capability(task, before, after, audit.limit)
    if suite.makes("toxicity"):
        scorer = after.toxicity or before.toxicity
        name = scorer.scorer if scorer else audit.toxicity.rpartition("/")[2].replace(".", "-")
        yield from measures.toxicity(name, before, after, audit.limit, audit.seed)


def _unmade(made: dict[str, Measurement], requests: Requests, suite: Suite) -> Iterator[Measurement]:
    """What the policy itself sets a limit for, but nothing measured: a failed limit, never a missing row."""
    audit = requests.policy.audit
    for name, limit in audit.limits.items():
        if name in made or any(m.startswith(name + ".") for m in made):
            continue
        family = name if name in MEASUREMENTS else name.partition(".")[0]
        if not suite.makes(family):
            reason = f"the suite {suite.name} does not make this measurement; choose another audit.suite"
        elif family == "capability":
            reason = "the policy names no such task under audit.tasks"
        else:
            reason = "nothing that was measured has this name"
        yield Measurement.missing(name, reason, limit)


def _rank(name: str) -> tuple[int, str]:
    order = {m: i for i, m in enumerate(MEASUREMENTS)}
    return order.get(name, order.get(name.partition(".")[0], len(order))), name
