"""Estimates: the work that is counted from a policy, and the speed that is measured or was timed before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import pico
from tests.audit.scripted import requests, suite_of
from unlearn.audit import estimate
from unlearn.audit.cache import Paces
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import Prompt
from unlearn.store import Store

SPEED = estimate.Speed(said=0.01, read=0.001)


def test_an_estimate_says_on_what_it_rests(tmp_path: Path) -> None:
    asked, suite = requests(), suite_of("leak.direct", "drift.kl")
    paces = Paces(Store.at(tmp_path), "embedded", "cpu")
    blank = estimate.estimate(asked, suite, ["before", "after"], paces)
    assert blank.total is None and "not known" in blank.sentence()
    rough = estimate.estimate(asked, suite, ["before", "after"], paces, SPEED)
    work = 8 * suite.max_new_tokens * estimate.REPLY + estimate.agreement(suite)
    assert rough.seconds is not None and rough.seconds["before"] == pytest.approx(0.01 * work)
    assert "rough" in rough.sentence() and "unedited model 5 s" in rough.sentence()
    paces.note("asked.direct", 1000, 3000.0)
    paces.note("agreement", 1000, 3000.0)
    known = estimate.estimate(
        asked, suite, ["before", "after"], Paces(Store.at(tmp_path), "embedded", "cpu"), SPEED
    )
    assert known.measured and "as timed before" in known.sentence() and "2 measurements" in known.sentence()
    assert known.seconds is not None and known.seconds["before"] == pytest.approx(3 * work)
    assert (estimate.spoken(0.2), estimate.spoken(119), estimate.spoken(7200)) == ("1 s", "2 min", "2.0 h")


def test_what_is_only_read_costs_what_reading_costs(tmp_path: Path) -> None:
    asked, paces = requests(), Paces(None, "embedded", "cpu")
    kl = suite_of("drift.kl")
    found = estimate.estimate(asked, kl, ["after"], paces, SPEED)
    agreement = 0.01 * estimate.agreement(kl)
    assert found.total == pytest.approx(agreement + 0.001 * 3 * kl.text_tokens)
    slow = estimate.estimate(asked, kl, ["after"], paces, SPEED._replace(read=0.01))
    assert slow.total == pytest.approx(agreement + 0.01 * 3 * kl.text_tokens)


def test_a_speed_is_measured_on_prompts_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = pico.pico("llama"), []
    generate = EditableModel.generate

    def watched(self: EditableModel, prompts: list[Prompt], max_new_tokens: int) -> list[list[str]]:
        seen.append([prompt.ids for prompt in prompts])
        return generate(self, prompts, max_new_tokens)

    monkeypatch.setattr(EditableModel, "generate", watched)
    speed = estimate.speed_of(model, requests())
    assert speed.said > 0 and speed.read > 0 and speed.step is not None and speed.step >= 0
    assert len(seen) == 3 and seen[1] == seen[2] and len(seen[1]) == len(set(seen[1])) == 4
