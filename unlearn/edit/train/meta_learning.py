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
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unlearn.edit.train.hypernetwork import TINY, Hypernetwork, Tokens, captured
from unlearn.edit.train.lessons import Lesson, Lessons
from unlearn.edit.train.replied import Replied, per_token
from unlearn.edit.train.triples import Batch, Topic, Triples, batch
from unlearn.model.adapters import Adapter, dense
from unlearn.model.editable import EditableModel
from unlearn.model.narrow import quick_passes
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
    """Of some batches of edits, means."""

    edit: float
    """NLL of the refusal per token, after rephrasings."""
    keep: float
    """KL(before || now) per token of what must stay."""
    success: float
    """Share of the rephrasings after which every token of the refusal is the likeliest."""

    def loss(self, keep: float) -> float:
        """What the training minimises."""
        return self.edit + keep * self.keep


def learn(
    model: EditableModel,
    network: Hypernetwork,
    found: Triples,
    settings: Mend,
    first: int,
    seed: int,
    progress: Progress,
) -> History:
    """Train a network, and leave it as it was at its lowest validation loss.

    Args:
        model: unedited; unchanged on return.
        network: as it begins; its inputs are standardised first.
        found: what it is trained on, and watched by.
        settings: how it is trained.
        first: the lowest block whose weights it edits.
        seed: of the order of the edits.
        progress: where to show it.

    Raises:
        ModelError: the loss is not finite.
    """
    begin, rng = time.monotonic(), random.Random(f"mend/{seed}")

    def drawn(pool: Sequence[Topic]) -> Batch:
        return batch(found, pool, settings.batch, settings.kept, rng)

    learned = found.lessons()
    with quick_passes(model, 0, learned.longest), dense(model, network.names) as adapter:
        editor = _Editor(model, network, adapter, learned, first)
        editor.standardise([drawn(found.training).edits for _ in range(STATISTICS)], settings.lr)
        watched = [drawn(found.validation) for _ in range(VALIDATION)]
        unseen = [drawn(found.unseen) for _ in range(VALIDATION if found.unseen else 0)]
        watch = _Watch(network, lambda: editor.scores(watched), settings)
        anneal(
            _groups(network, settings.network_lr),
            lambda: editor.slope(drawn(found.training), settings.keep),
            settings.steps,
            progress,
            "Training the editor",
            watch.enough,
        )
        network.load_state_dict(watch.state)
        apart = editor.scores(unseen) if unseen else None
    best = watch.best
    return History(
        steps=watch.steps,
        seconds=round(time.monotonic() - begin, 1),
        stopped_early=watch.steps < settings.steps,
        first=watch.first.loss(settings.keep),
        loss=best.loss(settings.keep),
        success=best.success,
        success_unseen_relation=None if apart is None else apart.success,
        kept_kl=best.keep,
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


class _Editor:
    """The model, with the network that edits it for a batch at a time."""

    def __init__(
        self, model: EditableModel, network: Hypernetwork, adapter: Adapter, learned: Lessons, first: int
    ) -> None:
        self.model, self.network, self.adapter = model, network, adapter
        self.rows = Replied(model, learned, first)
        self.edits = {row: n for n, row in enumerate(learned.forget)}
        self.kept = {row: n for n, row in enumerate(learned.kept)}
        self.leaves = [update for group in adapter.groups for update in group["params"]]

    def standardise(self, batches: Sequence[Sequence[Lesson]], relative: float) -> None:
        """Learn what inputs and gradients look like, and begin with steps of a length relative to the weights."""
        seen = [self._captured(edits) for edits in batches]
        for name in self.network.names:
            mine = [tokens[name] for tokens in seen]
            # The mean over edits made at once, so about what one edit's gradient has in common with others'.
            with self._exactly():
                lengths = [
                    (tokens.gradients.T @ tokens.inputs).norm() / len(edits)
                    for tokens, edits in zip(mine, batches, strict=True)
                ]
            length = float(torch.stack(lengths).mean().clamp_min(TINY))
            size = relative * float(self.model.weight(name).float().norm()) / length
            every = Tokens(*(torch.cat(parts) for parts in zip(*mine, strict=True)))
            self.network.standardise(name, every, size)

    def slope(self, some: Batch, keep: float) -> float:
        """Add the gradients of one batch's loss; the loss."""
        updates = self._make(some.edits)
        losses = self.rows.step(per_token, keep)(*self._places(some))
        torch.autograd.backward(updates, [leaf.grad for leaf in self.leaves])
        return losses.forget + keep * losses.keep

    @torch.no_grad()
    def scores(self, batches: Sequence[Batch]) -> Scores:
        """Mean scores of several batches, each edited by itself."""
        found = []
        for some in batches:
            self._make(some.edits)
            asked, kept = self._places(some)
            found.append((*self.rows.means(per_token, asked, kept), self.rows.likeliest(asked)))
        return Scores(*(sum(each) / len(found) for each in zip(*found, strict=True)))

    def _make(self, edits: Sequence[Lesson]) -> list[Tensor]:
        """Make edits: the updates, as they come from the network; their values are put into the adapter."""
        seen = self._captured(edits)
        with self._exactly():
            updates = [
                self.network.update(name, self.network.columns(name, tokens), len(edits))
                for name, tokens in seen.items()
            ]
        for leaf, update in zip(self.leaves, updates, strict=True):
            leaf.data.copy_(update)
            leaf.grad = None
        return updates

    def _captured(self, edits: Sequence[Lesson]) -> dict[str, Tokens]:
        with self.adapter.off():
            return captured(self.model, self.network.names, self.rows, [self.edits[row] for row in edits])

    def _places(self, some: Batch) -> tuple[list[int], list[int]]:
        return [self.edits[row] for row in some.rephrased], [self.kept[row] for row in some.kept]

    def _exactly(self) -> AbstractContextManager[None]:
        """The network is float32, whatever passes multiply in."""
        return torch.autocast(self.model.device.type, enabled=False)


def _groups(network: Hypernetwork, lr: float) -> list[Rated]:
    """The network's parameters, and those of which there is one per weight."""
    shared: list[Tensor] = list(network.networks.parameters())
    return [
        {"params": shared, "lr": lr},
        {"params": [network.step, network.log_ridge], "lr": FASTER * lr},
    ]
