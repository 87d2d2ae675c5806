"""Losses of a baseline's rows by their replies: only these tokens meet the vocabulary, and block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unlearn.edit.train.lessons import Lessons
from unlearn.edit.train.loop import Losses, Step
from unlearn.edit.train.seen import Pack, Seen
from unlearn.edit.train.token_losses import divergence, likelihood
from unlearn.model.editable import EditableModel
from unlearn.model.head import Loss, logits_of, token_losses

Held = Literal["kl", "nll"]
"""How a kept reply is held: KL(before || now) per token, or the NLL of the model's own reply per token."""


class Said(NamedTuple):
    """Of some rows that were read together."""

    rows: Sequence[int]
    """Which rows."""
    nll: Tensor
    """Of each reply, (rows,), nats."""
    tokens: Tensor
    """Of each reply, (rows,)."""


Forgetting = Callable[[Said], Tensor]
"""What is minimised on rows to be forgotten, (rows,)."""


def per_token(said: Said) -> Tensor:
    """The NLL per token, (rows,)."""
    return said.nll / said.tokens


class Replied:
    """Rows to be forgotten and kept ones, read again and again while something is trained."""

    def __init__(self, model: EditableModel, learned: Lessons, first: int = 0) -> None:
        """Read what the unedited model says to kept rows.

        Args:
            model: unedited, as are all adapters: they add nothing yet.
            learned: the rows.
            first: the lowest block that is trained.
        """
        self.model = model
        self.forget, self.kept = range(len(learned.forget)), range(len(learned.kept))
        self._seen = Seen(model, learned.forget, learned.kept, first, ())

    def said(self, rows: Sequence[int], gradients: bool = True) -> Iterator[Said]:
        """How likely the replies of some rows to be forgotten are now, as many rows at a time as a pass takes."""
        for pack in self._packs(rows, gradients):
            yield self._said(pack)

    @torch.no_grad()
    def sums(self) -> Tensor:
        """The NLL of the reply of every row to be forgotten, as it stands, (rows,)."""
        found = torch.zeros(len(self.forget), device=self.model.device)
        for said in self.said(self.forget, gradients=False):
            found[list(said.rows)] = said.nll
        return found

    def held(self, rows: Sequence[int], how: Held, gradients: bool = True) -> Iterator[Tensor]:
        """How far the replies of some kept rows have moved, (rows of a pass,)."""
        for pack in self._packs([len(self.forget) + i for i in rows], gradients):
            yield per_token(self._said(pack)) if how == "nll" else self._diverged(pack)

    @torch.no_grad()
    def means(
        self, forgetting: Forgetting, forget: Sequence[int], kept: Sequence[int], how: Held = "kl"
    ) -> Losses:
        """Both losses as they stand: as ``step`` has them, without gradients."""
        lost = [forgetting(said) for said in self.said(forget, gradients=False)]
        stayed = [*self.held(kept, how, gradients=False), torch.zeros(0, device=self.model.device)]
        return Losses(float(torch.cat(lost).mean()), float(torch.cat(stayed).sum()) / max(len(kept), 1))

    @torch.no_grad()
    def likeliest(self, rows: Sequence[int]) -> float:
        """Share of some rows to be forgotten of whose reply every token is the likeliest."""
        wrong = [self._missed(pack) for pack in self._packs(rows, gradients=False)]
        return float((torch.cat(wrong) == 0).float().mean())

    def step(self, forgetting: Forgetting, keep: float, how: Held = "kl") -> Step:
        """What ``minimise`` takes.

        Args:
            forgetting: what is minimised on rows to be forgotten.
            keep: weight of kept rows.
            how: they are held.
        """

        def step(forget: Sequence[int], kept: Sequence[int]) -> Losses:
            lost = _descend((forgetting(said) for said in self.said(forget)), 1 / len(forget))
            stayed = _descend(self.held(kept, how), keep / max(len(kept), 1))
            return Losses(lost / len(forget), stayed / max(len(kept), 1))

        return step

    def _packs(self, rows: Sequence[int], gradients: bool) -> Iterator[Pack]:
        for group in self._seen.packs(rows, gradients):
            yield self._seen.read(group)

    def _said(self, pack: Pack) -> Said:
        nll = self._sums(pack, lambda logits, at: likelihood(logits, pack.targets[at]))
        return Said(pack.rows, nll, pack.owners.bincount())

    def _diverged(self, pack: Pack) -> Tensor:
        sums = self._sums(pack, lambda logits, at: divergence(logits, logits_of(self.model, pack.before[at])))
        return sums / pack.owners.bincount()

    def _missed(self, pack: Pack) -> Tensor:
        """Per row how many tokens of its reply are not the likeliest; of no use for a gradient."""
        return self._sums(pack, lambda logits, at: ((logits.argmax(-1) != pack.targets[at]).float(), logits))

    def _sums(self, pack: Pack, loss: Loss) -> Tensor:
        return pack.sums(token_losses(self.model, pack.states, loss), pack.owners)


def _descend(losses: Iterator[Tensor], weight: float) -> float:
    """Add the gradients of losses, all of one weight; their sum."""
    total = 0.0
    for each in losses:
        lost = each.sum()
        (weight * lost).backward()
        total += lost.item()
    return total
