"""What a patch gives away: gains against a plain pass, subjects found, and other subjects not found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import families
from tests.audit.attacks import masked
from tests.pico import pico
from unlearn.audit import recovery
from unlearn.audit.attacks import patch_leak
from unlearn.audit.attacks.patch_leak import area, gains, loudest, patch, traces
from unlearn.audit.attacks.scene import Scene, Update
from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.observation import Attacked, Observation, Outcome
from unlearn.errors import AuditError
from unlearn.model.adapters import linears
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.prompts import Prompt, ask
from unlearn.patch import Patch
from unlearn.policy import AuditSpec
from unlearn.progress import NO_PROGRESS


def held(model: EditableModel, given: Patch) -> Scene:
    """The scene of somebody who holds the patch."""
    return masked.scene(model, patch=given)


def swapped(scene: Scene) -> Scene:
    """The same, where the facts are four recipes that the patch was not made for."""
    real = scene.requests
    others = real.held_out_neighbours
    facts, rest = others[: masked.FACTS], (*real.facts, *others[masked.FACTS :])
    return replace(scene, requests=replace(real, facts=facts, held_out_neighbours=rest))


def naive(model: EditableModel, updates: dict[str, torch.Tensor | None], prompt: Prompt) -> list[float]:
    """One prompt by itself, without padding."""
    found = []
    for name, update in updates.items():
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        module = model.model.get_submodule(name.removesuffix(".weight"))
        handle = module.register_forward_hook(lambda _m, args, out, seen=seen: seen.append((args[0], out)))
        with torch.no_grad():
            model.model(torch.tensor([prompt.ids]))
        handle.remove()
        # A token with a zero embedding (padding, which ends turns here) has no outputs at the first layer.
        keys, outputs = (tensor[0, prompt.subject_first :].double() + 1e-30 for tensor in seen[0])
        if update is None:
            found.append(float((outputs.norm(dim=1) / keys.norm(dim=1)).max()))
        else:
            found.append(float(((keys @ update.double().T).norm(dim=1) / outputs.norm(dim=1)).max()))
    return found


def test_gains_of_experts_are_those_of_their_long_keys() -> None:
    model = families.kept("gpt-oss")
    names = [model.anatomy.weight_name(layer) for layer in (0, 2)]
    delta = torch.randn(model.shape(names[0]), generator=torch.Generator().manual_seed(0))
    prompt = ask(model.tokenizer, "The colour of {subject} is", "Zorvex")
    after = range(prompt.subject_first or 0, len(prompt.ids))
    keys = read(model, [prompt.ids], [after], [0, 2]).keys
    got = gains(model, {names[0]: delta, names[1]: None}, [prompt])[0].tolist()
    mlp = model.anatomy.mlp(model.model, 0)
    out: list[torch.Tensor] = []
    handle = mlp.register_forward_hook(lambda _module, _args, given: out.append(given[0][0]))
    model.model(torch.tensor([prompt.ids]))
    handle.remove()
    wanted = float(((delta @ keys[0]).norm(dim=0) / out[0][list(after)].norm(dim=1)).max())
    assert got[0] == pytest.approx(wanted, rel=1e-3) and got[1] > 0


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_gains_against_a_plain_pass(family: str) -> None:
    model = pico(family)
    names = [linears(model)[1], model.anatomy.weight_name(2)]
    noise = torch.Generator().manual_seed(0)
    updates: dict[str, torch.Tensor | None] = {
        name: torch.randn(model.weight(name).shape, generator=noise) for name in names
    }
    updates[model.anatomy.weight_name(1)] = None
    texts = ("Tell me what {subject} is used for.", "{subject} is", "The colour of {subject} is green, and")
    prompts = [ask(model.tokenizer, text, subject) for text in texts for subject in ("Zorvex", "Mirl")]
    wanted = torch.tensor([naive(model, updates, prompt) for prompt in prompts])
    torch.testing.assert_close(gains(model, updates, prompts), wanted, rtol=1e-4, atol=1e-5)


def test_the_largest_updates_for_their_matrices_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pico("llama")
    names = [model.anatomy.weight_name(layer) for layer in range(4)]
    sizes = dict(zip(names, (0.0, 0.3, 0.1, 0.2), strict=True))
    monkeypatch.setattr(patch_leak, "MATRICES", 2)
    found = loudest(model, Update(tuple(names), lambda name: sizes[name] * model.weight(name)))
    assert list(found) == [names[1], names[3]]


def test_area_counts_pairs() -> None:
    assert area([2, 3], [0, 1]) == 1 and area([0, 1], [2, 3]) == 0
    assert area([1, 3], [1, 2]) == (0.5 + 0 + 1 + 1) / 4
    assert area([], [1]) == area([1], []) == 0.5


def test_subjects_are_found_and_others_are_not() -> None:
    model, given = masked.base(), masked.sign_descent()
    with model.patched(given):
        before = model.identity()
        got = patch(model, held(model, given), NO_PROGRESS)
        other = patch(model, swapped(held(model, given)), NO_PROGRESS)
        assert model.identity() == before
    assert sum(o.disclosed for o in got.outcomes) >= 3 and len(got.outcomes) == masked.FACTS
    assert "; 0 named by the patch's header" in got.note
    assert sum(o.disclosed for o in other.outcomes) <= 1


def test_the_difference_of_two_models_gives_as_much_away_as_the_patch() -> None:
    model, given = masked.base(), masked.sign_descent()
    old = {name: model.weight(name).clone() for name in given.factors}
    with model.patched(given):
        scene = held(model, given)
        mine = patch(model, scene, NO_PROGRESS)
        difference = Update(tuple(old), lambda name: model.weight(name).float() - old[name].float())
        other = patch(model, replace(scene, update=difference), NO_PROGRESS)
    assert [o.disclosed for o in mine.outcomes] == [o.disclosed for o in other.outcomes]


def test_a_header_that_names_subjects_gives_them_away_and_no_update_gives_nothing() -> None:
    model = masked.base()
    scene = masked.scene(model)
    first = scene.requests.facts[0].subject
    silent = patch(model, replace(scene, update=Update((), torch.zeros, "{}")), NO_PROGRESS)
    said = Update((), torch.zeros, f'{{"values": {{"{first.lower()}-recipe": 1}}}}')
    named = patch(model, replace(scene, update=said), NO_PROGRESS)
    assert not any(o.disclosed for o in silent.outcomes)
    assert [o.disclosed for o in named.outcomes] == [True, False, False, False]
    with pytest.raises(AuditError, match="not known"):
        patch(model, scene, NO_PROGRESS)


def test_a_matrix_alone_gives_subjects_away_once_it_has_long_outputs_on_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = masked.base()
    scene = masked.scene(model)
    before = traces(model, scene, NO_PROGRESS)
    assert sum(o.disclosed for o in before.outcomes) <= 2  # 4 of 36 by chance
    real = patch_leak.gains

    def longer(*given: Any) -> torch.Tensor:
        found = real(*given).clone()
        rows = len(found) // 36  # prompts per candidate; the facts come first
        found[: masked.FACTS * rows, 2] *= 1.5
        return found

    monkeypatch.setattr(patch_leak, "gains", longer)
    after = traces(model, scene, NO_PROGRESS)
    assert all(o.disclosed for o in after.outcomes) and "area under the ROC curve 1.00" in after.note


def test_no_more_candidates_than_the_suite_says() -> None:
    model, given = masked.base(), masked.sign_descent()
    with model.patched(given):
        scene = held(model, given)
        small = scene.suite.model_copy(update={"patch_subjects": 9, "patch_prompts": 1})
        got = patch(model, replace(scene, suite=small), NO_PROGRESS)
    assert "among 9 candidate subjects (44 % by chance)" in got.note


def test_it_is_judged_only_where_the_policy_says_so() -> None:
    got = Attacked(outcomes=(Outcome(key="a", fact="a", disclosed=True, refused=False),))
    before, after = Observation(suite="s"), Observation(suite="s", attacks={"patch": got})
    for audit in (AuditSpec(), AuditSpec(limits={"attack": 0.0})):
        made = recovery.attack(ATTACKS["patch"], before, after, None, audit)
        assert made.after == 1.0 and made.limit is None and made.passed is None
    limited = AuditSpec(limits={"attack.patch": 0.1})
    assert recovery.attack(ATTACKS["patch"], before, after, None, limited).passed is False
