"""Rows continued by all processes of a run, each its share of the batches that one process would make."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlearn.model.ends import Ends
from unlearn.model.generation import Decoding, batches, continued
from unlearn.model.library import Network
from unlearn.model.standing import Likeness, Standing
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.sums import Seat
from unlearn.team import seated, summed

Rows = Sequence[Sequence[int]]
Said = list[list[tuple[int, ...]]]
"""Per row its continuations."""


@dataclass(frozen=True)
class Continuing:
    """Rows that several processes continue: a task of `unlearn.team`.

    A reply's random numbers depend on its row alone (`Decoding.numbers`), and the batches are those of one process, so
    the replies are, too.
    """

    standing: Standing
    """The model."""
    rows: Rows
    together: Sequence[Sequence[int]]
    """Indices of rows, batch by batch."""
    pad: int
    ends: Ends
    """Without its tokenizer, which each process has."""
    how: Decoding

    def share(self, seat: Seat, kept: MutableMapping[object, object]) -> list[Tensor]:
        """One process's replies: (rows, samples, tokens), int32, ids plus one, and 0 where there is none.

        Raises:
            ModelError: the model's logits are not finite.
            Parted: there is no such model here.
        """
        model = self.standing.there(kept)
        return self.ids(model.model, replace(self.ends, tokenizer=model.tokenizer), seat)

    def ids(
        self, network: Network, ends: Ends, seat: Seat, progress: Progress = NO_PROGRESS, label: str = ""
    ) -> list[Tensor]:
        """As ``share``, with a model that is there."""
        mine = [list(group) for group in seat.of(self.together)]
        said = continued(network, self.rows, self.pad, ends, self.how, progress, label, mine)
        found = torch.zeros(len(self.rows), self.how.samples, self.how.max_new_tokens, dtype=torch.int32)
        for i, replies in enumerate(said):
            for sample, ids in enumerate(replies):
                found[i, sample, : len(ids)] = torch.tensor(ids, dtype=torch.int32) + 1
        return [found]


def continued_together(
    network: Network,
    likeness: Likeness | None,
    rows: Rows,
    pad: int,
    ends: Ends,
    how: Decoding,
    progress: Progress,
    label: str,
) -> Said:
    """As ``generation.continued``, by all processes of this run that can have the model.

    Raises:
        UnlearnError: another process could not do its share.
        ModelError: the model's logits are not finite.
    """
    together = batches(network, rows, how) if likeness else []
    standing = likeness.standing() if likeness and len(together) > 1 else None
    if standing is None:
        return continued(network, rows, pad, ends, how, progress, label)
    seat = seated()
    task = Continuing(standing, rows, together, pad, replace(ends, tokenizer=None), how)
    (found,) = summed(task, seat, lambda: task.ids(network, ends, seat, progress, label))
    lengths = (found > 0).sum(-1).tolist()
    return [
        [tuple(ids[:length]) for ids, length in zip(said, sizes, strict=True)]
        for said, sizes in zip((found - 1).tolist(), lengths, strict=True)
    ]
