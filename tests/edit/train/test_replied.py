"""Losses of replies and their gradients, against whole passes over single rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import families, pico
from unlearn.edit.train.lessons import Lesson, Lessons
from unlearn.edit.train.loop import Losses
from unlearn.edit.train.replied import Held, Replied, Said, per_token
from unlearn.model.adapters import Adapter, dense, linears
from unlearn.model.editable import EditableModel

FORGET = tuple(Lesson((3 + n, 9 + n, 11, 12 + n % 3, 5, 7)[: 6 - n % 3], 2 + n % 2) for n in range(5))
KEPT = tuple(Lesson((8, 20 + n, 4, 17, 6 + n)[: 5 - n % 2], 1 + n % 3) for n in range(4))
KEEP = 3.0
CASES = ("gpt2", "llama", "gemma2")


def logits(model: EditableModel, row: Lesson) -> Tensor:
    """Of one whole pass, at what predicts the reply, (reply, V)."""
    found: Tensor = model.model(input_ids=torch.tensor([row.ids]), use_cache=False).logits
    return found[0, -row.reply - 1 : -1].float()


def nll(model: EditableModel, row: Lesson) -> Tensor:
    targets = torch.tensor(row.ids[-row.reply :])
    return torch.nn.functional.cross_entropy(logits(model, row), targets, reduction="sum")


def moved(model: EditableModel, adapter: Adapter, row: Lesson, how: Held) -> Tensor:
    if how == "nll":
        return nll(model, row) / row.reply
    now = logits(model, row).log_softmax(-1)
    with adapter.off(), torch.no_grad():
        was = logits(model, row).log_softmax(-1)
    return (was.exp() * (was - now)).sum() / row.reply


def squared(said: Said) -> Tensor:
    """Not linear in what a row's tokens lose, so that only whole rows will do."""
    return per_token(said).square() + said.nll / 10


@pytest.mark.parametrize("how", ["kl", "nll"])
@pytest.mark.parametrize("family", CASES)
def test_losses_and_gradients_are_those_of_whole_passes(family: str, how: Held) -> None:
    model = families.kept(family)
    forget, kept = [4, 0, 0, 2], [3, 1]  # one of them twice
    with dense(model, linears(model, "mlp", (1, 2))) as adapter:
        rows = Replied(model, Lessons(FORGET, KEPT), first=1)
        generator = torch.Generator().manual_seed(0)
        leaves = [leaf for group in adapter.groups for leaf in group["params"]]
        with torch.no_grad():
            for leaf in leaves:
                leaf += 0.05 * torch.randn(leaf.shape, generator=generator)
        losses = [nll(model, FORGET[i]) for i in forget]
        lost = torch.stack(
            [(loss / FORGET[i].reply).square() + loss / 10 for i, loss in zip(forget, losses, strict=True)]
        ).mean()
        held = torch.stack([moved(model, adapter, KEPT[i], how) for i in kept]).mean()
        wanted = torch.autograd.grad(lost + KEEP * held, leaves)
        got = rows.step(squared, KEEP, how)(forget, kept)
        assert got == pytest.approx((lost.item(), held.item()), rel=1e-4)
        for leaf, slope in zip(leaves, wanted, strict=True):
            assert leaf.grad is not None
            torch.testing.assert_close(leaf.grad, slope, rtol=1e-3, atol=1e-5)
        assert rows.means(squared, forget, kept, how) == pytest.approx(got, rel=1e-4)
        each = [nll(model, row).item() for row in FORGET]
        assert rows.sums().tolist() == pytest.approx(each, rel=1e-4)
        with adapter.off():  # the control: nothing has moved
            still = rows.means(squared, forget, kept, "kl")
        assert still.keep < 1e-6 < got.keep and still.forget != pytest.approx(got.forget, rel=1e-3)


def test_without_kept_rows_there_is_nothing_to_keep() -> None:
    model = pico.pico("llama")
    with dense(model, linears(model, "mlp", (1,))):
        rows = Replied(model, Lessons(FORGET, ()))
        with torch.enable_grad():
            step = rows.step(per_token, KEEP)([1], [])
        means = rows.means(per_token, [1], [])
    assert step == pytest.approx(means) and step.keep == 0 and isinstance(step, Losses)


def test_a_reply_is_the_likeliest_if_every_token_of_it_is() -> None:
    model = pico.pico("llama")
    own = list(FORGET[0].ids)
    for _ in range(3):
        own.append(int(model.model(input_ids=torch.tensor([own])).logits[0, -1].argmax()))
    greedy = Lesson(tuple(own), 3)
    other = Lesson((*own[:-1], (own[-1] + 1) % 50), 3)
    rows = Replied(model, Lessons((greedy, other), ()))
    assert rows.likeliest([0]) == 1 and rows.likeliest([1]) == 0 and rows.likeliest([0, 1]) == 0.5
