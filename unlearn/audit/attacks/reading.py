"""What attacks on hidden states share: candidate answers, and the states from which each of them is predicted.

The tokens of a candidate answer are put after a prompt, one candidate at a time; what the model holds just before each
of these tokens, layer by layer, is what a logit lens or a probe scores. A prompt is run once, and its candidates after
what it left in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from unlearn.audit.attacks.scene import Scene
from unlearn.audit.observation import Attacked, Outcome
from unlearn.audit.probes import Probe, fact_probes
from unlearn.audit.suite import some
from unlearn.errors import AuditError
from unlearn.matching import is_one_of, words
from unlearn.model.budget import token_budget
from unlearn.model.cached import Cached
from unlearn.model.editable import EditableModel
from unlearn.model.encoding import Tokenizer
from unlearn.model.forward import BlockOutput, batches, block_output, hooked
from unlearn.model.prompts import capital, reply_ids, special_ids
from unlearn.model.requests import Fact
from unlearn.model.rows import right_pad
from unlearn.model.thinking import quietest
from unlearn.progress import Bar
from unlearn.report import Grid

Score = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, stream (1 or n, T, d_model), tokens (n, T)) to the score of each token at the state before it, (n, T)."""
OPTIONS = 2
"""Fewest candidates between which a choice says anything."""
LOGITS = 1 << 26
"""Most numbers of one layer's logits at a time (256 MiB)."""


def options(scene: Scene) -> dict[str, list[str]]:
    """Candidate answers of every relation of the facts that has at least two.

    Raises:
        AuditError: none has.
    """
    relations = dict.fromkeys(fact.relation for fact in scene.requests.facts)
    found = {name: candidates(scene, name, scene.suite.hidden_candidates) for name in relations}
    enough = {name: answers for name, answers in found.items() if len(answers) >= OPTIONS}
    if not enough:
        raise AuditError(
            "every relation has fewer than two candidate answers, so none can be told from the others; "
            "add held-out neighbours to the policy"
        )
    return enough


def candidates(scene: Scene, relation: str, most: int | None) -> list[str]:
    """Different answers of a relation: those of its facts first, and a seeded choice of its neighbours' answers.

    Args:
        most: how many, unless there are more facts than that.
    """
    facts = [fact for fact in scene.requests.facts if fact.relation == relation and words(fact.answer)]
    mine = {words(fact.answer): fact.answer for fact in facts}
    others = {words(fact.answer): fact.answer for fact in scene.candidates(relation) if words(fact.answer)}
    rest = [one for one in others.values() if not any(is_one_of(one, fact.answers) for fact in facts)]
    left = None if most is None else max(0, most - len(mine))
    return [*mine.values(), *(some(rest, left, scene.seed) if left != 0 else [])]


def rivals(answers: Sequence[str], fact: Fact) -> list[str]:
    """The candidates that are no answer of a fact: one of which that answer must stand before."""
    return [answer for answer in answers if not is_one_of(answer, fact.answers)]


def prompts(model: EditableModel, scene: Scene, fact: Fact, most: int) -> list[Probe]:
    """Held-out prompts about one fact or neighbour: at most so many questions, and as many statements.

    Questions are asked without thoughts where the template can: an answer is read where it is due.
    """
    spec = scene.requests.policy.relations[fact.relation]
    chosen = [
        *some(spec.questions(held_out=True), most, scene.seed),
        *some(spec.statements(held_out=True), most, scene.seed),
    ]
    return fact_probes(quietest(model.tokenizer), [fact], {fact.relation: chosen}, every_way=False)


def ending(tokenizer: Tokenizer, probe: Probe, answer: str) -> list[int]:
    """Ids of an answer after a prompt, without the end of turn; a reply to a question begins with a capital.

    Args:
        tokenizer: whose template asked (`prompts`).
    """
    text = capital(answer) if probe.question else answer
    ids = reply_ids(tokenizer, "?" if probe.question else "", text)
    special = special_ids(tokenizer)
    return [token for token in ids if token not in special] or ids


def mean_scores(
    model: EditableModel, probes: Sequence[Probe], answers: Sequence[str], score: Score, bar: Bar
) -> Tensor:
    """Scores of candidate answers after one subject's prompts, their mean: (candidates, layers) on the CPU.

    Raises:
        AuditError: a score is not a number.
    """
    found, quiet = [], quietest(model.tokenizer)
    for probe in probes:
        endings = [ending(quiet, probe, answer) for answer in answers]
        found.append(scored(model, probe.prompt.ids, endings, score))
        bar.advance()
    scores = torch.stack(found).mean(0)
    if torch.isnan(scores).any():
        raise AuditError("the hidden states give scores that are no numbers, so answers cannot be compared")
    return scores


@torch.inference_mode()
def scored(
    model: EditableModel, prompt: Sequence[int], endings: Sequence[Sequence[int]], score: Score
) -> Tensor:
    """Mean score of the tokens of each ending of a prompt, by layer.

    Args:
        endings: ids of what may follow, at least one token each.
        score: of tokens, at the states before them.

    Returns:
        (endings, layers), float32 on the CPU.
    """
    ids, state = torch.tensor([list(prompt)], device=model.device), Cached.empty(model.model, 1)
    with streams(model, 1) as caught:
        state.read(ids, torch.ones_like(ids))
    first = torch.tensor([[ending[0]] for ending in endings], device=model.device)
    total = torch.cat([score(layer, caught[layer], first) for layer in sorted(caught)], 1).float()
    longer = [i for i, ending in enumerate(endings) if len(ending) > 1]
    rows = [[0] * (len(prompt) + len(endings[i])) for i in longer]
    for group in batches(rows, _budget(model, len(prompt))):
        chosen = [longer[i] for i in group]
        total[chosen] += _continued(model, state, [endings[i] for i in chosen], score)
    return total.cpu() / torch.tensor([[float(len(ending))] for ending in endings])


def _continued(model: EditableModel, begun: Cached, endings: Sequence[Sequence[int]], score: Score) -> Tensor:
    """Summed score of the tokens after the first of each ending: (endings, layers)."""
    ids, mask = right_pad(endings, model.pad_id, model.device)
    here = begun.copied()
    here.choose(ids.new_zeros(len(endings)))
    with streams(model, ids.shape[1] - 1) as caught:
        here.read(ids[:, :-1], torch.ones_like(ids[:, :-1]))  # what stands behind an ending is seen by none
    counted = mask[:, 1:]
    found = [(score(layer, caught[layer], ids[:, 1:]).float() * counted).sum(1) for layer in sorted(caught)]
    return torch.stack(found, 1)


def _budget(model: EditableModel, begun: int) -> int:
    """Tokens at a time, prompts counted, so that neither the cache nor one layer's logits become too large."""
    vocabulary = int(model.model.get_input_embeddings().weight.shape[0])
    return min(8 * token_budget(model), max(1, LOGITS // (4 * vocabulary)) * begun)


@contextmanager
def streams(model: EditableModel, keep: int) -> Iterator[Mapping[int, Tensor]]:
    """Within it, every pass leaves the outputs of all blocks at the last columns: (rows, keep, d_model) by layer."""
    caught: dict[int, Tensor] = {}

    def catching(layer: int) -> RemovableHandle:
        def on_block(_module: nn.Module, _args: object, out: BlockOutput) -> None:
            caught[layer] = block_output(out)[:, -keep:]

        return model.anatomy.block(model.model, layer).register_forward_hook(on_block)

    with hooked(catching(layer) for layer in range(model.anatomy.layers)):
        yield caught


def ranked(scores: Tensor, answers: Sequence[str], fact: Fact) -> tuple[Tensor, Tensor]:
    """Where one fact's answer stands among the candidates.

    Args:
        scores: (candidates, layers).
        fact: whose answer is looked for; some candidate is none (`rivals`).

    Returns:
        By layer, the share of the other candidates with a lower score; and by layer, which candidate stands first.
    """
    true = torch.tensor([is_one_of(answer, fact.answers) for answer in answers])
    mine = scores[true].max(0).values  # (layers,)
    return (scores[~true] < mine).float().mean(0), scores.argmax(0)


class Rank(NamedTuple):
    """Where the answer of one fact stands."""

    fact: Fact
    beaten: Tensor
    """By layer, (layers,): the share of the other candidates that the answer beats."""
    disclosed: bool
    """Whether the fact counts as recovered."""
    chance: float
    """How often guessing would have disclosed."""


def drawn(name: str, ranks: Sequence[Rank], note: str) -> Attacked:
    """The result of an attack that ranks candidates at every layer."""
    if not ranks:
        return Attacked(outcomes=())
    grid = Grid(
        name=f"attack.{name}",
        x_label="layer",
        value_label="share of the other candidates that the answer beats",
        columns=tuple(str(layer) for layer in range(len(ranks[0].beaten))),
        rows=tuple(rank.fact.id for rank in ranks),
        values=tuple(tuple(round(float(share), 4) for share in rank.beaten) for rank in ranks),
    )
    outcomes = tuple(
        Outcome(
            key=rank.fact.id,
            fact=rank.fact.id,
            part=rank.fact.relation,
            disclosed=rank.disclosed,
            refused=False,
            chance=rank.chance,
        )
        for rank in ranks
    )
    return Attacked(outcomes=outcomes, drawings=(grid,), note=note)
