"""How likely a model holds given tokens behind given others, without a token said: teacher forcing.

A context is read once, whatever is rated behind it; the vocabulary is projected at rated tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from unlearn.model.budget import token_budget
from unlearn.model.cached import alike, begun
from unlearn.model.editable import EditableModel
from unlearn.model.forward import hooked
from unlearn.model.memory import in_parts
from unlearn.model.rows import finite, right_pad
from unlearn.model.trial import rows_of
from unlearn.progress import NO_PROGRESS, Progress

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


@torch.inference_mode()
def scored(
    model: EditableModel, rows: Sequence[Row], progress: Progress = NO_PROGRESS, label: str = "Rating"
) -> list[Scored]:
    """Log-probabilities of the last tokens of each row, in the order given.

    Args:
        model: in any state.
        rows: what is read and rated.
        progress: where to show it.
        label: what to call it.

    Raises:
        ModelError: the model's logits are not finite.
    """
    behind: dict[tuple[int, ...], list[int]] = {}
    for i, (ids, size) in enumerate(rows):
        behind.setdefault(ids[:-size], []).append(i)
    contexts = list(behind)
    endings = [[rows[i][0][-rows[i][1] :] for i in behind[context]] for context in contexts]
    found: list[Scored | None] = [None] * len(rows)

    def together(chosen: Sequence[int]) -> list[list[Scored]]:
        return _together(model, [contexts[c] for c in chosen], [endings[c] for c in chosen])

    with progress.step(label, total=len(rows)) as bar:
        for group in _batches(model, contexts, endings):
            for c, made in zip(group, in_parts(group, together), strict=True):
                for i, one in zip(behind[contexts[c]], made, strict=True):
                    found[i] = one
                bar.advance(len(made))
    return [one for one in found if one is not None]


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
