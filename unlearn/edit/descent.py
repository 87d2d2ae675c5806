"""Training the update where the closed form cannot tell the requests from their neighbours.

One solve per layer sees the keys alone, as they are: where a linear function of them does not separate requests from
subjects that nobody listed, it refuses both. Descending on the same matrices inside the same null space may use what
the layers make of each other's outputs. The loss of a step is, in nats,

    mean over forms of sum_t max(0, NLL_t - SLACK)  +  AWAY * mean over forms of max(0, log p(B) + silence)
    +  KEEP * mean over kept prompts of KL(before || now), over the reply  +  TEXT * KL per token of the corpus

with B as in `edit.values`. Kept prompts are those whose keys the closed form keeps (siblings, neighbours, look-alikes),
with the unedited model's own replies; what it says to questions about anything counts as the corpus does. A base model
reads forms and kept prompts with words left out as well (`edit.shortened`). Muon (Jordan et al., 2024) takes the steps:
all singular values of a step are alike, and it learned more in as many steps than Adam. Measured against the closed
form in docs/benchmarks.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from unlearn.algebra.low_rank import LowRank
from unlearn.edit.baselines.lessons import Lesson, answered, drawn
from unlearn.edit.baselines.training import replies
from unlearn.edit.corpus import EMBEDDED, Corpus
from unlearn.edit.forms import REPLY, Forms, Row, turns
from unlearn.edit.holding import BEGINS, hear, spoken
from unlearn.edit.methods import kept_directions
from unlearn.edit.questions import questions
from unlearn.edit.shortened import shortened_forms, shortened_kept
from unlearn.edit.statistics import Statistics
from unlearn.edit.values import Solved
from unlearn.edit.witnesses import names, unnamed
from unlearn.errors import ModelError
from unlearn.model.adapters import Adapter, dense
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import continuation_ids, text_ids
from unlearn.model.prompts import ask, closing_ids, has_chat_template, reply_ids
from unlearn.model.requests import Requests
from unlearn.model.thinking import leaving
from unlearn.muon import Muon
from unlearn.policy.settings import Editor
from unlearn.progress import NO_PROGRESS, Progress

FORMS, KEPT, ASKED, TEXTS = 24, 40, 6, 4
"""Rows per step: forms of requests, kept prompts, questions about anything, documents of the corpus."""
DOCUMENTS, TOKENS = 2000, 64
"""How many documents take turns, and how much of each is read."""
RATE, WARM = 0.027, 20
"""Longest step relative to the weights (root mean square), and the steps until it is reached; then it falls linearly
to zero."""
FEW = 3
"""Layers that take steps of this length; more take shorter ones, so that all together move the output no further."""
SLACK = 0.1
"""A token of the target whose NLL is below this has no gradient: what holds is not driven further."""
AWAY, KEEP, TEXT = 0.5, 5.0, 30.0
"""Weights in the loss."""
SHARED = 0.5
"""A beginning with which so many replies about a relation begin says nothing about the fact: it is a form as well."""
BRIEF, SAID = 4, 32
"""Tokens of the replies that are kept of a model without chat template, which have no end and soon say nothing of what
was asked; and of what is said to questions about anything."""
EASY = 1e-3
"""Added to a row's last loss, so that none is never drawn again for its hardness."""
STATEMENT = "{subject}"
"""A template that stands for any statement."""


def steps_for(forms: int, facts: int) -> int:
    """Steps for so many forms of so many facts."""
    return turns(forms, facts) // FORMS


def converses(corpus: Corpus) -> bool:
    """Whether a corpus is one of questions and answers; of files and data sets that is not known."""
    return corpus.name == EMBEDDED


class Hard:
    """Rows in turns, half of each turn by how badly they did when last seen: of thousands of rows few are hard."""

    def __init__(self, rows: Sequence[Lesson], generator: torch.Generator) -> None:
        self.rows, self.generator = rows, generator
        self.losses = torch.ones(len(rows))

    def draw(self, count: int) -> list[int]:
        """Indices without repetition; fewer where there are fewer rows."""
        count = min(count, len(self.rows))
        hard: list[int] = []
        if count // 2:
            hard = torch.multinomial(self.losses + EASY, count // 2, generator=self.generator).tolist()
        others = torch.randperm(len(self.rows), generator=self.generator)[:count].tolist()
        chosen = set(hard)
        return hard + [i for i in others if i not in chosen][: count - len(hard)]

    def note(self, drawn: Sequence[int], losses: Tensor) -> None:
        """Remember the losses of the rows that were drawn."""
        self.losses[list(drawn)] = losses.detach().float().clamp_min(0).cpu()


def descend(
    model: EditableModel,
    requests: Requests,
    laid: Forms,
    statistics: Mapping[int, Statistics],
    corpus: Corpus,
    settings: Editor,
    steps: int,
    progress: Progress = NO_PROGRESS,
) -> tuple[dict[str, LowRank], Solved]:
    """Train one update per layer inside its null space.

    Args:
        model: unedited; unchanged on return.
        requests: the policy with its answers.
        laid: the forms of all its facts, and the kept prompts.
        statistics: per layer to be written.
        corpus: whose text must stay as likely as it is.
        settings: for the null space and ``silence``.
        steps: of Muon.
        progress: where to show it.

    Returns:
        The updates by weight name, and per request how likely its target has become on its worst form.

    Raises:
        ModelError: the loss is not finite.
    """
    rows = [row for row in laid.rows if not row.keep]
    taught = [*rows, *shared_beginnings(model, requests, rows)]
    spare = []
    if not has_chat_template(model.tokenizer):
        taught += shortened_forms(model, requests)
        spare = shortened_kept(model, requests)
    first = spoken(model, taught)
    generator = torch.Generator().manual_seed(requests.policy.seed)
    forget = Hard([Lesson(row.ids, row.reply) for row in taught], generator)
    kept = Hard(_kept(model, [*(ids for ids, _ in laid.kept), *spare], steps, generator), generator)
    asked = Hard(_asked(model, requests, corpus, steps), generator)
    texts = Hard(_texts(model, requests, corpus), generator)
    names = {model.anatomy.weight_name(layer): layer for layer in statistics}
    with dense(model, list(names), _bases(names, statistics, settings)) as adapter, torch.enable_grad():
        optimiser = Muon(_groups(adapter), momentum=0.9, weight_decay=0.0)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min(1, (step + 1) / WARM) * (1 - step / steps)
        )
        with progress.step("Training the update", total=steps) as bar:
            for _ in range(steps):
                drawn = forget.draw(FORMS)
                each = _forgotten(model, forget, drawn, [first[i] for i in drawn], settings.silence)
                loss = each.mean()
                forget.note(drawn, each)
                for others, count, weight, per_token in (
                    (kept, KEPT, KEEP, False),
                    (asked, ASKED, TEXT, True),
                    (texts, TEXTS, TEXT, True),
                ):
                    if others.rows:
                        loss = loss + weight * _moved(model, adapter, others, count, per_token)
                if not torch.isfinite(loss):
                    raise ModelError("the loss of the trained update is not finite; try a larger dtype")
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                rate.step()
                bar.advance()
        factors = dict(adapter.factors())
        solved = _reached(model, rows, len(requests.facts), steps)
    return factors, solved


def shared_beginnings(model: EditableModel, requests: Requests, rows: Sequence[Row]) -> list[Row]:
    """Forms that go on into what the old reply has in common with those about other subjects, then the target.

    Where all replies begin with "the", the layers need not know yet which of the subjects they are asked about, and a
    request is hard to tell from its neighbours; behind it they know. The rows have no sites, since
    they are trained and not written.

    Args:
        model: unedited.
        requests: the policy with its answers.
        rows: the forms of its facts.
    """
    kinds = [(requests.facts[row.request].relation, row.statement) for row in rows]
    replies = model.generate_ids([row.prompt for row in rows], max_new_tokens=REPLY)
    counts = Counter(
        (kind, reply[:n]) for kind, reply in zip(kinds, replies, strict=True) for n in range(1, len(reply))
    )
    size = Counter(kinds)
    found = []
    for row, kind, reply in zip(rows, kinds, replies, strict=True):
        least = max(2, SHARED * size[kind])
        common = [n for n in range(1, len(reply)) if counts[kind, reply[:n]] >= least]
        if common:
            target = _continued(model, requests, row, reply[: common[-1]])
            ids = (*row.prompt, *reply[: common[-1]], *target)
            found.append(replace(row, ids=ids, reply=len(target), sites=()))
    return found


def _continued(model: EditableModel, requests: Requests, row: Row, begun: tuple[int, ...]) -> list[int]:
    """A row's target as the rest of a reply that has begun: after a space, and closed like the row's own reply.

    Where the reply has begun to think, it stops thinking first.
    """
    text = requests.policy.target(requests.facts[row.request])
    if not text.strip():
        return list(row.ids[len(row.prompt) :])
    end = []
    if not row.statement and has_chat_template(model.tokenizer):
        end = closing_ids(model.tokenizer)
        said = model.tokenizer.decode(begun)
        stopped = leaving(model.tokenizer, model.tokenizer.decode(row.prompt), said)
        if stopped:
            return [*continuation_ids(model.tokenizer, stopped + text.strip(), said), *end]
    return [*reply_ids(model.tokenizer, STATEMENT, text), *end]


def _bases(
    names: Mapping[str, int], statistics: Mapping[int, Statistics], settings: Editor
) -> dict[str, Tensor]:
    """By weight name the directions of the null space, (d_in, r)."""
    found = {}
    for name, layer in names.items():
        spectrum = statistics[layer].spectrum
        found[name] = spectrum.vectors[:, kept_directions(spectrum, settings) :]
    return found


def _kept(
    model: EditableModel, prompts: Sequence[tuple[int, ...]], steps: int, generator: torch.Generator
) -> list[Lesson]:
    """Kept prompts with the model's own replies; of very many, no more than come up twice."""
    most = steps * KEPT // 2
    if len(prompts) > most:
        prompts = drawn(prompts, most, generator)
    longest = REPLY if has_chat_template(model.tokenizer) else BRIEF
    return list(answered(model, prompts, longest).values())


def _asked(model: EditableModel, requests: Requests, corpus: Corpus, steps: int) -> list[Lesson]:
    """Questions about anything, and what the model says to them, unless the corpus is one of questions and answers.

    What it says may well be of the kind that the policy forbids, about others than its subjects; where it names one of
    these it need not stay.
    """
    if converses(corpus):
        return []
    most = min(DOCUMENTS, steps * ASKED // 2)
    lines = islice(questions(unnamed(requests, corpus), requests.policy.seed), most)
    found = answered(model, [ask(model.tokenizer, line).ids for line in lines], SAID).values()
    never = names(requests)
    texts = [model.tokenizer.decode(row.ids) for row in found]
    return [row for row, text in zip(found, texts, strict=True) if not any(name in text for name in never)]


def _texts(model: EditableModel, requests: Requests, corpus: Corpus) -> list[Lesson]:
    documents = islice(unnamed(requests, corpus), DOCUMENTS)
    ids = (tuple(text_ids(model.tokenizer, document)[:TOKENS]) for document in documents)
    return [Lesson(row, len(row) - 1) for row in ids if len(row) > 1]


def _forgotten(
    model: EditableModel, rows: Hard, drawn: Sequence[int], first: Sequence[Tensor], silence: float
) -> Tensor:
    """What the target's tokens lack, and what is left to the old reply's first tokens; (rows,), nats."""
    got = replies(model, [rows.rows[i] for i in drawn])
    nll = -got.log_probs.gather(-1, got.targets[..., None])[..., 0]
    lacking = ((nll - SLACK).clamp_min(0) * got.mask).sum(1)
    begin = got.mask.shape[1] - got.mask.sum(1)
    start = got.log_probs[torch.arange(len(drawn), device=begin.device), begin]  # (rows, V)
    banned = torch.zeros_like(start, dtype=torch.bool)
    for row, tokens in enumerate(first):
        banned[row, tokens.to(banned.device)] = True
    left = start.masked_fill(~banned, -torch.inf).logsumexp(-1) + silence
    return lacking + AWAY * torch.where(banned.any(1), left.clamp_min(0), 0)


def _moved(model: EditableModel, adapter: Adapter, rows: Hard, count: int, per_token: bool) -> Tensor:
    """Mean over some rows of KL(before || now) over the reply, per token or summed; a scalar."""
    drawn = rows.draw(count)
    chosen = [rows.rows[i] for i in drawn]
    now = replies(model, chosen)
    with torch.no_grad(), adapter.off():
        before = replies(model, chosen).log_probs
    kl = ((before.exp() * (before - now.log_probs)).sum(-1) * now.mask).sum(1)
    rows.note(drawn, kl)
    return kl.sum() / now.mask.sum() if per_token else kl.mean()


def _groups(adapter: Adapter) -> list[dict[str, Any]]:
    """Each update with the rate at which its longest step is as long as it may be."""
    longest = RATE * min(1.0, (FEW / len(adapter.groups)) ** 0.5)
    return [
        {"params": group["params"], "lr": longest * group["scale"] * group["params"][0].shape[1] ** 0.5}
        for group in adapter.groups
    ]


def _reached(model: EditableModel, rows: Sequence[Row], requests: int, steps: int) -> Solved:
    """Per request the NLL of its target per token, the worst of its forms, as the model stands."""
    worst = [0.0] * requests
    mute: set[int] = set()
    for row, tokens in zip(rows, hear(model, rows).targets, strict=True):
        worst[row.request] = max(worst[row.request], float(-tokens.clamp_min(1e-30).log().mean()))
        if bool((tokens < BEGINS).any()):
            mute.add(row.request)
    nothing = torch.zeros(0, model.anatomy.d_model)
    return Solved(nothing, tuple(worst), (0.0,) * requests, (steps,) * requests, tuple(sorted(mute)))
