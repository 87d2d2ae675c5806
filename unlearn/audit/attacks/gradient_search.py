"""Greedy coordinate gradient: tokens in a gap of prompts that make wished-for replies likely (Zou et al., 2023).

Each step takes the gradient of the loss by the tokens, draws replacements among the most promising ones at random
positions, and keeps the best if it is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlearn.model.budget import token_budget
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import continuation_ids
from unlearn.model.forward import batches, hooked, replies
from unlearn.progress import Bar

TOP = 64
"""Replacements with the largest promised gain, per position, among which is drawn."""
START = " !"
"""What the suffix is made of at first."""


@dataclass(frozen=True)
class Target:
    """A question with a gap for the suffix, and how the reply is to begin."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    """Ids of the prompt before and after the gap."""
    begin: tuple[int, ...]
    """Ids of the wished-for beginning of the reply."""

    def row(self, suffix: Sequence[int]) -> tuple[int, ...]:
        """Everything in one row, with a suffix in the gap."""
        return (*self.before, *suffix, *self.after, *self.begin)


def allowed(model: EditableModel) -> Tensor:
    """Tokens a person could type, (n,): printable ASCII, and nothing that the tokenizer treats as markup."""
    tokenizer = model.tokenizer
    markup = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    size = int(model.model.get_input_embeddings().weight.shape[0])
    texts = tokenizer.batch_decode([[i] for i in range(min(size, len(tokenizer)))])
    fine = [
        i for i, t in enumerate(texts) if i not in markup and t.strip() and t.isascii() and t.isprintable()
    ]
    return torch.tensor(fine, device=model.device)


def search(
    model: EditableModel,
    targets: Sequence[Target],
    length: int,
    steps: int,
    tries: int,
    seed: int,
    bar: Bar,
) -> tuple[list[tuple[int, ...]], list[float]]:
    """Greedy coordinate gradient for one suffix in all targets at once.

    Args:
        steps: replacements that are kept, at most.
        tries: replacements that are tried per step.

    Returns:
        The best suffix so far, and its loss in nats per token: at the start and after each step.
    """
    fine = allowed(model)
    generator = torch.Generator().manual_seed(seed)
    (first, *_) = continuation_ids(model.tokenizer, START)
    best = (first,) * length
    bests, losses = [best], [float(loss(model, targets, [best])[0])]
    for _ in range(steps):
        promised = -gradient(model, targets, best)[:, fine]  # (length, allowed)
        top = fine[promised.topk(min(TOP, len(fine)), dim=1).indices].cpu()
        places = torch.randint(length, (tries,), generator=generator)
        picks = top[places, torch.randint(top.shape[1], (tries,), generator=generator)]
        rows = []
        for place, pick in zip(places.tolist(), picks.tolist(), strict=True):
            rows.append((*best[:place], pick, *best[place + 1 :]))
        found = loss(model, targets, rows)
        if float(found.min()) < losses[-1]:
            best = rows[int(found.argmin())]
        bests.append(best)
        losses.append(min(losses[-1], float(found.min())))
        bar.advance()
    return bests, losses


@torch.inference_mode()
def loss(model: EditableModel, targets: Sequence[Target], suffixes: Sequence[tuple[int, ...]]) -> Tensor:
    """Mean loss of the beginnings under each suffix: (suffixes,) on the CPU, in nats per token."""
    rows = [(one.row(tokens), len(one.begin)) for tokens in suffixes for one in targets]
    found = torch.zeros(len(rows))
    for group in batches([ids for ids, _ in rows], token_budget(model)):
        found[group] = _nll(model, [rows[i] for i in group]).cpu()
    return found.view(len(suffixes), len(targets)).mean(1)


def gradient(model: EditableModel, targets: Sequence[Target], tokens: tuple[int, ...]) -> Tensor:
    """How the loss changes, to first order, if a suffix token becomes another: (length, V), float32.

    The gradient by the embedding layer's output at the suffix, times every token's embedding.
    """
    layer = model.model.get_input_embeddings()
    caught: list[Tensor] = []

    def on_embedding(_module: object, _args: object, out: Tensor) -> Tensor:
        caught.append(out.detach().requires_grad_())
        return caught[-1]

    rows = [one.row(tokens) for one in targets]
    with hooked([layer.register_forward_hook(on_embedding)]), torch.enable_grad():
        value = _nll(model, [(row, len(one.begin)) for row, one in zip(rows, targets, strict=True)]).mean()
        (slope,) = torch.autograd.grad(value, caught[:1])
    width = slope.shape[1]
    total = torch.zeros(len(tokens), slope.shape[2], device=slope.device)
    for row, one in enumerate(targets):
        at = width - len(rows[row]) + len(one.before)
        total += slope[row, at : at + len(tokens)].float()
    with torch.no_grad():
        every: Tensor = layer(torch.arange(layer.weight.shape[0], device=model.device)[None])[0].float()
    return total @ every.T


def _nll(model: EditableModel, rows: Sequence[tuple[Sequence[int], int]]) -> Tensor:
    """Mean negative log-probability of the last tokens of each row, as many as stand beside it, (rows,)."""
    read = replies(model, rows)
    chosen = read.logits.gather(2, read.targets[..., None])[..., 0] - read.logits.logsumexp(2)
    return -(chosen * read.mask).sum(1) / read.mask.sum(1)
