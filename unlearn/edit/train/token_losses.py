"""What a token of a reply loses while an update is trained, in nats, with the slope by its logits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SLACK = 0.1
"""A token of the target whose NLL is below this has no gradient: what holds is not driven further."""
AWAY = 0.5
"""Weight of the old reply."""


def lacking(
    logits: Tensor, targets: Tensor, old: Mapping[int, Tensor], margin: float
) -> tuple[Tensor, Tensor]:
    """max(0, NLL - SLACK) of targets, and where a reply begins AWAY * max(0, log p(B) + margin) as well.

    Args:
        logits: (n, V).
        targets: ids, (n,).
        old: per place that begins a reply the tokens B with which the old one did.
        margin: nats by which these are to be unlikely.

    Returns:
        The loss of each token, (n,), and its slope by the logits, (n, V).
    """
    now = logits.log_softmax(-1)
    every = torch.arange(len(targets), device=now.device)
    lost = -now[every, targets] - SLACK
    each, pull = lost.clamp_min(0), (lost > 0).float()
    begun = {place: (now[place, tokens], tokens) for place, tokens in old.items()}
    slope = now.exp_()
    scale = pull.clone()
    for place, (mine, _) in begun.items():
        left = mine.logsumexp(-1) + margin
        each[place] += AWAY * left.clamp_min(0)
        scale[place] -= AWAY * (left > 0).float()
    slope *= scale[:, None]
    slope[every, targets] -= pull
    for place, (mine, tokens) in begun.items():
        slope[place, tokens] += (pull[place] - scale[place]) * mine.softmax(-1)
    return each, slope


def likelihood(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """NLL of targets, (n,), and its slope by the logits, (n, V).

    Args:
        logits: (n, V).
        targets: ids, (n,).
    """
    every = torch.arange(len(targets), device=logits.device)
    now = logits.log_softmax(-1)
    each, slope = -now[every, targets], now.exp_()
    slope[every, targets] -= 1
    return each, slope


def divergence(logits: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """KL(before || now), (n,), and its slope by the logits, (n, V).

    Args:
        logits: (n, V).
        before: those of the unedited model, (n, V).
    """
    now, was = logits.log_softmax(-1), before.log_softmax(-1)
    likely = was.exp()
    each = torch.linalg.vecdot(likely, was.sub_(now))
    return each, now.exp_().sub_(likely)
