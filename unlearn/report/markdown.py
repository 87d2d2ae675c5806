"""The report as Markdown: the whole of it, and a section for a model card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from unlearn.report.document import Report
from unlearn.report.measurement import Measurement
from unlearn.report.words import (
    about,
    comparisons,
    flat,
    glance,
    in_a_word,
    met,
    sections,
    show,
    show_interval,
    show_limit,
    why,
)
from unlearn.shown import shown_lines

_RESULT = {True: "✓ passed", False: "**✗ failed**", None: "no limit"}
#: Manifest entries by which a reader finds the very run again.
_PROVENANCE = {
    "base model": "base.name",
    "made from": "base.origin.file",
    "its weights": "base.origin.quantisation",
    "matrices in 4 bits": "base.quantised",
    "base identity": "base.identity",
    "candidate": "candidate.patch",
    "candidate model": "candidate.name",
    "candidate identity": "candidate.identity",
    "policy, sha256": "policy.sha256",
    "patch, sha256": "patch.sha256",
    "method": "settings.method.name",
    "algorithm": "patch.header.method.name",
    "chosen because": "patch.header.reasons.method",
    "suite": "settings.audit.suite",
    "seed": "settings.audit.seed",
    "unlearn": "versions.unlearn",
    "made": "times.started",
}


def _inline(text: str) -> str:
    """Text that can stand in a paragraph, a list or a cell: nothing in it is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    return f"`{' '.join(text.replace('`', '').replace('|', '').split())}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _row(m: Measurement, controlled: bool) -> list[str]:
    after = "not measured" if m.after is None else show(m.after, m.unit)
    row = [_code(m.name), show(m.before, m.unit), after, show_interval(m.ci95, m.unit)]
    if controlled:
        row.append(show(m.control, m.unit))
    return [*row, show_limit(m), str(m.n) if m.n else "", _RESULT[m.passed]]


def _measured(rows: Sequence[Measurement]) -> list[str]:
    controlled = any(m.control is not None for m in rows)
    head = ["measurement", "before", "after", "95 % interval", *(["control"] if controlled else [])]
    return _table([*head, "limit", "n", "result"], [_row(m, controlled) for m in rows])


def _provenance(report: Report) -> list[str]:
    facts = dict(flat(report.manifest))
    if "candidate" in report.manifest:
        # Whoever edited that model, the policy's method is not how.
        facts.pop("settings.method.name", None)
    return [
        f"- {label}: {_code(facts[key])}"
        for label, key in _PROVENANCE.items()
        if facts.get(key, "null") not in ("", "null")
    ]


def render_markdown(report: Report) -> str:
    """The whole report, without any text of a question or an answer."""
    what = about(report)
    good, judged = met(report)
    lines = [f"# Audit of {_inline(what.name)}: {report.verdict}", ""]
    if what.line:
        lines += [_inline(what.line), ""]
    lines += [
        f"**{report.verdict.capitalize()}**: {good} of {judged} limits met. {_inline(report.statement)}",
        "",
    ]
    if report.failures:
        lines += ["## Failed limits", ""]
        lines += [*(f"- {_code(m.name)}: {_inline(why(m))}" for m in report.failures), ""]
    lines += ["## At a glance", ""]
    lines += _table(
        ["question", "result", "what was found"],
        [
            [f"**{row.title}**: {row.question}", in_a_word(row.state), _inline(row.answer)]
            for row in glance(report)
        ],
    )
    lines += ["## Measurements", ""]
    for title, question, rows in sections(report):
        lines += [f"### {title}", "", question, "", *_measured(rows)]
        parts = [(m, part, c) for m in rows for part, c in m.parts.items() if len(m.parts) > 1]
        if parts:
            lines += _table(
                ["measurement", "of which", "before", "after", "n"],
                [
                    [
                        _code(m.name),
                        _inline(part),
                        "-" if c.before is None else str(c.before),
                        str(c.after),
                        str(c.n),
                    ]
                    for m, part, c in parts
                ],
            )
    if report.not_tested:
        lines += ["## Not tested", "", "Nothing is claimed about these.", ""]
        lines += [*(f"- {_inline(item)}" for item in report.not_tested), ""]
    if comparisons(report):
        lines += ["## How many tests there were", "", _inline(comparisons(report)), ""]
    definitions = [m for m in report.measurements if m.definition]
    if definitions:
        lines += ["## Definitions", ""]
        lines += [*(f"- {_code(m.name)}: {_inline(m.definition)}" for m in definitions), ""]
    found = _provenance(report)
    if found:
        lines += ["## Provenance", "", *found, ""]
    return shown_lines("\n".join(lines).rstrip()) + "\n"


def render_card(report: Report) -> str:
    """A section for the model card of the candidate: what was tested, with which outcome, and what was not."""
    what = about(report)
    good, judged = met(report)
    facts = dict(flat(report.manifest))
    edited = "patch" in report.manifest
    number = f"{facts['facts.total']} facts" if "facts.total" in facts else "the facts"
    done = "was edited to stop answering questions about" if edited else "was audited for"
    lines = [
        "## Suppressed knowledge",
        "",
        f"This model {done} {number} of the policy {_code(what.name)}, and compared with the unedited model"
        f"{' ' + _code(what.model) if what.model else ''} on the same prompts. The audit **{report.verdict}**: "
        f"{good} of {judged} limits met.",
        "",
        *_measured([m for m in report.measurements if m.passed is not None]),
        _inline(report.statement),
        "",
        "Suppression is not erasure: the weights may still hold what the model no longer says, and other prompts, "
        "fine-tuning or changes to the weights may bring it back. Nothing is claimed beyond the tests above.",
        "",
        *_provenance(report),
    ]
    return shown_lines("\n".join(lines).rstrip()) + "\n"
