"""At which depth the last prompt token knows whom it is asked about: measured in a few forward passes.

Only from there on can a key at the last prompt token tell one subject from another. In a model of six layers that is
so from the first ones on; in SmolLM2, of thirty, the subject arrives at layer 23, all at once (docs/notes/lab.md): a
fixed share of the depth cannot know this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unlearn.edit.layers import asked, layers_of
from unlearn.edit.requests.vocabulary import near_words
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.prompts import ask
from unlearn.model.requests import Requests
from unlearn.policy.settings import Layered, NullSpace
from unlearn.policy.settings_base import Settings
from unlearn.policy.settings_trained import NullSpaceTuning

SUBJECTS, PROMPTS = 24, 6
"""Of a relation, as many are asked at most."""
FEWEST = 8
"""Where a policy names fewer, words of the vocabulary that are of their kind are asked as well."""
MUCH = 1 / 2
"""Layers that tell subjects apart by less than this share of what the best layer does are not written by default."""
MOST = 5
GIVEN = "set by the policy, or by its method"
MIDDLE = "the middle of the depth"
UNMEASURED = f"{MIDDLE}, unless the model tells subjects apart much later only, which needs the weights"


def told_apart(model: EditableModel, requests: Requests) -> Tensor:
    """How far keys at the last prompt token differ by subject, per layer: a share of their energy, (layers,).

    The variance over the subjects of a relation, asked in the same words, relative to the keys' mean square; the mean
    over relations and prompts. Zeros where no relation has two subjects, and the vocabulary none of their kind.

    Args:
        model: unedited.
        requests: the policy's facts and the neighbours that it protects; answers are not needed.
    """
    rows: list[tuple[int, ...]] = []
    groups: list[range] = []
    for relation in dict.fromkeys(fact.relation for fact in requests.facts):
        every = [
            fact.subject for fact in (*requests.facts, *requests.neighbours) if fact.relation == relation
        ]
        named = dict.fromkeys(every)
        if len(named) < FEWEST:
            named |= dict.fromkeys(near_words(model, list(named), (), FEWEST)[: FEWEST - len(named)])
        subjects = list(named)[:SUBJECTS]
        for template in requests.policy.relations[relation].prompts[:PROMPTS]:
            groups.append(range(len(rows), len(rows) + len(subjects)))
            rows += [ask(model.tokenizer, template, subject).ids for subject in subjects]
    groups = [group for group in groups if len(group) > 1]
    layers = range(model.anatomy.layers)
    if not groups:
        return torch.zeros(len(layers))
    keys = read(model, rows, [[len(row) - 1] for row in rows], list(layers)).keys
    spreads = [[_spread(keys[layer][:, list(group)]) for group in groups] for layer in layers]
    return torch.tensor(spreads).mean(1)


def deep_enough(apart: Tensor, middle: Sequence[int]) -> tuple[int, ...]:
    """The layers to write at the last prompt token: ``middle`` where they tell subjects apart, else those that do.

    Args:
        apart: of ``told_apart``.
        middle: what is written unless that is too early.

    Returns:
        Ascending; of the layers from there on the first five at most that tell subjects apart by half of what the best
        of them does. Layers before it know the prompt's last token, which may be the subject's, and not yet what it is
        about.
    """
    later = apart[middle[0] :]
    much = MUCH * float(later.max())
    if float(apart[list(middle)].max()) >= much:
        return tuple(middle)
    return tuple(middle[0] + at for at in (later >= much).nonzero()[:MOST, 0].tolist())


class Placed(NamedTuple):
    """Where a method writes."""

    layers: tuple[int, ...]
    """Ascending."""
    telling: tuple[int, ...]
    """Those of them by whose keys requests are told from all else."""
    why: str
    """These layers, in words that quote no policy."""
    apart: float | None = None
    """How far keys differ by subject where they are told apart best: a share of their energy. None: not measured."""


def placed(model: EditableModel, settings: Settings, apart: Callable[[], Tensor] | None) -> Placed:
    """The layers that a method writes, and why these.

    Where the middle of the depth is too early for one solve per layer, training takes it as well, with all up to where
    subjects are told apart: what it writes early is read by the layers above, and it needs less of each
    (docs/notes/lab.md).

    Args:
        model: unedited.
        settings: settled.
        apart: measures, where that decides, how far subjects are told apart (``told_apart``); None if nothing can be.

    Raises:
        PolicyError: layers that the model does not have.
    """
    layers = layers_of(settings, model)
    if asked(settings) is not None:
        return Placed(layers, layers, GIVEN)
    if not isinstance(settings, Layered | NullSpace | NullSpaceTuning):
        return Placed(layers, layers, "the method's own")
    if settings.look_up == "subject":
        return Placed(layers, layers, "the share of the depth where the subject is read")
    if settings.look_up == "both":
        # For the choice of the method alone: values at the subject need these layers, whatever the last token knows.
        here = None if apart is None else float(apart().max())
        return Placed(layers, layers, MIDDLE, here)
    if apart is None:
        return Placed(layers, layers, UNMEASURED)
    spread = apart()
    deep = deep_enough(spread, layers)
    here = float(spread[list(deep)].max())
    if deep == layers:
        return Placed(layers, layers, MIDDLE, here)
    shares = [f"{100 * share:.0f} %" for share in (float(spread[list(layers)].max()), here)]
    why = f"keys at the last prompt token differ by subject by {shares[0]} in {MIDDLE}, and by {shares[1]} "
    if isinstance(settings, NullSpaceTuning):
        every = tuple(range(layers[0], deep[-1] + 1))
        return Placed(every, deep, f"{why}from layer {deep[0]} on; training uses both", here)
    return Placed(deep, deep, f"{why}here", here)


def _spread(keys: Tensor) -> float:
    """Variance over the columns of (d_in, n), as a share of their mean square."""
    about = keys - keys.mean(1, keepdim=True)
    return float(about.square().sum() / keys.square().sum().clamp_min(1e-30))
