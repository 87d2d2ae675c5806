"""How likely a model holds given tokens behind given others, without a token said: teacher forcing.

A context is read once, whatever is rated behind it; the vocabulary is projected at rated tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from unlearn.model.budget import token_budget
from unlearn.model.cached import alike, begun
from unlearn.model.editable import EditableModel
from unlearn.model.forward import hooked
from unlearn.model.memory import in_parts
from unlearn.model.rows import finite, right_pad
from unlearn.model.standing import Standing
from unlearn.model.trial import rows_of
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.sums import Seat
from unlearn.team import seated, summed

MEMORY = 512 << 20
"""Bytes of float32 logits at a time."""
Row: TypeAlias = tuple[tuple[int, ...], int]
"""Token ids, and how many of the last ones are rated: one at least, and not all."""


class Scored(NamedTuple):
    """The rated tokens of one row, each given all tokens before it."""

    log_probs: tuple[float, ...]
    """In nats."""
    greedy: bool
    """Whether each of them is the likeliest."""


@dataclass(frozen=True)
class Rating:
    """Rows that several processes rate, in the batches of one: a task of `unlearn.team`."""

    standing: Standing
    """The model."""
    rows: Sequence[Row]
    together: Sequence[Sequence[int]]
    """Indices of contexts, batch by batch."""

    def share(self, seat: Seat, kept: MutableMapping[object, object]) -> list[Tensor]:
        """One process's scores: (rows, 1 + most rated tokens), float64, 0 where there is none.

        Whether the rated tokens are greedy stands before their log-probabilities.

        Raises:
            ModelError: the model's logits are not finite.
            Parted: there is no such model here.
        """
        return self.numbers(self.standing.there(kept), seat)

    def numbers(
        self, model: EditableModel, seat: Seat, progress: Progress = NO_PROGRESS, label: str = ""
    ) -> list[Tensor]:
        """As ``share``, with a model that is there."""
        mine = list(seat.of(self.together))
        found = torch.zeros(len(self.rows), 1 + max(size for _, size in self.rows), dtype=torch.float64)
        for i, one in _scored(model, _Contexts.of(self.rows), mine, progress, label).items():
            made = [float(one.greedy), *one.log_probs]
            found[i, : len(made)] = torch.tensor(made, dtype=torch.float64)
        return [found]

    def read(self, numbers: Tensor) -> list[Scored]:
        """The scores behind the numbers of all processes."""
        pairs = zip(self.rows, numbers.tolist(), strict=True)
        return [Scored(tuple(made[1 : size + 1]), bool(made[0])) for (_, size), made in pairs]


class _Contexts(NamedTuple):
    """Rows by what stands before their rated tokens, which is read once."""

    contexts: list[tuple[int, ...]]
    endings: list[list[tuple[int, ...]]]
    """Per context, what is rated behind it."""
    owners: list[list[int]]
    """And the rows that it stands in."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> _Contexts:
        behind: dict[tuple[int, ...], list[int]] = {}
        for i, (ids, size) in enumerate(rows):
            behind.setdefault(ids[:-size], []).append(i)
        endings = [[rows[i][0][-rows[i][1] :] for i in own] for own in behind.values()]
        return cls(list(behind), endings, list(behind.values()))


def scored(
    model: EditableModel, rows: Sequence[Row], progress: Progress = NO_PROGRESS, label: str = "Rating"
) -> list[Scored]:
    """Log-probabilities of the last tokens of each row, in the order given; by all processes of the run.

    Args:
        model: in any state.
        rows: what is read and rated.
        progress: where to show it.
        label: what to call it.

    Raises:
        UnlearnError: another process could not do its share.
        ModelError: the model's logits are not finite.
    """
    laid = _Contexts.of(rows)
    together = list(_batches(model, laid.contexts, laid.endings))
    standing = model.standing() if len(together) > 1 else None
    if standing is None:
        found = _scored(model, laid, together, progress, label)
        return [found[i] for i in range(len(rows))]
    task, seat = Rating(standing, rows, together), seated()
    (numbers,) = summed(task, seat, lambda: task.numbers(model, seat, progress, label))
    return task.read(numbers)


@torch.inference_mode()
def _scored(
    model: EditableModel,
    laid: _Contexts,
    together: Sequence[Sequence[int]],
    progress: Progress,
    label: str,
) -> dict[int, Scored]:
    """By row, the scores behind some of the contexts, batch by batch."""
    found: dict[int, Scored] = {}

    def each(chosen: Sequence[int]) -> list[list[Scored]]:
        return _together(model, [laid.contexts[c] for c in chosen], [laid.endings[c] for c in chosen])

    with progress.step(label, total=sum(len(laid.owners[c]) for group in together for c in group)) as bar:
        for group in together:
            for c, made in zip(group, in_parts(group, each), strict=True):
                found |= zip(laid.owners[c], made, strict=True)
                bar.advance(len(made))
    return found


def _batches(
    model: EditableModel,
    contexts: Sequence[tuple[int, ...]],
    endings: Sequence[Sequence[tuple[int, ...]]],
) -> Iterator[list[int]]:
    """Indices of contexts whose endings are rated together: as many tokens, and rated ones, as memory is meant for."""
    most_tokens, most_rated = 2 * token_budget(model), MEMORY // (4 * rows_of(model.model))
    for some in alike(contexts):
        group: list[int] = []
        count = rated = 0
        for c in sorted(some, key=lambda c: len(contexts[c])):
            width = len(contexts[c]) + max(map(len, endings[c]))
            mine, more = len(endings[c]), sum(map(len, endings[c]))
            if group and ((count + mine) * width > most_tokens or rated + more > most_rated):
                yield group
                group, count, rated = [], 0, 0
            group.append(c)
            count, rated = count + mine, rated + more
        yield group


def _together(
    model: EditableModel,
    contexts: Sequence[tuple[int, ...]],
    endings: Sequence[Sequence[tuple[int, ...]]],
) -> list[list[Scored]]:
    """Rate the endings of some contexts in one batch."""
    device = model.device
    width = max(len(ending) for some in endings for ending in some) - 1
    state, logits = begun(model.model, contexts, model.pad_id, width)
    owners = torch.tensor([c for c, some in enumerate(endings) for _ in some], device=device)
    every = [ending for some in endings for ending in some]
    firsts = torch.tensor([ending[0] for ending in every], device=device)
    rated = [[pair] for pair in _rated(logits, owners, firsts)]
    longer = [i for i, ending in enumerate(every) if len(ending) > 1]
    if longer:
        state.choose(owners[longer])
        ids, mask = right_pad([every[i] for i in longer], model.pad_id, device)
        shown = mask[:, 1:].bool()
        with projected(model, shown):
            logits = state.read(ids[:, :-1], mask[:, 1:], keep=0)[0]  # (rated, V)
        at = torch.arange(len(logits), device=device)
        later = iter(_rated(logits, at, ids[:, 1:][shown]))
        for i in longer:
            rated[i] += [next(later) for _ in every[i][1:]]
    made = iter(Scored(tuple(p for p, _ in pairs), all(best for _, best in pairs)) for pairs in rated)
    return [[next(made) for _ in some] for some in endings]


def _rated(logits: Tensor, rows: Tensor, tokens: Tensor) -> list[tuple[float, bool]]:
    """Of tokens (n,), each at a row of logits (rows, V): the log-probability, and whether it is the likeliest."""
    logits = finite(logits.float())
    log_probs = logits[rows, tokens] - logits.logsumexp(-1)[rows]
    return list(zip(log_probs.tolist(), (logits.argmax(-1)[rows] == tokens).tolist(), strict=True))


def projected(model: EditableModel, chosen: Tensor) -> AbstractContextManager[None]:
    """Within it, a pass gives logits at some tokens alone, (1, chosen, V): the head sees no others.

    Scaling and capping are the family's own. The pass must be asked for the logits of all tokens.

    Args:
        model: any family.
        chosen: (rows, T), true at these tokens.
    """

    def pick(_module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0][chosen.to(given[0].device)][None],)

    return hooked([model.model.get_output_embeddings().register_forward_pre_hook(pick)])
