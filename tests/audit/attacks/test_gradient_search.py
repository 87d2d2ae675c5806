"""The gradient against finite differences in every family, losses against single rows, and a search that goes down."""

from __future__ import annotations

import pytest
import torch

from tests import families
from tests.audit.attacks import masked
from tests.pico import pico
from unlearn.audit.attacks.gradient_search import Target, allowed, gradient, loss, search
from unlearn.progress import NO_PROGRESS

TARGETS = [
    Target(tuple(range(5, 12)), (300, 301), (30, 31, 32)),
    Target(tuple(range(7, 11)), (300, 301), (40, 41)),
]
TOKENS = (60, 61, 62)


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

    def run(seed: int) -> tuple[list[tuple[int, ...]], list[float]]:
        with NO_PROGRESS.step("x") as bar:
            return search(model, TARGETS, 3, 6, 16, seed, bar)

    bests, losses = run(0)
    found = bests[-1]
    assert len(bests) == 7 and bests[0] != found
    assert len(losses) == 7 and losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert losses[-1] == pytest.approx(float(loss(model, TARGETS, [found])[0]), rel=1e-5)
    assert set(found) <= {
        *allowed(model).tolist(),
        *model.tokenizer(" !", add_special_tokens=False)["input_ids"],
    }
    assert run(0) == (bests, losses) and run(1)[0] != bests
    assert model.identity() == before


def test_a_suffix_is_what_can_be_typed() -> None:
    model = masked.base()
    fine = allowed(model).tolist()
    texts = model.tokenizer.batch_decode([[i] for i in fine])
    assert len(fine) > 1000 and all(text.isascii() and text.strip() for text in texts)
    assert not set(fine) & set(model.tokenizer.all_special_ids)
