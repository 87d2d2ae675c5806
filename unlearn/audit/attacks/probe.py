"""Linear probe: a map, trained on other subjects, from hidden states to the words of the answer.

At every layer, ridge regression takes the state before each token of an answer to that token's embedding. It is trained
on neighbours, whose answers the attacker knows, and then ranks the candidate answers of the facts, which it never saw:
a candidate scores the mean agreement of its tokens' embeddings with what the map says there, less its mean over the
facts. The layer is chosen on neighbours that the map was not trained on either: the earliest at which their answers
rank nearly as high as at the best, since what an edit suppresses it suppresses late.

A probe also finds what the model's own head cannot see (Belinkov, "Probing Classifiers", Computational Linguistics
2022; as evidence that edits hide more than they remove: "Suppressed, Not Erased", arXiv 2609.18985).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unlearn.audit.attacks.direction import unit
from unlearn.audit.attacks.lens import centred
from unlearn.audit.attacks.reading import (
    Rank,
    Score,
    drawn,
    ending,
    mean_scores,
    options,
    prompts,
    ranked,
    rivals,
)
from unlearn.audit.attacks.scene import Attack, Scene
from unlearn.audit.observation import Attacked
from unlearn.audit.probes import Probe
from unlearn.audit.suite import some
from unlearn.errors import AuditError
from unlearn.measurements import named
from unlearn.model.editable import EditableModel
from unlearn.model.forward import read
from unlearn.model.requests import Fact
from unlearn.model.thinking import quietest
from unlearn.progress import NO_PROGRESS, Progress

TRAINED = 8
"""Fewest neighbours to train on, and to choose the layer on together."""
NEARLY = 0.98
"""How much of the best layer's lead over chance the chosen layer must have."""
RIDGE = 0.3
"""Relative to the mean squared length of the states."""


def linear_probe(model: EditableModel, scene: Scene, progress: Progress = NO_PROGRESS) -> Attacked:
    """Train probes on neighbours and rank the candidates; a fact is recovered if its answer ranks first.

    Returns:
        One outcome per fact, at the chosen layer; a grid (facts, layers) of the share of the other candidates that the
        true answer beats; and as the note the layers, and how far the probe gets on neighbours that it never saw.

    Raises:
        AuditError: there are too few neighbours, or too few candidates.
    """
    requests, suite = scene.requests, scene.suite
    ranks: list[Rank] = []
    notes: list[str] = []
    choices = options(scene)
    for name, answers in choices.items():
        every = [fact for fact in requests.facts if fact.relation == name and fact.answer]
        facts = [fact for fact in every if rivals(answers, fact)]
        known = [fact for fact in requests.held_out_neighbours if fact.relation == name and fact.answer]
        # Those whose answers are among the candidates can be ranked.
        rankable = [fact for fact in known if fact.answer in answers and rivals(answers, fact)]
        tried = some(rankable, min(suite.hidden_others, len(known) // 4), scene.seed)
        taught = [fact for fact in known if fact not in tried]
        if len(taught) + len(tried) < TRAINED or not tried:
            raise AuditError(
                f"a probe of {name!r} needs at least {TRAINED} held-out neighbours with answers, and there are "
                f"{len(known)}; add some to the policy"
            )
        everyone = [*facts, *tried]
        asked = [prompts(model, scene, fact, suite.hidden_prompts) for fact in everyone]
        if not all(asked):
            continue
        with progress.step(f"Linear probe: {name}", total=sum(map(len, asked))) as bar:
            score = trained(model, scene, taught)
            scores = torch.stack([mean_scores(model, probes, answers, score, bar) for probes in asked])
        scores = centred(scores)
        found = [ranked(one, answers, fact) for one, fact in zip(scores, everyone, strict=True)]
        mean = torch.stack([shares for shares, _ in found[len(facts) :]]).mean(0)  # (layers,)
        layer = chosen(mean)
        for fact, (shares, _) in zip(facts, found, strict=False):
            chance = (len(answers) - len(rivals(answers, fact))) / len(answers)
            ranks.append(Rank(fact, shares, bool(shares[layer] >= 1), chance))
        notes.append(
            f"{name}: trained on {len(taught)} neighbours, layer {layer}, where answers of {len(tried)} others beat "
            f"{float(mean[layer]):.2f} of {len(answers)} candidates."
        )
    return drawn("probe", ranks, " ".join(notes))


def chosen(mean: Tensor) -> int:
    """The earliest layer that is nearly as good as the best.

    Args:
        mean: (layers,), share of the candidates that the answers of neighbours beat; chance is one half.
    """
    best = float(mean.max())
    enough = 0.5 + NEARLY * (best - 0.5) if best > 0.5 else best
    return int((mean >= enough).nonzero()[0])


def trained(model: EditableModel, scene: Scene, taught: Sequence[Fact]) -> Score:
    """A probe of every layer, as a score of tokens at the states before them."""
    embeddings = model.model.get_output_embeddings().weight
    probes = [
        (probe, fact) for fact in taught for probe in prompts(model, scene, fact, scene.suite.probe_prompts)
    ]
    rows, positions, targets = rows_before(model, probes)
    layers = range(model.anatomy.layers)
    stream = read(model, rows, positions, stream_layers=layers).stream
    ids = torch.tensor(targets, device=model.device)
    wanted = embeddings[ids].float()
    middle = wanted.mean(0)
    maps: Mapping[int, tuple[Tensor, Tensor]] = {
        layer: ridge(stream[layer].T, unit(wanted - middle)) for layer in layers
    }

    def score(layer: int, states: Tensor, tokens: Tensor) -> Tensor:
        centre, weights = maps[layer]
        said = (states.float() - centre) @ weights  # (1 or n, T, d_model)
        return (said * unit(embeddings[tokens].float() - middle)).sum(2)

    return score


def rows_before(
    model: EditableModel, probes: Sequence[tuple[Probe, Fact]]
) -> tuple[list[tuple[int, ...]], list[list[int]], list[int]]:
    """Rows with their true answers, the positions before each token of these, and the tokens, row by row."""
    rows, positions, targets = [], [], []
    quiet = quietest(model.tokenizer)
    for probe, fact in probes:
        tokens = ending(quiet, probe, fact.answer)
        rows.append((*probe.prompt.ids, *tokens[:-1]))
        positions.append([probe.prompt.last + i for i in range(len(tokens))])
        targets += tokens
    return rows, positions, targets


def ridge(states: Tensor, wanted: Tensor, strength: float = RIDGE) -> tuple[Tensor, Tensor]:
    """The centre c (d,) and the weights W (d, e) that minimise ||(X - c) W - Y||^2 + strength s n ||W||^2.

    Solved on the narrower side, in float64 on the CPU.

    Args:
        states: X (n, d).
        wanted: Y (n, e).
        strength: relative to s, the mean squared length of the centred states divided by n.
    """
    centre = states.float().mean(0)
    x, y = (states.float() - centre).double().cpu(), wanted.double().cpu()
    n, d = x.shape
    amount = strength * float(x.square().sum(1).mean())
    if n <= d:
        gram = x @ x.T + amount * torch.eye(n, dtype=x.dtype)
        weights = x.T @ torch.linalg.solve(gram, y)
    else:
        weights = torch.linalg.solve(x.T @ x + amount * torch.eye(d, dtype=x.dtype), x.T @ y)
    return centre, weights.float().to(states.device)


PROBE = (Attack(named("attack.probe"), linear_probe, work=2.5),)
