"""The held-out text on which two models are compared."""

from __future__ import annotations

from pathlib import Path

from unlearn.audit import drift
from unlearn.audit.probes import benign_lines, line_probes
from unlearn.audit.suite import Suite
from unlearn.errors import AuditError
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import plain_ids
from unlearn.model.requests import Requests
from unlearn.policy import EMBEDDED
from unlearn.progress import NO_PROGRESS, Progress


def held_out_rows(
    model: EditableModel, requests: Requests, suite: Suite, progress: Progress = NO_PROGRESS
) -> tuple[list[drift.Row], str]:
    """Token ids of the held-out text, and what it is.

    Raises:
        AuditError: the policy's file cannot be read, or the unedited model has nothing to say.
    """
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
        ids = plain_ids(model.tokenizer, reply)
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


def first_tokens(rows: list[drift.Row], tokens: int) -> list[drift.Row]:
    """The first rows that hold so many tokens; one at least, where there is any."""
    kept: list[drift.Row] = []
    for row in rows:
        if kept and tokens <= 0:
            break
        kept.append(row)
        tokens -= len(row)
    return kept


def seen_by_the_statistics(requests: Requests) -> str | None:
    """Why the held-out text is not one that the edit's statistics never saw; None where it is."""
    text, corpus = Path(requests.policy.audit.text), Path(requests.policy.statistics.corpus)
    if requests.policy.audit.text == "auto" or not corpus.exists():
        return None
    inside, whole = text.resolve(), corpus.resolve()
    if inside == whole or whole in inside.parents:
        return (
            f"audit.text ({text.name}) is part of statistics.corpus; name text that the statistics never saw"
        )
    return None
