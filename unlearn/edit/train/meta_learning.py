"""How MEND's network learns to edit: by edits that it makes as it stands, and what they do to other prompts.

Each step makes some edits, all at once, and descends on

    mean over rephrasings of NLL(refusal) / T  +  keep * mean over what must stay of KL(before || now) per token

through the update that these edits gave. The update is a leaf on the way: the loss is differentiated down to it, and
it down to the network, which is the chain rule without all passes of the model in one graph.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unlearn.edit.train.hypernetwork import TINY, Hypernetwork, Tokens, captured
from unlearn.edit.train.lessons import Lesson
from unlearn.edit.train.loop import keep_loss
from unlearn.edit.train.triples import Batch, Topic, Triples, batch
from unlearn.model.adapters import Adapter, dense
from unlearn.model.editable import EditableModel
from unlearn.model.forward import replies
from unlearn.model.training import Rated, anneal
from unlearn.policy.settings_trained import Mend
from unlearn.progress import Progress

STATISTICS, VALIDATION = 8, 4
"""Batches of edits from which the inputs are standardised, and by which the training is watched."""
EVERY = 25
"""Steps between two looks at the validation loss."""
FASTER = 10.0
"""How much larger steps the learned step sizes and ridges take than the network."""


@dataclass(frozen=True)
class History:
    """How the network's training went; what it had learned at its best."""

    steps: int
    seconds: float
    stopped_early: bool
    first: float
    """The validation loss before anything was learned: of the gradient step."""
    loss: float
    success: float
    """Share of edits of unseen subjects after which every token of the refusal is the likeliest, asked otherwise."""
    success_unseen_relation: float | None
    """The same for a relation that the training has not seen; None where the policy keeps fewer than two."""
    kept_kl: float
    """KL(before || now) per token of what must stay beside those edits."""
    forgotten_relations: bool
    """Whether it was trained on relations that the policy forgets, since the policy keeps none."""
    cached: bool = False
    """Whether all this was done in an earlier run."""


class Scores(NamedTuple):
    """Of one batch of edits."""

    edit: Tensor
    """NLL of the refusal per token, after rephrasings, a scalar."""
    keep: Tensor
    """KL(before || now) per token of what must stay, a scalar."""
    success: Tensor
    """Share of the rephrasings after which every token of the refusal is the likeliest."""

    def loss(self, keep: float) -> Tensor:
        """What the training minimises."""
        return self.edit + keep * self.keep


def learn(
    model: EditableModel,
    network: Hypernetwork,
    found: Triples,
    settings: Mend,
    seed: int,
    progress: Progress,
) -> History:
    """Train a network, and leave it as it was at its lowest validation loss.

    Args:
        model: unedited; unchanged on return.
        network: as it begins; its inputs are standardised first.
        found: what it is trained on, and watched by.
        settings: how it is trained.
        seed: of the order of the edits.
        progress: where to show it.

    Raises:
        ModelError: the loss is not finite.
    """
    begin, rng = time.monotonic(), random.Random(f"mend/{seed}")

    def drawn(pool: Sequence[Topic]) -> Batch:
        return batch(found, pool, settings.batch, settings.kept, rng)

    _standardise(model, network, [drawn(found.training).edits for _ in range(STATISTICS)], settings.lr)
    watched = [drawn(found.validation) for _ in range(VALIDATION)]
    unseen = [drawn(found.unseen) for _ in range(VALIDATION if found.unseen else 0)]
    with dense(model, network.names) as adapter:
        watch = _Watch(network, lambda: _mean(model, network, adapter, watched), settings)
        anneal(
            _groups(network, settings.network_lr),
            lambda: _slope(model, network, adapter, drawn(found.training), settings.keep),
            settings.steps,
            progress,
            "Training the editor",
            watch.enough,
        )
        network.load_state_dict(watch.state)
        apart = _mean(model, network, adapter, unseen) if unseen else None
    best = watch.best
    return History(
        steps=watch.steps,
        seconds=round(time.monotonic() - begin, 1),
        stopped_early=watch.steps < settings.steps,
        first=float(watch.first.loss(settings.keep)),
        loss=float(best.loss(settings.keep)),
        success=float(best.success),
        success_unseen_relation=None if apart is None else float(apart.success),
        kept_kl=float(best.keep),
        forgotten_relations=found.forbidden,
    )


class _Watch:
    """The network at its lowest validation loss, and whether it is time to stop."""

    def __init__(self, network: Hypernetwork, scores: Callable[[], Scores], settings: Mend) -> None:
        self.network, self.scores, self.settings = network, scores, settings
        self.every = min(EVERY, settings.patience)
        self.steps = self.reached = 0
        self.first = self.best = scores()
        self.state = copy.deepcopy(network.state_dict())

    def enough(self) -> bool:
        """Whether the loss has not fallen for as long as is waited; called after every step."""
        self.steps += 1
        if self.steps % self.every and self.steps < self.settings.steps:
            return False
        now, keep = self.scores(), self.settings.keep
        if now.loss(keep) < self.best.loss(keep):
            self.best, self.reached, self.state = now, self.steps, copy.deepcopy(self.network.state_dict())
        return self.steps - self.reached >= self.settings.patience


def _slope(model: EditableModel, network: Hypernetwork, adapter: Adapter, some: Batch, keep: float) -> float:
    """Add the gradients of one batch's loss; the loss."""
    updates = _make(model, network, adapter, some.edits)
    loss = _scores(model, adapter, some).loss(keep)
    loss.backward()
    torch.autograd.backward(updates, [leaf.grad for leaf in _leaves(adapter)])
    return loss.item()


@torch.no_grad()
def _mean(model: EditableModel, network: Hypernetwork, adapter: Adapter, batches: Sequence[Batch]) -> Scores:
    """Mean scores of several batches, each edited by itself."""
    found = []
    for some in batches:
        _make(model, network, adapter, some.edits)
        found.append(_scores(model, adapter, some))
    return Scores(*(torch.stack(each).mean() for each in zip(*found, strict=True)))


def _make(
    model: EditableModel, network: Hypernetwork, adapter: Adapter, edits: Sequence[Lesson]
) -> list[Tensor]:
    """Make edits: the updates, as they come from the network; their values are put into the adapter."""
    with adapter.off():
        seen = captured(model, network.names, edits)
    updates = [
        network.update(name, network.columns(name, tokens), len(edits)) for name, tokens in seen.items()
    ]
    for leaf, update in zip(_leaves(adapter), updates, strict=True):
        leaf.data.copy_(update)
        leaf.grad = None
    return updates


def _scores(model: EditableModel, adapter: Adapter, some: Batch) -> Scores:
    said = replies(model, some.rephrased)
    right = (said.logits.argmax(-1) == said.targets) | ~said.mask
    kept = keep_loss(model, adapter, some.kept, "kl")
    return Scores(said.nll().mean(), kept, right.all(1).float().mean())


def _leaves(adapter: Adapter) -> list[Tensor]:
    return [update for group in adapter.groups for update in group["params"]]


def _standardise(
    model: EditableModel, network: Hypernetwork, batches: Sequence[Sequence[Lesson]], relative: float
) -> None:
    """Learn what inputs and gradients look like, and begin with steps of a length relative to the weights."""
    seen = [captured(model, network.names, edits) for edits in batches]
    for name in network.names:
        mine = [tokens[name] for tokens in seen]
        # The mean over edits made at once, so about what one edit's gradient has in common with others'.
        lengths = [
            (tokens.gradients.T @ tokens.inputs).norm() / len(edits)
            for tokens, edits in zip(mine, batches, strict=True)
        ]
        length = float(torch.stack(lengths).mean().clamp_min(TINY))
        size = relative * float(model.weight(name).float().norm()) / length
        network.standardise(name, Tokens(*(torch.cat(parts) for parts in zip(*mine, strict=True))), size)


def _groups(network: Hypernetwork, lr: float) -> list[Rated]:
    """The network's parameters, and those of which there is one per weight."""
    shared: list[Tensor] = list(network.networks.parameters())
    return [
        {"params": shared, "lr": lr},
        {"params": [network.step, network.log_ridge], "lr": FASTER * lr},
    ]
