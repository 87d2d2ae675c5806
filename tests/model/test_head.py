"""What is said from the states, in every family; a loss in blocks and its slope are those of one piece."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests import families
from unlearn.model import head
from unlearn.model.editable import EditableModel
from unlearn.model.head import logits_of, token_losses

ROW = (3, 4, 5, 6, 7, 8, 9)


def entering(model: EditableModel) -> tuple[Tensor, Tensor]:
    """What enters the output embedding at every token of a row, and what the family says there."""
    caught: list[Tensor] = []
    handle = model.model.get_output_embeddings().register_forward_pre_hook(
        lambda _module, given: caught.append(given[0][0])
    )
    said = model.model(input_ids=torch.tensor([ROW]), use_cache=False).logits[0]
    handle.remove()
    return caught[0].detach(), said.detach().float()


@pytest.mark.parametrize("family", families.CASES)
def test_logits_are_the_familys_own(family: str) -> None:
    model = families.kept(family)
    states, said = entering(model)
    torch.testing.assert_close(logits_of(model, states), said, rtol=1e-5, atol=1e-5)
    assert "forward" not in vars(model.model.base_model)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_losses_in_blocks_and_their_slopes_are_those_of_one_piece(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = families.kept(family)
    states, said = entering(model)
    targets = torch.arange(len(ROW))
    weights = torch.linspace(-1, 2, len(ROW))
    seen: list[int] = []

    def plain(logits: Tensor, at: slice) -> Tensor:
        seen.append(len(logits))
        return -(logits.log_softmax(-1).gather(-1, targets[at, None])[:, 0] ** 2)

    def loss(logits: Tensor, at: slice) -> tuple[Tensor, Tensor]:
        leaf = logits.clone().requires_grad_()
        with torch.enable_grad():
            each = plain(leaf, at)
            (slope,) = torch.autograd.grad(each.sum(), leaf)
        return each.detach(), slope

    monkeypatch.setattr(head, "BLOCK", 3 * said.shape[1])
    slopes = []
    for blocked in (True, False):
        leaf = states.clone().requires_grad_()
        whole = slice(0, len(ROW))
        each = token_losses(model, leaf, loss) if blocked else plain(logits_of(model, leaf), whole)
        slopes += [each.detach(), *torch.autograd.grad((weights * each).sum(), leaf)]
    assert seen == [3, 3, 1, 7]
    torch.testing.assert_close(slopes[0], slopes[2])
    torch.testing.assert_close(slopes[1], slopes[3])
    assert not token_losses(model, states[:0], loss).numel()
