"""Long targets in chunks (AnyEdit, Jiang et al., ICML 2025): each is led by a value at the token before it.

One value carries only so many tokens. The target is cut into windows; the value of a chunk stands at the last token of
the chunk before it (the last prompt token for the first), and is optimised with the chunks before it teacher-forced and
their values in place. All are then written in one solve, in which every other token of the prompt and the target is a
kept key: what leads from one chunk to the next must not move.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from unlearn.edit.forms import Forms, Row
from unlearn.edit.sequence import Reached
from unlearn.edit.settings import Values
from unlearn.edit.solve.values import Solved, optimise
from unlearn.model.editable import EditableModel
from unlearn.progress import NO_PROGRESS, Progress


def chunked(row: Row, window: int) -> list[Row]:
    """The row cut after each of its chunks; the reply of each piece is its last chunk alone, with the sites so far."""
    start = len(row.ids) - row.reply
    pieces = []
    for begin in range(start, len(row.ids), window):
        end = min(begin + window, len(row.ids))
        sites = tuple((vector, at) for vector, at in row.sites if at < begin)
        pieces.append(replace(row, ids=row.ids[:end], reply=end - begin, sites=sites))
    return pieces


def optimise_chunks(
    model: EditableModel,
    forms: Forms,
    requests: int,
    layer: int,
    settings: Values,
    window: int,
    progress: Progress = NO_PROGRESS,
    label: str = "Values",
) -> Solved:
    """Optimise the vectors chunk by chunk, each with those before it in place.

    Args:
        forms: rows whose sites stand before each chunk (``forms.build`` with a window).
        layer: the vectors are added to this block's output.
        window: target tokens per chunk.

    Returns:
        All vectors; per request the worst chunk's loss, and the steps of all its chunks together.
    """
    cut = [chunked(row, window) for row in forms.rows if not row.keep]
    vectors = torch.zeros(forms.vectors, model.anatomy.d_model, device=model.device)
    worst, steps = [0.0] * requests, [0] * requests
    longest = max(map(len, cut))
    for number in range(longest):
        rows = tuple(pieces[number] for pieces in cut if number < len(pieces))
        free = torch.zeros(forms.vectors, dtype=torch.bool, device=model.device)
        free[[row.sites[-1][0] for row in rows]] = True
        title = f"{label}, chunk {number + 1}/{longest}" if longest > 1 else label
        part = Forms(rows, forms.vectors, ())
        solved = optimise(model, part, requests, layer, settings, progress, title, vectors, free)
        vectors = solved.vectors
        worst = [max(pair) for pair in zip(worst, solved.reached.nll, strict=True)]
        steps = [sum(pair) for pair in zip(steps, solved.reached.steps, strict=True)]
    return Solved(vectors, Reached(tuple(worst), (0.0,) * requests, tuple(steps)))


def surroundings(forms: Forms) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """(ids, positions) of every token of the rows to be written that is no site, each context once.

    In a causal model the key of a token depends on the ids up to it alone: rows that begin alike share their tokens.
    """
    rows = [row for row in forms.rows if not row.keep]
    taken = {row.ids[: at + 1] for row in rows for _, at in row.sites}
    found = []
    for row in rows:
        places = []
        for at in range(len(row.ids) - 1):  # the last token predicts nothing that was asked for
            prefix = row.ids[: at + 1]
            if prefix not in taken:
                taken.add(prefix)
                places.append(at)
        if places:
            found.append((row.ids, tuple(places)))
    return tuple(found)
