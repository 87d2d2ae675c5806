"""AlphaEdit+'s progressive value smoothing (Liu et al., 2026): long values are eased as far as that helps.

A value far from what the model believes disturbs much. So the far ones are tried at half the way, and step by step at
more of it, up to the full value; the best is kept, by the share of target tokens that the edited model predicts on
*validation* phrasings. The published code scores on the evaluation's own records. Here the phrasings are prompts that
the policy gives to the edit, taken away from it for this purpose; held-out prompts are never read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlearn.edit.forms import prompts_of, target_of
from unlearn.model.editable import EditableModel
from unlearn.model.forward import predicted
from unlearn.model.requests import Fact, Requests
from unlearn.policy import RelationSpec, is_question

FEWEST = 3
"""A relation lends a prompt of one kind (questions, statements) to validation if it has at least so many of it."""


@dataclass(frozen=True)
class Score:
    """How well the targets are predicted; compared in this order."""

    hits: float
    """Share of target tokens that are the most probable ones."""
    likelihood: float
    """Mean log-likelihood per target token."""

    def better(self, other: Score) -> bool:
        """Whether this is the better one."""
        return (self.hits, self.likelihood) > (other.hits, other.likelihood)


def set_apart(requests: Requests) -> tuple[Requests, Requests, bool]:
    """Split every forgotten relation's prompts into those for the edit and those for validation.

    The policy's own prompts are lent, and their generated forms leave with them: they would give them away.

    Returns:
        The requests with the edit's prompts, the requests with the validation prompts, and whether any relation was
        too short of prompts, so that it is scored on the prompts that the edit sees.
    """
    policy = requests.policy
    forgotten = {fact.relation for fact in requests.facts}
    seen, apart, short = dict(policy.relations), dict(policy.relations), False
    for name in forgotten:
        spec = policy.relations[name]
        lent = []
        for kind in (True, False):
            own = [template for template in spec.prompts if (name, template) not in requests.derived]
            prompts = [template for template in own if is_question(template) is kind]
            if len(prompts) >= FEWEST:
                lent.append(prompts[-1])
        short |= not lent
        if lent:
            rest = tuple(t for t in spec.prompts if requests.derived.get((name, t), t) not in lent)
            seen[name] = spec.model_copy(update={"prompts": rest})
            apart[name] = spec.model_copy(update={"prompts": tuple(lent)})
    return _with(requests, seen), _with(requests, apart), short


def _with(requests: Requests, relations: Mapping[str, RelationSpec]) -> Requests:
    return replace(requests, policy=requests.policy.model_copy(update={"relations": dict(relations)}))


def levels(smoothing: int) -> list[float]:
    """How much of the way is held back at each try: from a half to nothing, ``(T - t) / 2T`` for t = 0 .. T."""
    return [(smoothing - t) / (2 * smoothing) for t in range(smoothing + 1)] if smoothing else [0.0]


def ease(gains: Tensor, lengths: Tensor, far: float, level: float) -> Tensor:
    """Hold back ``level`` of the gains that are longer than ``far`` times ``lengths``; gains (d_model, columns)."""
    long = gains.norm(dim=0) > far * lengths
    return torch.where(long[None], (1 - level) * gains, gains)


def tries(gains: Tensor, lengths: Tensor, far: float, smoothing: int) -> dict[float, Tensor]:
    """The gains at every level, the fullest first; only as they are where none is far."""
    if not (gains.norm(dim=0) > far * lengths).any():
        return {0.0: gains}
    return {level: ease(gains, lengths, far, level) for level in reversed(levels(smoothing))}


def rows_of(
    model: EditableModel, apart: Requests, facts: Sequence[Fact]
) -> list[tuple[tuple[int, ...], int]]:
    """Validation phrasings of some facts with their targets: (ids, length of the target)."""
    rows = []
    for fact in facts:
        for _, prompt in prompts_of(model, apart, fact):
            target = target_of(model, apart.policy, fact, prompt)
            rows.append(((*prompt.ids, *target), len(target)))
    return rows


@torch.inference_mode()
def score(model: EditableModel, rows: Sequence[tuple[tuple[int, ...], int]]) -> Score:
    """Teacher-forced accuracy and likelihood of the targets, averaged over rows."""
    hits, likelihood = [], []
    for i, logits in predicted(model, rows):
        ids, reply = rows[i]
        target = torch.tensor(ids[-reply:], device=logits.device)
        hits.append(float((logits.argmax(-1) == target).float().mean()))
        likelihood.append(float(logits.log_softmax(-1).gather(-1, target[:, None]).mean()))
    return Score(sum(hits) / len(hits), sum(likelihood) / len(likelihood))
