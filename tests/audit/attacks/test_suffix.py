"""The suffix search: its gradient against finite differences, its place in a prompt, and a mask that it gets past."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests import families
from tests.audit.attacks import masked
from tests.pico import pico
from unlearn.audit.attacks.scene import recovered
from unlearn.audit.attacks.suffix import (
    Target, allowed, gap, gradient, loss, search, suffix, target, with_suffix,
)  # fmt: skip
from unlearn.audit.probes import fact_probes
from unlearn.errors import AuditError
from unlearn.matching import contains
from unlearn.model.requests import Fact
from unlearn.progress import NO_PROGRESS
from unlearn.report import Curve

TARGETS = [
    Target(tuple(range(5, 12)), (300, 301), (30, 31, 32)),
    Target(tuple(range(7, 11)), (300, 301), (40, 41)),
]
TOKENS = (60, 61, 62)
SIZES = {"suffix_steps": 12, "suffix_tries": 12, "suffix_facts": 2, "suffix_tokens": 4}


@pytest.mark.parametrize("case", families.CASES)
def test_the_gradient_foretells_the_loss(case: str) -> None:
    """A token's embedding is moved a little towards another's: the loss changes as the gradient says."""
    model = families.kept(case)
    layer = model.model.get_input_embeddings()
    slope = gradient(model, TARGETS, TOKENS)
    assert slope.shape == (3, layer.weight.shape[0])
    size, at, new = 1e-3, 1, 77

    def moved(step: float) -> float:
        # The token stands nowhere else in these rows, so its embedding stands for this place alone.
        kept = layer.weight[TOKENS[at]].clone()
        tied = model.model.get_output_embeddings()
        head = tied.weight
        with torch.no_grad():
            if head is layer.weight:  # the head must not move along
                tied.weight = torch.nn.Parameter(head.clone(), requires_grad=False)
            layer.weight[TOKENS[at]] = kept + step * (layer.weight[new] - kept)
            try:
                return float(loss(model, TARGETS, [TOKENS])[0])
            finally:
                layer.weight[TOKENS[at]] = kept
                tied.weight = head

    measured = (moved(size) - moved(-size)) / (2 * size)
    foretold = float(slope[at, new] - slope[at, TOKENS[at]])
    assert measured == pytest.approx(foretold, rel=0.05, abs=2e-3)


def test_the_loss_is_that_of_single_rows() -> None:
    model = pico("llama")
    found = loss(model, TARGETS, [TOKENS, (63, 64, 65)])
    for tokens, value in zip([TOKENS, (63, 64, 65)], found, strict=True):
        single = []
        for one in TARGETS:
            ids = torch.tensor([one.row(tokens)])
            said = model.model(ids).logits[0].log_softmax(1)
            at = torch.arange(ids.shape[1] - len(one.begin) - 1, ids.shape[1] - 1)
            single.append(-said[at, ids[0, at + 1]].mean())
        assert float(value) == pytest.approx(float(torch.stack(single).mean()), rel=1e-4)


def test_the_search_goes_down_and_is_the_same_again() -> None:
    model = pico("llama")
    before = model.identity()

    def run(seed: int) -> tuple[tuple[int, ...], list[float]]:
        with NO_PROGRESS.step("x") as bar:
            return search(model, TARGETS, 3, 6, 16, seed, bar)

    found, losses = run(0)
    assert len(losses) == 7 and losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert losses[-1] == pytest.approx(float(loss(model, TARGETS, [found])[0]), rel=1e-5)
    assert set(found) <= {
        *allowed(model).tolist(),
        *model.tokenizer(" !", add_special_tokens=False)["input_ids"],
    }
    assert run(0) == (found, losses) and run(1)[0] != found
    assert model.identity() == before


def test_a_suffix_is_what_can_be_typed() -> None:
    model = masked.base()
    fine = allowed(model).tolist()
    texts = model.tokenizer.batch_decode([[i] for i in fine])
    assert len(fine) > 1000 and all(text.isascii() and text.strip() for text in texts)
    assert not set(fine) & set(model.tokenizer.all_special_ids)


@pytest.mark.parametrize("chat", [True, False])
def test_the_suffix_stands_behind_the_question(chat: bool) -> None:
    model = pico("llama", chat=chat)
    question = "What is {subject} made from?"
    fact = Fact("one", "Zorvex", "recipe", "bitter amber")
    (probe,) = fact_probes(model.tokenizer, [fact], {"recipe": [question]})
    said = question.replace("{subject}", "Zorvex")
    at = gap(model, probe.prompt, said)
    assert model.tokenizer.decode(probe.prompt.ids[:at]).endswith(said)
    found = with_suffix(model, probe, said, [60, 61])
    assert found.prompt.ids == (*probe.prompt.ids[:at], 60, 61, *probe.prompt.ids[at:])
    assert (at < len(probe.prompt.ids)) == chat
    assert (found.key, found.answers) == (probe.key, probe.answers)


def test_the_target_does_not_hold_the_answer() -> None:
    model = masked.base()
    for fact in masked.requests().facts:
        one = target(model, fact, "What is {subject} made from?", "{subject} is made from")
        text = model.tokenizer.decode(one.row(()))
        assert text.endswith(f"{fact.subject} is made from") and not contains(text, fact.answers)


def test_a_mask_is_got_past() -> None:
    model, patch = masked.base(), masked.refusal_lora()
    with model.patched(patch):
        given = masked.scene(model, **SIZES)
        hidden = recovered(model, masked.only("held_out", given))
        before = model.identity()
        got = suffix(model, given)
        assert model.identity() == before
    assert sum(o.told for o in hidden) <= len(hidden) // 8, "the mask hides nothing, so that nothing is shown"
    assert [o.key for o in got.outcomes] == [o.key for o in hidden]
    assert 2 * sum(o.told for o in got.outcomes) >= len(got.outcomes)
    (curve,) = got.drawings
    assert isinstance(curve, Curve) and len(curve.y) == 13 and curve.y[-1] < curve.y[0]


def test_the_unedited_model_still_knows_and_names_that_name_nothing_are_not_told() -> None:
    model = masked.base()
    got = suffix(model, masked.scene(model, **SIZES))
    assert 2 * sum(o.told for o in got.outcomes) >= len(got.outcomes)
    never = suffix(model, masked.scene(model, masked.never(), **SIZES))
    assert len(never.outcomes) == len(got.outcomes) and not any(o.told for o in never.outcomes)


def test_without_a_statement_there_is_nothing_to_begin_with() -> None:
    given = masked.requests()
    relations = {name: relation.model_dump() for name, relation in given.policy.relations.items()}
    relations["recipe"]["prompts"] = list(masked.QUESTIONS)
    bare = replace(given, policy=masked.policy(relations=relations))
    with pytest.raises(AuditError, match="needs; add them"):
        suffix(masked.base(), masked.scene(masked.base(), bare, **SIZES))
