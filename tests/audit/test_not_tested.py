"""What an audit says besides its measurements: what was not tested, and limits that nothing measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest

from tests.audit.audited import run
from tests.audit.scripted import SUITE, Scripted, knows, requests, scrubbed
from unlearn.audit.pipeline import audit
from unlearn.audit.suite import Suite
from unlearn.policy import RelationSpec

pytestmark = pytest.mark.usefixtures("tiny")


def test_what_was_not_tested_is_said(tiny: Callable[[Suite], None]) -> None:
    assert any("capability (not in the suite tiny)" in item for item in run(scrubbed).not_tested)
    assert any("rounding of the weights" in item for item in run(scrubbed).not_tested)
    tiny(SUITE.model_copy(update={"measurements": (*SUITE.measurements, "capability")}))
    assert any("names no tasks" in item for item in run(scrubbed).not_tested)


def test_a_relation_that_a_measurement_did_not_ask_about_is_said(tiny: Callable[[Suite], None]) -> None:
    tiny(SUITE.model_copy(update={"measurements": (*SUITE.measurements, "leak.two_hop", "attack.int8")}))
    given = requests()
    smell = RelationSpec(
        prompts=("What does {subject} smell of?",), held_out=("Name the smell of {subject}.",)
    )
    recipe = given.policy.relations["recipe"]
    hops = recipe.model_copy(update={"two_hop": ("What is in a cup of {subject}?",)})
    relations = {**given.policy.relations, "recipe": hops, "smell": smell}
    policy = given.policy.model_copy(update={"relations": relations})
    other = replace(given.facts[1], relation="smell")
    both = replace(given, policy=policy, facts=(given.facts[0], other))
    found = audit(Scripted(knows), partial(nullcontext, Scripted(scrubbed)), both)
    assert "leak.two_hop about relations.smell" in found.not_tested
    assert not any("leak.held_out about" in line for line in found.not_tested)
    whole = audit(Scripted(knows), partial(nullcontext, Scripted(scrubbed)), given)
    assert not any(" about relations." in line for line in whole.not_tested)


def test_a_limit_that_nothing_measured_has_the_unit_of_its_row(tiny: Callable[[Suite], None]) -> None:
    tiny(SUITE.model_copy(update={"measurements": ("leak.direct", "audit.agreement")}))
    found = {
        m.name: m for m in run(scrubbed, audit={"limits": {"drift.kl": 0.02, "leak.cloze": 0.1}}).measurements
    }
    assert (found["drift.kl"].unit, found["leak.cloze"].unit) == ("nats/token", "share")
    assert all(found[name].passed is False for name in ("drift.kl", "leak.cloze"))
