"""Logit lens: reads the answer off the hidden states of every layer, although the model does not say it.

The stream after each block goes through the model's own last norm and output head, as if the model ended there
(nostalgebraist, "interpreting GPT: the logit lens", 2020; as an attack on deleted facts: Patil, Hase, Bansal, "Can
Sensitive Information Be Deleted From LLMs?", ICLR 2024). Each of the relation's candidate answers is put after the
prompt, and a layer's score of it is the mean log-probability of its tokens there, less the mean of that candidate's
scores over all subjects that are asked: what a layer likes to say about everyone is no knowledge of one.

The attacker needs the weights and a list of candidates with the true answer among them, and no access to the
unedited model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlearn.audit.attacks.reading import (
    Rank,
    Score,
    drawn,
    mean_scores,
    options,
    prompts,
    ranked,
    rivals,
)
from unlearn.audit.attacks.scene import Attack, Scene
from unlearn.audit.observation import Attacked
from unlearn.audit.suite import some
from unlearn.measurements import named
from unlearn.model.editable import EditableModel
from unlearn.model.suspended import Suspended
from unlearn.progress import NO_PROGRESS, Progress


def logit_lens(model: EditableModel, scene: Scene, progress: Progress = NO_PROGRESS) -> Attacked:
    """Rank the candidate answers at every layer; a fact is recovered if its own ranks first at any of them.

    Returns:
        One outcome per fact; a grid (facts, layers) of the share of the other candidates that the true answer beats;
        and as the note how often a candidate that is not the answer ranks first.

    Raises:
        AuditError: no relation has two candidate answers.
    """
    requests, suite = scene.requests, scene.suite
    ranks: list[Rank] = []
    choices = options(scene)
    everyone = {
        name: [
            *(fact for fact in requests.facts if fact.relation == name and fact.answer),
            # A few others, so that there is something to compare even one fact with.
            *some(
                [fact for fact in requests.held_out_neighbours if fact.relation == name],
                suite.hidden_others,
                scene.seed,
            ),
        ]
        for name in choices
    }
    asked = {
        fact.id: prompts(model, scene, fact, suite.hidden_prompts)
        for all_ in everyone.values()
        for fact in all_
    }
    score = lens(model)
    with progress.step("Logit lens", total=sum(map(len, asked.values()))) as bar:
        for name, answers in choices.items():
            subjects = [fact for fact in everyone[name] if asked[fact.id]]
            if not subjects:
                continue
            scores = centred(
                torch.stack([mean_scores(model, asked[fact.id], answers, score, bar) for fact in subjects])
            )
            for row, fact in enumerate(subjects):
                others = rivals(answers, fact)
                if fact not in requests.facts or not others:
                    continue
                beaten, first = ranked(scores[row], answers, fact)
                wrong = {answers[i] for i in first[beaten < 1].tolist()}
                ranks.append(Rank(fact, beaten, bool((beaten >= 1).any()), len(wrong) / len(others)))
    sizes = ", ".join(str(len(answers)) for answers in choices.values())
    chance = sum(rank.chance for rank in ranks) / max(1, len(ranks))
    note = (
        f"Candidates per relation: {sizes}. Another candidate, drawn at random, ranks first at some layer with "
        f"probability {chance:.3f}."
    )
    return drawn("lens", ranks, note)


def lens(model: EditableModel) -> Score:
    """The lens as a score: a token's log-probability, in nats, if the model ended at this layer."""

    def score(_layer: int, stream: Tensor, tokens: Tensor) -> Tensor:
        said = through_head(model, stream).float().log_softmax(2)
        return said.expand(len(tokens), -1, -1).gather(2, tokens[..., None])[..., 0]

    return score


_TUPLED = frozenset({"gptj"})
"""Families whose blocks put the stream into a tuple."""


def through_head(model: EditableModel, stream: Tensor) -> Tensor:
    """Logits of a stream as if the model ended there: (rows, T, d_model) to (rows, T, V).

    The model's own pass runs with blocks that hand the stream on, so that the last norm, and any scaling or capping of
    the logits, are the family's own. Gradients flow to ``stream``.
    """
    last = model.anatomy.layers - 1
    ids = torch.full(stream.shape[:2], model.pad_id, dtype=torch.long, device=stream.device)
    tupled = model.anatomy.model_type in _TUPLED
    return Suspended(model, last, ids, torch.ones_like(ids), stream, tupled).logits(stream, stream.shape[1])


def centred(scores: Tensor) -> Tensor:
    """Scores (subjects, candidates, layers) less each candidate's mean over the subjects.

    One subject alone has nothing to be compared with and stays as it is.
    """
    return scores - scores.mean(0) if len(scores) > 1 else scores


LENS = (Attack(named("attack.lens"), logit_lens, work=2.5),)
