"""The keys at the look-up tokens of what must go and of what must stay, as the model stands before an edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.edit.forms import prompts_of, where_of
from unlearn.edit.sequence import Sofar
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.requests import Fact, Requests

MOST_KEPT = 128
"""Kept facts that are compared with the requests; of more, every so-manieth."""


@dataclass(frozen=True)
class LookUpKeys:
    """Keys at the look-up tokens of the requests' prompts, and then of the kept facts'."""

    keys: Mapping[int, Tensor]
    """Per layer (d_in, columns)."""
    owner: Tensor
    """(columns of requests,), the request of each."""
    whose: Tensor
    """(columns of kept facts,), the fact of each."""
    near: Tensor
    """(columns of kept facts,), which of them are of neighbours."""
    names: Sequence[str]
    """Of the requests."""
    labels: Sequence[str]
    """Of the kept facts. Subjects are not named: these go into logs, reports and the patch's header."""
    look_up: str
    """``subject``, ``last`` or ``both``."""

    def own(self, layer: int) -> Tensor:
        """The requests' keys, (d_in, columns of requests)."""
        return self.keys[layer][:, : len(self.owner)]

    def kept(self, layer: int) -> Tensor:
        """The kept facts' keys, (d_in, columns of kept facts)."""
        return self.keys[layer][:, len(self.owner) :]


def look_up_keys(
    model: EditableModel, requests: Requests, layers: Sequence[int], look_up: str, sofar: Sofar
) -> LookUpKeys:
    """Read the keys.

    Args:
        requests: the facts to write, with siblings and neighbours.
        look_up: ``subject``, ``last`` or ``both``.
        sofar: earlier edits, on top of which the keys are read.
    """
    kept = (*requests.siblings, *requests.neighbours)
    labels = [f"a sibling ({fact.relation})" for fact in requests.siblings]
    labels += [f"a neighbour ({fact.relation})" for fact in requests.neighbours]
    every = max(1, -(-len(kept) // MOST_KEPT))
    kept, labels = kept[::every], labels[::every]
    mine = _places(model, requests, requests.facts, look_up)
    theirs = _places(model, requests, kept, look_up)
    rows = [*mine, *theirs]
    with model.patched(sofar.deltas()):
        keys = read(model, [ids for _, ids, _ in rows], [at for *_, at in rows], layers).keys
    near = [kept[i] in requests.neighbours for i, _, at in theirs for _ in at]
    return LookUpKeys(
        keys,
        torch.tensor([i for i, _, at in mine for _ in at]),
        torch.tensor([i for i, _, at in theirs for _ in at]),
        torch.tensor(near, dtype=torch.bool),
        [fact.id for fact in requests.facts],
        labels,
        look_up,
    )


def _places(
    model: EditableModel, requests: Requests, facts: Sequence[Fact], look_up: str
) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """(fact, ids, positions) of the look-up tokens of every prompt; target tokens are left out, they all look alike."""
    found = []
    for index, fact in enumerate(facts):
        where = where_of(requests.policy, fact.relation, look_up)
        for _, prompt in prompts_of(model, requests, fact):
            last = None if where == "subject" else prompt.last
            subject = None if where == "last" else prompt.subject_last
            at = tuple(sorted({place for place in (last, subject) if place is not None}))
            if at:
                found.append((index, prompt.ids, at))
    return found
