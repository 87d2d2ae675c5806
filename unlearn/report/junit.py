"""The report as JUnit XML, so that a CI system shows every limit as a test and fails with the audit."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from unlearn.report.document import UNSHOWN, Report
from unlearn.report.measurement import Measurement
from unlearn.report.words import about, flat, show, show_interval, show_limit, why
from unlearn.shown import shown_lines

#: Manifest entries that a reader of a CI page wants to see.
_PROPERTIES = ("policy.sha256", "base.identity", "patch.sha256", "settings.audit.suite", "versions.unlearn")


def render_junit(report: Report) -> str:
    """One test case per limit, and per measurement that could not be made.

    A limit that is missed is a failure, a measurement that could not be made an error. A report that failed without
    either has one failing case for its verdict, since a suite without failures counts as passed.
    """
    what = about(report)
    judged = [m for m in report.measurements if m.passed is not None]
    missed = [m for m in judged if not m.passed and m.after is not None]
    unmade = [m for m in judged if m.after is None]
    verdict = not (report.passed or missed or unmade)
    counts = {
        "tests": str(len(judged) + verdict),
        "failures": str(len(missed) + verdict),
        "errors": str(len(unmade)),
        "skipped": "0",
    }
    root = ET.Element("testsuites", {"name": "unlearn", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": f"unlearn audit of {what.name}", **counts})
    if what.when:
        suite.set("timestamp", what.when.split("+")[0])
    properties = ET.SubElement(suite, "properties")
    facts = dict(flat(report.manifest))
    said = {"verdict": report.verdict, "model": what.model, "method": what.method}
    said |= {key: facts.get(key, "") for key in _PROPERTIES}
    for key, value in said.items():
        if value:
            ET.SubElement(properties, "property", name=key, value=value)
    for m in judged:
        _case(suite, what.name, m)
    if verdict:
        case = ET.SubElement(suite, "testcase", classname=f"unlearn.{what.name}", name="verdict")
        sentence = UNSHOWN if judged else "no limit was set, so nothing was judged"
        ET.SubElement(case, "failure", message=sentence, type="nothing judged").text = sentence
    ET.SubElement(suite, "system-out").text = report.statement
    ET.indent(root)
    # XML has no way to write a control character.
    document = shown_lines(ET.tostring(root, encoding="unicode"))
    return f'<?xml version="1.0" encoding="utf-8"?>\n{document}\n'


def _case(suite: ET.Element, name: str, m: Measurement) -> None:
    limit = f" ({show_limit(m)})" if m.limit is not None else ""
    family = m.name.partition(".")[0]
    case = ET.SubElement(suite, "testcase", classname=f"unlearn.{name}.{family}", name=m.name + limit)
    if m.passed:
        return
    sentence = why(m)
    lines = [sentence]
    if m.after is not None:
        lines.append(f"before {show(m.before, m.unit)}, after {show(m.after, m.unit)}, n {m.n}")
        if m.ci95:
            lines.append(f"95 % interval {show_interval(m.ci95, m.unit)}")
    if m.definition:
        lines.append(m.definition)
    kind, of = ("error", "not measured") if m.after is None else ("failure", "limit missed")
    ET.SubElement(case, kind, message=sentence, type=of).text = "\n".join(lines)
