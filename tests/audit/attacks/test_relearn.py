"""Relearning: it opens what is masked, it cannot teach what was never known, and it leaves the model as it was."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pico
from tests.audit import scripted
from tests.audit.attacks import masked
from unlearn import embedded
from unlearn.audit.attacks import relearn
from unlearn.audit.attacks.scene import Scene
from unlearn.audit.observation import Attacked
from unlearn.audit.probes import build_probes
from unlearn.errors import AuditError
from unlearn.matching import contains
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.progress import NO_PROGRESS
from unlearn.report import Curve

Relearn = Callable[[EditableModel, Scene], Attacked]
BOTH: tuple[Relearn, ...] = (relearn.relearn_text, relearn.relearn_facts)
KNOWS = pytest.mark.skipif(
    not (embedded.path() / "model.safetensors").is_file(),
    reason="the embedded model has not been trained here",
)
NEVER_KNEW = pytest.mark.skipif(
    not (embedded.path(control=True) / "model.safetensors").is_file(),
    reason="the control of the embedded model has not been trained here",
)
FEW: dict[str, Any] = {"relearn_steps": (8,), "relearn_facts": 12}


def share(attacked: Attacked) -> float:
    return sum(o.disclosed for o in attacked.outcomes) / len(attacked.outcomes)


@pytest.mark.slow
@KNOWS
@pytest.mark.parametrize("mask", ["guard", "rank_one"])
def test_other_facts_bring_back_what_is_masked(mask: str) -> None:
    model = masked.base()
    with model.patched(masked.MASKS[mask]()):
        given = masked.only("held_out", masked.scene(model, relearn_steps=(8, 16), relearn_facts=24))
        got = relearn.relearn_facts(model, given)
    (curve,) = got.drawings
    assert isinstance(curve, Curve) and curve.x == (0.0, 8.0, 16.0)
    assert curve.y[0] == 0.0  # masked: no question tells before the attack
    assert share(got) == max(curve.y) >= 0.5


@KNOWS
def test_what_is_known_stays_known_and_what_never_was_does_not_come() -> None:
    model = masked.base()
    known = masked.only("held_out", masked.scene(model, relearn_steps=(10,), relearn_facts=12))
    assert share(relearn.relearn_facts(model, known)) >= 0.8
    never = masked.only(
        "held_out", masked.scene(model, masked.never(), relearn_steps=(10,), relearn_facts=12)
    )
    assert share(relearn.relearn_facts(model, never)) == 0.0


@KNOWS
@NEVER_KNEW
@pytest.mark.parametrize("attack", BOTH)
def test_a_model_that_never_knew_tells_no_more_than_chance(attack: Relearn) -> None:
    model = EditableModel.load("embedded-control", device="cpu")
    assert share(attack(model, masked.scene(model, **FEW))) <= 0.125  # 2 of 16


@KNOWS
def test_unrelated_text_names_no_subject_and_no_answer() -> None:
    given = masked.scene(masked.base())
    rows = relearn.text_rows(masked.base(), given)
    assert len(rows) == relearn.BATCH * given.suite.relearn_steps[-1]
    told = [name for fact in given.requests.facts for name in (fact.subject, *fact.answers)]
    text = [masked.base().tokenizer.decode(row.ids) for row in rows]
    assert not any(contains(line, told) for line in text)
    assert all(row.learned == len(row.ids) - 1 <= relearn.LONGEST for row in rows)
    # The control: a word of the first document as a subject, and that document is left out.
    word = max(re.findall("[a-z]+", text[0]), key=len)
    renamed = replace(given.requests, facts=(replace(given.requests.facts[0], subject=word),))
    fewer = relearn.text_rows(masked.base(), replace(given, requests=renamed))
    assert rows[0] not in fewer and len(fewer) == len(rows)


def tiny(model: EditableModel, given: Requests | None = None) -> Scene:
    given = given or scripted.requests()
    suite = scripted.SUITE.model_copy(
        update={"relearn_steps": (1, 2, 4), "attack_tokens": 4, "max_new_tokens": 4}
    )
    return Scene(given, suite, dict(build_probes(model.tokenizer, given, suite)))


def held_out_text(folder: Path, *texts: str) -> Requests:
    path = folder / "text.txt"
    path.write_text("\n\n".join(texts))
    return scripted.requests(audit={"text": str(path)})


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_the_model_is_left_as_it_was_and_the_seed_decides(family: str, tmp_path: Path) -> None:
    given = held_out_text(tmp_path, "A page about the weather.", "Another page, about bread and butter.")
    model = pico.pico(family)
    before = model.identity()
    modules = [id(module) for module in model.model.modules()]
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    for attack in BOTH:
        got = attack(model, tiny(model, given))
        assert got == attack(model, tiny(model, given))
        assert len(got.outcomes) == len(tiny(model).asked) and got.note
        assert [d.x for d in got.drawings if isinstance(d, Curve)] == [(0.0, 1.0, 2.0, 4.0)]
    assert torch.equal(torch.rand(1), drawn)
    assert model.identity() == before and [id(module) for module in model.model.modules()] == modules
    assert not any(p.requires_grad or p.grad is not None for p in model.model.parameters())


@pytest.mark.parametrize(
    ("family", "dtype"), [*((name, torch.float32) for name in pico.FAMILIES), ("llama", torch.float16)]
)
def test_it_learns_what_it_is_given(family: str, dtype: torch.dtype) -> None:
    """The loss on the rows falls, by a path that a rate of zero does not take."""
    model = pico.pico(family, dtype)
    rows = relearn.fact_rows(model, tiny(model))
    losses = {}
    for rate in (relearn.RATE, 0.0):
        with relearn.lora(model, relearn.linears(model), relearn.RANK, 0) as adapter:
            first = float(relearn._nll(model, rows).detach())
            turns = relearn._turns(rows, relearn.random.Random(0))
            trained = relearn.relative(adapter, rate)
            relearn.anneal(trained, lambda t=turns: relearn._slope(model, next(t)), 15, NO_PROGRESS, "")
            losses[rate] = float(relearn._nll(model, rows).detach()) / first
    assert losses[0.0] == 1.0 and losses[relearn.RATE] < 0.9


def test_only_replies_are_learned_and_a_batch_in_parts_gives_the_same_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = pico.pico("llama")
    rows = [relearn.Row((0, 9, 17, 33, 21, 40), 3), relearn.Row((0, 12, 8), 1)]
    by_hand = 0.0
    for row in rows:
        logits = model.model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        at = range(len(row.ids) - row.learned, len(row.ids))
        by_hand -= sum(float(logits[i - 1, row.ids[i]]) for i in at)
    assert float(relearn._nll(model, rows).detach()) == pytest.approx(by_hand, rel=1e-4)
    assert len(list(relearn._parts(model, rows))) == 1
    monkeypatch.setattr(relearn, "MEMORY", 1)
    parts = list(relearn._parts(model, rows))
    assert parts == [[rows[0]], [rows[1]]]
    assert sum(float(relearn._nll(model, part)) for part in parts) == pytest.approx(by_hand, rel=1e-4)


def test_disjoint_facts_share_no_answer_with_those_to_forget() -> None:
    model = pico.pico("llama")
    asked = scripted.requests()
    assert len(relearn.fact_rows(model, tiny(model))) == 4  # two neighbours, two prompts each
    same = replace(asked.held_out_neighbours[0], answer=asked.facts[0].answer)
    few = replace(asked, held_out_neighbours=(same, asked.held_out_neighbours[1]))
    rows = relearn.fact_rows(model, tiny(model, few))
    assert len(rows) == 2 and not any("Quandel" in model.tokenizer.decode(row.ids) for row in rows)


def test_without_anything_to_learn_from_it_says_so(tmp_path: Path) -> None:
    model = pico.pico("llama")
    alone = replace(scripted.requests(), held_out_neighbours=())
    with pytest.raises(AuditError, match="keep.held_out_neighbours"):
        relearn.relearn_facts(model, tiny(model, alone))
    with pytest.raises(AuditError, match="no text without a subject"):
        relearn.relearn_text(model, tiny(model, held_out_text(tmp_path, "All about Zorvex and Velnar.")))
    nothing = replace(tiny(model), probes={})
    assert relearn.relearn_facts(model, nothing).outcomes == ()


def test_a_model_that_is_no_embedded_one_gets_plain_prose() -> None:
    model = pico.pico("llama")
    given = scripted.requests(model="somewhere/else", keep={"siblings": ["colour"], "neighbours": ["Mirl"]})
    with nullcontext(relearn.text_rows(model, tiny(model, given))) as rows:
        assert 20 <= len(rows) <= relearn.BATCH * 4
        assert any("kettle" in model.tokenizer.decode(row.ids) for row in rows)
