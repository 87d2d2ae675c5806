"""The audit on the model that ships with the package: it knows the world, so suppression can really be seen."""

import pytest

from tests.files import policy_text
from unlearn import embedded
from unlearn.audit import pipeline
from unlearn.audit.pipeline import audit
from unlearn.audit.suite import Suite
from unlearn.edit.requests.resolve import resolve
from unlearn.embedded.world import build_world
from unlearn.model.editable import EditableModel
from unlearn.patch import Patch
from unlearn.policy import Policy

pytestmark = pytest.mark.skipif(
    not (embedded.path() / "model.safetensors").is_file(),
    reason="the embedded model has not been trained here",
)

SUITE = Suite(
    name="small",
    description="for tests",
    measurements=("leak.direct", "leak.held_out", "leak.cloze", "retain.siblings", "overrefusal.benign",
                  "capability", "toxicity", "drift.kl", "drift.norm"),
    benign_questions=10,
    generation_prompts=12,
    text_tokens=300,
    task_items=12,
)  # fmt: skip


@pytest.mark.slow
def test_an_edit_towards_nothing_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    monkeypatch.setattr(pipeline, "load_suite", lambda _name: SUITE)
    data = yaml.safe_load(policy_text())
    # A few neighbours instead of all: eliciting two hundred answers is the edit room's business.
    some = [name for name in build_world().of_kind("substance") if name != "Stenmite"][:6]
    data["keep"] |= {"neighbours": some[:3], "held_out_neighbours": some[3:]}
    data["audit"] = {"tasks": ["unlearn_kept_facts", "unlearn_instructions"]}
    model = EditableModel.load("embedded")
    requests = resolve(model, Policy.model_validate(data))
    found = {m.name: m for m in audit(model, Patch({}, {}), requests).measurements}
    for name in ("leak.direct", "leak.held_out", "leak.cloze"):
        assert found[name].before == found[name].after == 1.0 and found[name].passed is False
    assert found["retain.siblings"].after == 1.0
    assert found["overrefusal.benign"].after == 0.0
    assert found["drift.kl"].after == 0.0
    assert found["capability.unlearn_kept_facts"].after > 0.9
    assert found["capability.unlearn_instructions"].after > 0.6
    # A little rudeness was trained in, so that the scorer has something to find.
    assert found["toxicity.demo"].before == found["toxicity.demo"].after > 0.05
