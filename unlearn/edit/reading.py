"""Second moments of the keys of all edited layers, in one pass over a corpus, which several processes may share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearn.algebra.moments import Moments
from unlearn.edit.corpus import Corpus
from unlearn.errors import UnlearnError
from unlearn.model.budget import free_memory, token_budget
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import started, text_ids
from unlearn.model.forward import Stopped, batches, hooked, passed
from unlearn.model.memory import of_host
from unlearn.model.rows import left_pad
from unlearn.model.standing import Standing
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.sums import Seat
from unlearn.team import seated, summed

LONGEST = 512
"""Tokens per piece of a document: long documents are cut, so that memory does not depend on the corpus."""


@dataclass(frozen=True)
class Reading:
    """A corpus that several processes read, each a share of its batches: a task of `unlearn.team`.

    What the sum of their sums differs by from that of one process is the order of float64 additions alone.
    """

    standing: Standing
    """The model."""
    layers: tuple[int, ...]
    batches: Sequence[list[list[int]]]
    """Rows of ids. Not the corpus, which may be what the model writes: that the first process has done by all."""
    tokens: int

    def share(self, seat: Seat, kept: MutableMapping[object, object]) -> list[Tensor]:
        """Sums of one process's batches per layer, as ``Moments``, and how many keys they are of; float64, on the host.

        Raises:
            Parted: there is no such model here.
        """
        return self.sums(self.standing.there(kept), seat)

    def sums(self, model: EditableModel, seat: Seat, progress: Progress = NO_PROGRESS) -> list[Tensor]:
        """As ``share``, on a model that is there."""
        found = _moments(model, self.layers, seat.of(self.batches), self.tokens, progress)
        count = torch.tensor(float(next(iter(found.values())).count), dtype=torch.float64)
        return [*(found[layer].total.cpu() for layer in self.layers), count]


def collected(
    model: EditableModel, layers: Sequence[int], corpus: Corpus, tokens: int, progress: Progress
) -> dict[int, Moments]:
    """The moments of the keys at every token, read by all processes of the run if there are several.

    Raises:
        UnlearnError: the corpus is too short, the sums are larger than the memory, or another process could not read
            its share.
    """
    seat, standing, budget = seated(), model.standing(), token_budget(model)
    batched = _batched(model, corpus, tokens, budget)
    if standing is None:
        moments = _moments(model, layers, batched, tokens, progress)
    else:
        task = Reading(standing, tuple(layers), list(batched), tokens)
        *totals, number = summed(task, seat, lambda: task.sums(model, seat, progress))
        moments = {layer: Moments.of(total, int(number)) for layer, total in zip(layers, totals, strict=True)}
    count = next(iter(moments.values())).count
    anatomy = model.anatomy
    needed = 2 * anatomy.d_ff // anatomy.routed  # then an expert sees twice its width, on average
    if count < needed:
        raise UnlearnError(
            f"statistics.corpus: {corpus.name} gave {count} tokens; {needed} or more are needed for "
            f"keys of length {anatomy.d_ff}"
        )
    return moments


def place_for(model: EditableModel, matrices: int) -> torch.device:
    """Where second moments, or so many as large, float64, go: on a GPU if half of its free memory is left."""
    free, anatomy = free_memory(model.device), model.anatomy
    fits = free is not None and matrices * anatomy.experts * anatomy.width**2 * 8 < free // 2
    return model.device if fits else torch.device("cpu")


def _refuse_too_large(model: EditableModel, layers: int, place: torch.device) -> None:
    """Refuse sums that all of the host's memory would not hold; the process would be ended without a word."""
    anatomy = model.anatomy
    needed = 8 * layers * anatomy.experts * anatomy.width**2
    if place.type == "cpu" and needed > of_host():
        raise UnlearnError(
            f"the key statistics of {layers} layers take {needed / 2**30:.0f} GiB, and this machine has "
            f"{of_host() / 2**30:.0f}: write fewer layers (method.layers), or use a larger machine"
        )


@torch.inference_mode()
def _moments(
    model: EditableModel,
    layers: Sequence[int],
    batched: Iterator[list[list[int]]],
    tokens: int,
    progress: Progress,
) -> dict[int, Moments]:
    place = place_for(model, len(layers))
    _refuse_too_large(model, len(layers), place)
    moments = {layer: Moments(model.anatomy.d_ff, place, model.anatomy.experts) for layer in layers}
    with progress.step("Key statistics", total=tokens) as bar:
        for rows in batched:
            ids, mask = left_pad(rows, model.pad_id, model.device)
            seen = mask.bool()
            with _gather(model, moments, seen), suppress(Stopped):
                passed(model, ids, mask)
            bar.advance(int(seen.sum()))
    return moments


def _gather(
    model: EditableModel, moments: Mapping[int, Moments], seen: Tensor
) -> AbstractContextManager[None]:
    """Feed the keys of attended tokens to the moments during one forward pass, which ends at the deepest layer."""

    def feeding(layer: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def on_key(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            moments[layer].update(args[0][seen.to(args[0].device)])
            if layer == max(moments):
                raise Stopped

        return on_key

    return hooked(
        model.anatomy.down(model.model, layer).register_forward_pre_hook(feeding(layer)) for layer in moments
    )


def _batched(model: EditableModel, corpus: Corpus, tokens: int, budget: int) -> Iterator[list[list[int]]]:
    """Batches of rows of ids within a budget, until ``tokens`` tokens have been handed out."""
    pool: list[list[int]] = []
    left = tokens
    for document in corpus.documents():
        ids = text_ids(model.tokenizer, document)[: max(left, 0)]
        pool += _cut(ids, min(LONGEST, model.context), started(model.tokenizer, ids))
        left -= len(ids)
        if left <= 0 or sum(map(len, pool)) >= 8 * budget:
            yield from _grouped(pool, budget)
            pool = []
        if left <= 0:
            return
    yield from _grouped(pool, budget)


def _cut(ids: list[int], longest: int, start: int) -> list[list[int]]:
    """Pieces of at most ``longest`` ids; each begins with the first ``start`` of all, as the model was trained."""
    if len(ids) <= longest:
        return [ids] if ids else []
    lead = ids[:start]
    size = longest - len(lead)
    body = ids[len(lead) :]
    return [[*lead, *body[at : at + size]] for at in range(0, len(body), size)]


def _grouped(pool: list[list[int]], budget: int) -> Iterator[list[list[int]]]:
    for group in batches(pool, budget):
        yield [pool[i] for i in group]
