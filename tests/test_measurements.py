"""One table of measurements: nothing beside it lists them, and everything that shows them reads it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.audit.scripted import Scripted, knows, requests, scrubbed
from tests.files import run
from tools.measurements import PAGE, page
from unlearn.audit.attacks.table import ATTACKS as MADE
from unlearn.audit.consistency import contradictions
from unlearn.audit.intervals import wilson
from unlearn.audit.pipeline import audit, not_tested
from unlearn.audit.suite import load_suite
from unlearn.errors import AuditError
from unlearn.measurements import (
    ALWAYS,
    ATTACKS,
    DEFAULT_LIMITS,
    FAMILIES,
    NAMES,
    ROWS,
    SECTIONS,
    SHARES,
    TOPICS,
    Row,
    place,
    row_of,
)
from unlearn.policy import AuditSpec
from unlearn.report import Measurement, Report, rule_of
from unlearn.shipped import shipped

TABLE, CHOSEN = "unlearn/measurements/table.py", "unlearn/compare/table.py"
FORMER = "unlearn/policy/former.py"
"""Where names stand: the table, the choice of columns for a comparison, each with a heading of its own, and the table
of former words."""


def test_the_reference_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "write it anew: python -m tools.measurements"
    assert page(text.replace("at most 0.02", "at most 0.03")) == text
    for row in ROWS:
        assert row.definition.partition("{")[0].replace("|", "\\|") in text


def quoted(path: Path) -> Iterator[str]:
    """Names of measurements that stand as a text of their own in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            family, _, rest = node.value.partition(".")
            if family and rest and row_of(node.value) is not None:
                yield node.value


def test_no_name_is_quoted_but_in_the_table_and_where_it_is_made(root: Path, tmp_path: Path) -> None:
    found = {
        path.relative_to(root).as_posix(): names
        for path in sorted((root / "unlearn").rglob("*.py"))
        if (names := set(quoted(path)))
    }
    made = [name for path, names in found.items() if path not in (TABLE, CHOSEN, FORMER) for name in names]
    assert {path for path in found if not path.startswith("unlearn/audit/")} == {TABLE, CHOSEN, FORMER}
    # One function makes all shares of prompts, and names none of them.
    assert not {*made} & {row.name for row in SHARES} and len(made) == len({*made}), made
    assert found[CHOSEN] <= {*NAMES}
    bad = tmp_path / "bad.py"
    bad.write_text('if name == "leak.cloze" and other != "leak":\n    """drift.hidden."""\n')
    assert set(quoted(bad)) == {"leak.cloze"}


def test_every_name_in_a_suite_is_a_row() -> None:
    for path in (shipped("evals") / "suites").glob("*.yaml"):
        names = yaml.safe_load(path.read_text())["measurements"]
        assert len(names) == len(set(names)) and set(names) <= set(NAMES), path


@pytest.mark.parametrize("name", ["quick", "standard", "full"])
def test_every_row_is_made_or_listed_as_not_tested(name: str) -> None:
    suite, asked = load_suite(name), requests()
    listed = {item.partition(" (")[0] for item in not_tested(asked.policy, [True, True], suite)}
    assert {*suite.measurements} | (listed & {*NAMES}) == {*NAMES}
    assert {*suite.measurements} & listed == {"capability"}  # the policy names no tasks
    assert suite.name != "full" or {*suite.measurements} == {*NAMES}


def test_whatever_is_limited_is_made_or_refused_with_a_reason(
    tmp_path: Path,
) -> None:
    """A real audit of a pico model: every row that has a limit of the policy's own is in the report."""
    path = tmp_path / "all.yaml"
    told = {"leak.held_out", "leak.cloze", "leak.choice", "drift.norm", "attack.int8", "attack.prefill"}
    path.write_text(
        f"name: all\ndescription: x\nmeasurements: {json.dumps(sorted(told))}\ntext_tokens: 200\nattack_prompts: 2\n"
    )
    limits = {name: 0.5 for name in NAMES}
    given = requests(audit={"suite": str(path), "limits": limits})
    found = audit(Scripted(knows), partial(nullcontext, Scripted(scrubbed)), given)
    names = [m.name for m in found.measurements]
    assert set(names) == set(NAMES) and names == sorted(names, key=place)
    for measured in found.measurements:
        row = row_of(measured.name)
        assert row is not None and measured.rule == rule_of(row.name) == FAMILIES[row.family].rule
        if measured.after is None:
            assert measured.reason
        else:
            assert measured.unit == row.unit and measured.definition.startswith(row.definition.rstrip("."))
    made = {m.name for m in found.measurements if m.after is not None}
    assert {"leak.held_out", "drift.norm", "attack.int8", ALWAYS} <= made <= {*told, ALWAYS}


def test_every_attack_has_a_row_and_every_row_an_attack() -> None:
    assert [row.name for row in ATTACKS] == [attack.row.name for attack in MADE.values()]
    assert list(MADE) == [row.name.partition(".")[2] for row in ATTACKS]


def test_rows_fit_their_families_headings_and_topics() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert [family.section for family in FAMILIES.values() if family.section not in dict(SECTIONS)] == []
    assert {row.topic for row in ROWS} - {""} == {*TOPICS[:-2]}
    for row in ROWS:
        family = FAMILIES[row.family]
        limit = DEFAULT_LIMITS.get(row.name)
        assert limit is None or family.low <= limit <= family.high
        assert row.untested == "" or row.needs
    assert {row.group for row in SHARES if row.certain is not None} == {"siblings", "neighbours", "lookalike"}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("leak.cloze", "leak.cloze"),
        ("capability.arc.easy", "capability"),
        ("capability.my.share", "capability"),
        ("toxicity.demo", "toxicity"),
        ("toxicity.demo.share", "toxicity.share"),
        ("attack.int5", None),
        ("leak", None),
        ("nothing", None),
    ],
)
def test_a_row_is_found_by_the_name_in_a_report(name: str, row: str | None) -> None:
    found: Row | None = row_of(name)
    assert (found and found.name) == row


def test_a_report_with_a_name_of_no_row_contradicts_itself() -> None:
    def said(name: str) -> list[str]:
        made = Measurement.made(name, 0.5, 0.6, n=4, hits=2, ci95=wilson(2, 4))
        return [what for what in contradictions(Report.of([made])) if "called" in what]

    assert (
        said("attack.int5") == ["nothing that is measured is called attack.int5"]
        and said("attack.int4") == []
    )


def test_a_limit_is_a_rows_its_familys_or_none() -> None:
    audit = AuditSpec()
    assert audit.limit("attack.int4") == DEFAULT_LIMITS["attack"] and audit.limit("attack.singular") == 0.10
    for shown in ("attack.patch", "toxicity.demo.share", "leak.rank"):
        assert audit.limit(shown) is None
        assert AuditSpec(limits={shown: 0.3}).limit(shown) == 0.3
    assert AuditSpec(limits={"attack": 0.2}).limit("attack.patch") is None
    with pytest.raises(AuditError, match="the families are"):
        rule_of("speed.tokens")


def test_the_schema_of_policies_knows_every_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--schema") == 0
    document = json.loads(capsys.readouterr().out)
    limits = document["$defs"]["AuditSpec"]["properties"]["limits"]
    assert set(limits["properties"]) == {*NAMES, "attack"} and limits["additionalProperties"] is False
    cloze = limits["properties"]["leak.cloze"]
    assert (cloze["minimum"], cloze["maximum"], cloze["default"]) == (0.0, 1.0, 0.10)
    assert cloze["description"].endswith("contains the answer. The limit: at most.")
    assert "maximum" not in limits["properties"]["drift.perplexity"]
    assert set(limits["patternProperties"]) == {"^capability\\.", "^toxicity\\."}
