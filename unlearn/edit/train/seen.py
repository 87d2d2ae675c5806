"""The rows of a training as it sees them step after step, and what the unedited model says to them, read once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.edit.train.lessons import Lesson
from unlearn.model.editable import EditableModel
from unlearn.model.prompts import chat_front
from unlearn.model.upper import Upper

LEAST = 4
"""A shorter beginning is not worth the directions that it takes from the null space: one per token and layer."""


@dataclass(frozen=True)
class Pack:
    """Rows that are read together, and their replies' tokens one after another."""

    rows: tuple[int, ...]
    owners: Tensor
    """(tokens,), at which place in ``rows`` each token's row stands."""
    targets: Tensor
    """(tokens,), ids."""
    states: Tensor
    """(tokens, d_model), what predicts them by the model as it stands; gradients flow to what is trained."""
    kept: Tensor
    """(tokens,), whether the reply is one that must stay."""
    before: Tensor
    """(kept tokens, d_model), what predicts those by the unedited model."""

    def sums(self, each: Tensor, owners: Tensor) -> Tensor:
        """Of numbers of tokens, by the rows that own them, the sums per row, (rows,)."""
        return torch.zeros(len(self.rows), device=each.device).index_add(0, owners, each)


def front_of(model: EditableModel) -> tuple[int, ...]:
    """What every question begins with in the chat template, such as its system prompt; nothing where that is short."""
    front = chat_front(model.tokenizer)
    return front if len(front) >= LEAST else ()


class Seen:
    """Rows to be forgotten, then kept ones."""

    def __init__(
        self,
        model: EditableModel,
        forget: Sequence[Lesson],
        kept: Sequence[Lesson],
        first: int,
        front: Sequence[int],
        budget: int | None = None,
    ) -> None:
        """Read every row up to the first block that is written, and what is said to those that must stay.

        Args:
            forget: their replies are targets.
            kept: their replies are the model's own.
            first: the lowest layer that is trained.
            front: what rows in the chat template begin with; nothing is ever added at its tokens.
            budget: tokens of a pass with gradients; None: as many as the device bears at the time.
        """
        self.model, self._budget = model, budget
        self.lessons = (*forget, *kept)
        self._forget = len(forget)
        begun = [
            bool(front) and row.ids[: len(front)] == tuple(front) and len(row.ids) - row.reply > len(front)
            for row in self.lessons
        ]
        self._groups: list[Upper] = []
        self._place: dict[int, tuple[int, int]] = {}
        for behind in (True, False):
            mine = [i for i, one in enumerate(begun) if one is behind]
            self._place |= {i: (len(self._groups), n) for n, i in enumerate(mine)}
            ids = [self.lessons[i].ids for i in mine]
            self._groups.append(Upper(model, ids, first, front if behind and mine else ()))
        self._before = self._states(range(self._forget, len(self.lessons)))

    def packs(self, chosen: Iterable[int], gradients: bool = True) -> Iterator[list[int]]:
        """Some of the rows, one perhaps several times, in groups that are read together."""
        places = [(self._place[i], i) for i in chosen]
        by_place = dict(places)
        for number, upper in enumerate(self._groups):
            mine = [n for (group, n), _ in places if group == number]
            for pack in upper.packs(mine, gradients, self._budget if gradients else None):
                yield [by_place[number, n] for n in pack]

    def read(self, rows: Sequence[int]) -> Pack:
        """Read a group of rows by the model as it stands; gradients flow to what is trained."""
        replies = [self.lessons[i].ids[-self.lessons[i].reply :] for i in rows]
        before = [self._before[i] for i in rows if i >= self._forget]
        upper, places = self._of(rows)
        states = upper.states(places, list(map(len, replies)))
        device = states.device
        owners = torch.tensor([n for n, reply in enumerate(replies) for _ in reply], device=device)
        kept = torch.tensor([i >= self._forget for i in rows], device=device)[owners]
        targets = torch.tensor([token for reply in replies for token in reply], device=device)
        return Pack(
            tuple(rows), owners, targets, states, kept, torch.cat(before) if before else states[:0].detach()
        )

    @torch.no_grad()
    def _states(self, rows: Iterable[int]) -> dict[int, Tensor]:
        """What enters the output embedding at each row's reply, (reply, d_model)."""
        found: dict[int, Tensor] = {}
        for pack in self.packs(rows, gradients=False):
            upper, places = self._of(pack)
            sizes = [self.lessons[i].reply for i in pack]
            states = upper.states(places, sizes)
            found |= dict(zip(pack, states.split(sizes), strict=True))
        return found

    def _of(self, rows: Sequence[int]) -> tuple[Upper, list[int]]:
        places = [self._place[i] for i in rows]
        return self._groups[places[0][0]], [n for _, n in places]
