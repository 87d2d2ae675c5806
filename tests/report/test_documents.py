import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.report.cases import rich, share
from unlearn.report import Measurement, Report, schema
from unlearn.report.files import DOCUMENTS
from unlearn.report.junit import render_junit
from unlearn.report.markdown import render_card, render_markdown
from unlearn.shipped import shipped


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line.strip().strip("|"))


# --- JUnit


def test_one_case_per_limit_and_failures_with_their_text() -> None:
    report = rich()
    root = ET.fromstring(render_junit(report))
    suite = root.find("testsuite")
    cases = {case.get("name").split(" ")[0]: case for case in suite.iter("testcase")}
    judged = [m for m in report.measurements if m.passed is not None]
    assert list(cases) == [m.name for m in judged], "one per limit, none for what is informational"
    for m in judged:
        kinds = [child.tag for child in cases[m.name]]
        assert kinds == ([] if m.passed else ["error"] if m.after is None else ["failure"])
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("18", "3", "1")
    failure = cases["attack.singular"].find("failure")
    assert failure.get("message") == "21.9 % (42 of 192), before 97.9 %; the limit is at most 5 %"
    assert "95 % interval 16.6 to 28.2" in failure.text
    assert (
        cases["capability.reasoning"].find("error").get("message").endswith("the task's data are not there")
    )
    assert {p.get("name"): p.get("value") for p in suite.iter("property")}["verdict"] == "failed"
    assert report.statement == suite.find("system-out").text


def test_nothing_judged_is_a_failing_case_and_not_an_empty_suite() -> None:
    root = ET.fromstring(render_junit(Report.of([Measurement.made("drift.kl", 0.1)])))
    assert root.get("tests") == root.get("failures") == "1"
    assert root.find(".//failure").get("message") == "no limit was set, so nothing was judged"


def test_xml_holds_whatever_a_reason_says() -> None:
    nasty = Measurement.missing("capability.x", 'a < b & \x00\x1b[31m \ud800 "quoted" ]]>', 0.1)
    root = ET.fromstring(render_junit(Report.of([nasty])).encode("utf-8"))
    assert 'a < b & \\u0000\\u001b[31m \\ud800 "quoted" ]]>' in root.find(".//error").get("message")


# --- Markdown


@pytest.mark.parametrize("render", [render_markdown, render_card])
@pytest.mark.parametrize("strict", [False, True])
def test_tables_are_whole(render: object, strict: bool) -> None:
    text = render(rich(strict))
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    assert tables
    for table in tables:
        widths = {len(cells(line)) for line in table.strip().split("\n")}
        assert len(widths) == 1, table


def test_markdown_says_the_verdict_first_and_everything_else_after() -> None:
    report = rich()
    text = render_markdown(report)
    assert text.startswith("# Audit of demo: failed\n")
    order = ["**Failed**: 14 of 18", "## Failed limits", "## At a glance", "## Measurements", "## Not tested"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    for m in report.measurements:
        assert f"`{m.name}`" in text
    assert "- `capability.reasoning`: not measured: the task's data are not there" in text
    assert "| `retain.siblings` | smell | 60 | 58 | 60 |" in text
    assert "- patch, sha256: `" + "ef" * 32 + "`" in text
    assert "## Failed limits" not in render_markdown(Report.of([share("leak.direct", 9, 0, 9, 0.5)]))


def test_text_cannot_break_out_of_a_cell_or_become_markup() -> None:
    nasty = Measurement.missing("capability.x", "a | b\n# heading <b>bold</b> [link](x)", 0.1)
    text = render_markdown(Report.of([nasty], ["<script>|"]))
    assert "\n# heading" not in text and "<b>" not in text and "<script>" not in text
    assert r"\[link\](x)" in text


def test_the_card_claims_no_more_than_the_tests() -> None:
    text = render_card(rich())
    assert text.startswith("## Suppressed knowledge\n")
    assert "The audit **failed**: 14 of 18 limits met" in text and "Not tested: other languages" in text
    assert "Suppression is not erasure" in text and "edited to stop answering" in text
    audited = rich().model_copy(update={"manifest": {"candidate": {"name": "somebody's"}}})
    assert "was audited for the facts" in render_card(audited)
    method = {"settings": {"method": {"name": "alphaedit"}}}
    mine = rich().model_copy(update={"manifest": method})
    theirs = rich().model_copy(update={"manifest": {**audited.manifest, **method}})
    assert "alphaedit" in render_card(mine) and "alphaedit" not in render_card(theirs)
    assert "alphaedit" not in render_markdown(theirs)
    for word in ("forgotten", "removed", "compliant", "deleted"):
        assert word not in text


# --- all of them


def test_no_document_of_a_run_holds_more_than_the_report() -> None:
    assert sorted(DOCUMENTS) == ["junit.xml", "model-card.md", "report.html", "report.json", "report.md"]
    for name, render in DOCUMENTS.items():
        assert render(rich()) == render(Report.from_json(rich().to_json())), name


# --- the schema


def test_the_shipped_schema_is_that_of_the_report() -> None:
    shipped_one = (shipped("evals") / "report.schema.json").read_text(encoding="utf-8")
    assert shipped_one == schema(), "write it anew: unlearn report --schema > evals/report.schema.json"


KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
WORDS = {"title", "description", "default", "discriminator", "$defs"}


def valid(data: object, rule: dict, top: dict) -> bool:
    """JSON Schema, as far as ours uses it; a keyword that is not known here is an error and not ignored."""
    if "$ref" in rule:
        return valid(data, top["$defs"][rule["$ref"].rpartition("/")[2]], top)
    if isinstance(data, bool) and rule.get("type") in ("integer", "number"):
        return False
    checks = {
        "type": lambda v: isinstance(data, KINDS[v]),
        "enum": lambda v: data in v,
        "const": lambda v: data == v,
        "anyOf": lambda v: any(valid(data, r, top) for r in v),
        "oneOf": lambda v: sum(valid(data, r, top) for r in v) == 1,
        "required": lambda v: all(key in data for key in v),
        "properties": lambda v: all(valid(data[k], r, top) for k, r in v.items() if k in data),
        "additionalProperties": lambda v: (
            v is True
            or all(
                v is not False and valid(data[k], v, top) for k in data if k not in rule.get("properties", {})
            )
        ),
        "items": lambda v: all(valid(item, v, top) for item in data[len(rule.get("prefixItems", ())) :]),
        "prefixItems": lambda v: all(valid(i, r, top) for i, r in zip(data, v, strict=False)),
        "minItems": lambda v: len(data) >= v,
        "maxItems": lambda v: len(data) <= v,
        "minimum": lambda v: data >= v,
    }
    # The type first: the others may not make sense without it.
    known = sorted(rule.keys() - WORDS, key=lambda word: word != "type")
    return all(checks[word](rule[word]) for word in known)


def test_a_report_meets_the_schema_and_a_broken_one_does_not() -> None:
    top = json.loads(schema())
    for strict in (False, True):
        data = json.loads(rich(strict).to_json())
        assert valid(data, top, top)
    first = data["measurements"][0]
    broken = [{**first, "n": -1}, {**first, "after": "0"}, {**first, "ci95": [0.1]}, {**first, "more": 1}, {}]
    for wrong in broken:
        assert not valid({**data, "measurements": [wrong]}, top, top), wrong
    assert not valid({**data, "verdict": "fine"}, top, top)
    assert not valid({**data, "drawings": [{**data["drawings"][0], "kind": "cake"}]}, top, top)


def test_every_field_of_a_measurement_is_described() -> None:
    fields = json.loads(schema())["$defs"]["Measurement"]["properties"]
    assert [name for name, field in fields.items() if "description" not in field] == ["name"]


def test_documents_need_no_torch(root: Path) -> None:
    import subprocess
    import sys

    code = "import sys, unlearn.report.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
