"""Rows that were read as far as they go, and can be read on from: what attention keeps of them is kept.

Rows that begin alike are read up to where they part once, for all of them: the system prompt of a chat template, or the
examples in front of a question. What attention keeps of a token depends on the tokens before it alone, so every row
goes on as if it had been read by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unlearn.model.library import Network
from unlearn.model.rows import left_pad, position_ids

if TYPE_CHECKING:
    from transformers import DynamicCache

SHARED = 12
"""Tokens that rows must have in common at their beginning for reading these once to be worth a pass of its own."""
TOGETHER = 16
"""Rows that must begin alike for being worth a batch of their own."""


@dataclass
class Cached:
    """Some rows, as far as they were read. Reading on changes it in place."""

    network: Network
    cache: DynamicCache
    mask: Tensor
    """(rows, columns read so far): which are no padding."""

    @classmethod
    def empty(cls, network: Network, rows: int) -> Cached:
        """Rows of which nothing was read yet."""
        from unlearn.model.growing import cache_for

        mask = torch.zeros(rows, 0, dtype=torch.long, device=network.device)
        return cls(network, cache_for(network.config), mask)

    def read(self, ids: Tensor, mask: Tensor, keep: int = 1) -> Tensor:
        """Read further columns, (rows, T): logits of the last ``keep`` of them (0: of all), in the model's dtype."""
        self.mask = torch.cat([self.mask, mask], 1)
        logits: Tensor = self.network(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=position_ids(self.mask)[:, -ids.shape[1] :],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
        return logits[:, -keep:]  # some families give all of them

    def choose(self, rows: Tensor) -> None:
        """Go on with some of the rows, each as often as its index is given."""
        # What is kept lies where its layers do: on several devices, indices from the host fit them all.
        split = len({layer.keys.device for layer in self.cache.layers if layer.is_initialized}) > 1
        self.cache.batch_select_indices(rows.cpu() if split else rows)
        self.mask = self.mask[rows]

    def copied(self) -> Cached:
        """The same rows, to be read on from in another way."""
        return Cached(self.network, copy.deepcopy(self.cache), self.mask)


def begun(network: Network, rows: Sequence[Sequence[int]], pad: int, room: int = 0) -> tuple[Cached, Tensor]:
    """Read rows in one batch, what all of them begin with once.

    Args:
        network: a transformers model.
        rows: ids without padding, one at least each.
        pad: an id to pad with.
        room: how many columns will be read later on.

    Returns:
        The rows as read, and the logits behind each of them, (rows, V).
    """
    state, ids, mask = prepared(network, rows, pad, room)
    return state, state.read(ids, mask)[:, -1]


def prepared(
    network: Network, rows: Sequence[Sequence[int]], pad: int, room: int = 0, most: int | None = None
) -> tuple[Cached, Tensor, Tensor]:
    """Read what rows begin with, if that is worth it, and lay out what is left of them: as ``begun``.

    Args:
        most: tokens of a beginning that may be read for all rows; None: as many as they have in common.

    Returns:
        The rows as read, and the ids and the mask that are to be read on, (rows, T).
    """
    front = front_of(network, rows, room, most)
    state = Cached.empty(network, 1 if front else len(rows))
    if front:
        ids = torch.tensor([list(rows[0][:front])], device=network.device)
        state.read(ids, torch.ones_like(ids))
        state.choose(torch.zeros(len(rows), dtype=torch.long, device=network.device))
    return state, *left_pad([row[front:] for row in rows], pad, network.device)


def front_of(network: Network, rows: Sequence[Sequence[int]], room: int = 0, most: int | None = None) -> int:
    """How many tokens all rows begin with, ``most`` at most, if reading them once is exact and worth it; else 0."""
    if len(rows) < 2:
        return 0
    longest, front = max(map(len, rows)), len(shared_front(rows)[:most])
    # Padding stands between the common front and the rest, and a window counts it.
    return front if front >= SHARED and longest + room <= shortest_window(network) else 0


def shared_front(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The beginning that all rows share; one token at least is left of every row."""
    if not rows:
        return ()
    return tuple(
        rows[0][: min(len(rows[0]) - 1, *(min(_common(rows[0], row), len(row) - 1) for row in rows))]
    )


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two rows begin with alike."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def shortest_window(network: Network) -> int:
    """The shortest sliding window of a model's layers, in tokens."""
    from transformers import DynamicCache

    layers = DynamicCache(config=network.config).layers
    return min((layer.sliding_window for layer in layers if layer.is_sliding), default=1 << 60)


def alike(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices of rows that begin alike, group by group; what begins like nothing else is one group."""
    order = sorted(range(len(rows)), key=lambda i: tuple(rows[i]))
    groups: list[list[int]] = []
    for at, i in enumerate(order):
        if at and _common(rows[order[at - 1]], rows[i]) >= SHARED:
            groups[-1].append(i)
        else:
            groups.append([i])
    alone = [i for group in groups if len(group) < TOGETHER for i in group]
    yield from (group for group in groups if len(group) >= TOGETHER)
    if alone:
        yield alone
