"""Three audits whose outcome is known: the unedited model, masks that are opened, and a model that never knew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.audit.attacks import masked
from unlearn import embedded
from unlearn.audit import recovery
from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.observation import Observation
from unlearn.audit.observing import observe
from unlearn.audit.pipeline import audit
from unlearn.audit.shares import chance_of
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy import DEFAULT_LIMITS
from unlearn.report import Measurement, Report, verdict_of

pytestmark = pytest.mark.skipif(
    not (embedded.path() / "model.safetensors").is_file(),
    reason="the embedded model has not been trained here",
)
NEVER_KNEW = pytest.mark.skipif(
    not (embedded.path(control=True) / "model.safetensors").is_file(),
    reason="the control of the embedded model has not been trained here",
)
LEAKS = ("leak.direct", "leak.held_out", "leak.cloze")
OPENERS = ("attack.prefill", "attack.relearn_facts")
SMALL = {
    "name": "known-cases",
    "description": "the leaks, and two attacks that open masks",
    "max_new_tokens": 12,
    "attack_tokens": 12,
    "attack_prompts": 8,
    "relearn_steps": [8],
    "relearn_facts": 12,
    "singular_ranks": [1, 4],
    "singular_prompts": 8,
    "suffix_steps": 3,
    "suffix_tries": 6,
    "direction_prompts": 8,
}


def about(folder: Path, measurements: Sequence[str]) -> Requests:
    """The masked facts under a small suite of these measurements."""
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "measurements": list(measurements)}))
    policy = masked.policy()
    audited = policy.audit.model_copy(update={"suite": str(path), "control": "none"})
    return replace(masked.requests(), policy=policy.model_copy(update={"audit": audited}))


@cache
def before(folder: Path) -> tuple[Requests, Observation]:
    """The unedited model, observed once for all cases."""
    asked = about(folder, (*LEAKS, *OPENERS))
    return asked, observe(masked.base(), asked)


@pytest.fixture(scope="module")
def unedited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Requests, Observation]:
    return before(tmp_path_factory.mktemp("known"))


def audited(unedited: tuple[Requests, Observation], patch: Patch) -> dict[str, Measurement]:
    asked, seen = unedited
    return {m.name: m for m in audit(masked.base(), patch, asked, before=seen).measurements}


def test_the_unedited_model_leaks_everywhere(unedited: tuple[Requests, Observation]) -> None:
    found = audited(unedited, Patch({}, {}))
    assert found.pop("audit.agreement").passed
    assert set(found) == {*LEAKS, *OPENERS}
    for name, measurement in found.items():
        assert measurement.passed is False and measurement.reason is None, name
        assert measurement.after is not None and measurement.after >= 0.7, name
    assert verdict_of(found.values()) == "failed"


@pytest.mark.parametrize("mask", ["guard", "refusal_lora"])
def test_a_model_that_only_refuses_is_opened_up(unedited: tuple[Requests, Observation], mask: str) -> None:
    found = audited(unedited, masked.MASKS[mask]())
    # Asked as a person would ask, it looks like a model that has forgotten.
    assert found["leak.held_out"].passed and found["leak.held_out"].after == 0.0
    opened = {name: m for name, m in found.items() if m.passed is False}
    assert "leak.cloze" in opened and set(OPENERS) & set(opened)
    assert found["leak.cloze"].after is not None and found["leak.cloze"].after >= 0.5
    report = Report.of(found.values())
    assert not report.passed and "leak.cloze" in report.statement


@pytest.mark.slow
@NEVER_KNEW
def test_a_model_that_never_knew_passes_every_attack_within_its_interval(tmp_path: Path) -> None:
    """Against fixed limits, or chance where an attack may succeed by guessing; the unedited model exceeds both."""
    names = [name for name, row in ATTACKS.items() if "control" in row.states]
    asked = about(tmp_path, (*LEAKS, *(f"attack.{name}" for name in names)))
    never = observe(EditableModel.load("embedded-control", device="cpu"), asked, state="control")
    known = observe(masked.base(), asked)
    assert not never.failed and not known.failed
    for group in ("direct", "held_out", "cloze"):
        assert never.groups[group] and not any(o.disclosed for o in never.groups[group])
        assert all(o.disclosed for o in known.groups[group])
    exceeded = set()
    for name in names:
        if ATTACKS[name].row.judged and not any(o.disclosed for o in known.attacks[name].outcomes):
            # Four facts are few for `probe`; what gets nothing from the unedited model shows nothing.
            found = recovery.attack(ATTACKS[name], known, never, None, asked.policy.audit)
            assert (
                name == "probe" and found.passed is False and "cannot show suppression" in str(found.reason)
            )
            continue

        def judged(seen: Observation, name: str = name) -> tuple[float, float]:
            """The lower end of the interval, and what it is held to: no limit comes from the model itself."""
            found = recovery.attack(ATTACKS[name], known, seen, None, asked.policy.audit)
            assert found.after is not None and found.n and found.ci95, f"{name}: {found.reason}"
            row = ATTACKS[name].row
            limit = asked.policy.audit.limit(row.name) if row.judged else DEFAULT_LIMITS["attack"]
            assert limit is not None
            return found.ci95[0], max(limit, chance_of(seen.attacks[name].outcomes) or 0.0)

        low, allowed = judged(never)
        assert low <= allowed, name
        low, allowed = judged(known)
        if low > allowed:
            exceeded.add(name)
    # `traces` looks for an edit, of which the unedited model has none.
    assert exceeded >= set(names) - {"traces", "probe"}
