"""Losses of tokens, and their slopes against automatic ones, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from unlearn.edit.train.token_losses import AWAY, SLACK, divergence, lacking, likelihood

TOKENS, WIDE, MARGIN = 6, 50, 3.0


def drawn(seed: int, length: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return length * torch.randn(TOKENS, WIDE, generator=generator, dtype=torch.float64)


def test_what_a_target_lacks_and_its_slope() -> None:
    logits, targets = drawn(0), torch.tensor([4, 7, 7, 0, 49, 12])
    logits[1, 7] = 40.0  # met: no slope
    logits[3, 20] = 40.0
    old = {0: torch.tensor([3, 9]), 2: torch.tensor([30]), 3: torch.tensor([5, 6, 8])}
    logits[0, 3] = (
        9.0  # the old reply is likely here, and in the last place much less likely than it needs to be
    )
    leaf = logits.clone().requires_grad_()
    now = leaf.log_softmax(-1)
    wanted = (-now[torch.arange(TOKENS), targets] - SLACK).clamp_min(0)
    for place, tokens in old.items():
        more = AWAY * (now[place, tokens].logsumexp(-1) + MARGIN).clamp_min(0)
        wanted = wanted + more * torch.eye(TOKENS, dtype=torch.float64)[place]
    (slope,) = torch.autograd.grad(wanted.sum(), leaf)
    each, found = lacking(logits, targets, old, MARGIN)
    torch.testing.assert_close(each, wanted.detach())
    torch.testing.assert_close(found, slope)
    assert each[1] == 0 and not found[1].any()
    alone, _ = lacking(logits, targets, {}, MARGIN)
    assert each[0] > alone[0] and each[3] == alone[3]


def test_likelihood_and_its_slope() -> None:
    logits, targets = drawn(3), torch.tensor([4, 7, 7, 0, 49, 12])
    leaf = logits.clone().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(leaf, targets, reduction="none")
    (slope,) = torch.autograd.grad(wanted.sum(), leaf)
    each, found = likelihood(logits, targets)
    torch.testing.assert_close(each, wanted.detach())
    torch.testing.assert_close(found, slope)


def test_divergence_and_its_slope() -> None:
    logits, before = drawn(1), drawn(2)
    leaf = logits.clone().requires_grad_()
    now, was = leaf.log_softmax(-1), before.log_softmax(-1)
    wanted = (was.exp() * (was - now)).sum(-1)
    (slope,) = torch.autograd.grad(wanted.sum(), leaf)
    each, found = divergence(logits, before)
    torch.testing.assert_close(each, wanted.detach())
    torch.testing.assert_close(found, slope)
    each, found = divergence(before, before.clone())
    assert each.abs().max() < 1e-12 and found.abs().max() < 1e-12
