"""What a patch, or an edited matrix by itself, gives away: the subjects that the edit was made for.

After Youssef et al., "Tracing and Reversing Edits in LLMs" (ICLR 2026). An update answers to the keys that it was
written for: run the model on many candidate subjects, in prompts of the attacker's own, and see where the update adds
most to the outputs. Without the patch, an edited matrix shows them as well, where its outputs are long for their
inputs. Nothing is generated, and no answer is found by it: it tells *which* facts somebody wanted forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from unlearn.audit.attacks.scene import Attack, Scene, Update
from unlearn.audit.observation import Attacked, Outcome
from unlearn.audit.suite import some
from unlearn.errors import AuditError
from unlearn.matching import contains
from unlearn.measurements import named
from unlearn.model.budget import token_budget
from unlearn.model.editable import EditableModel
from unlearn.model.forward import batches, hooked, passed
from unlearn.model.prompts import Prompt, ask
from unlearn.model.requests import Fact
from unlearn.model.rows import left_pad
from unlearn.progress import NO_PROGRESS, Progress

MATRICES = 8
"""The attack looks at so many of the changed matrices: those whose update is largest for their size."""


def loudest(model: EditableModel, update: Update) -> dict[str, Tensor]:
    """The largest updates relative to their matrices, (d_out, d_in) each, on the model's device."""
    sizes = {
        name: float(update.delta(name).norm()) / max(float(model.weight(name).float().norm()), 1e-30)
        for name in update.names
    }
    chosen = sorted((name for name in sizes if sizes[name] > 0), key=lambda name: -sizes[name])[:MATRICES]
    return {name: update.delta(name).to(model.device, model.dtype) for name in chosen}


@torch.inference_mode()
def gains(
    model: EditableModel,
    updates: Mapping[str, Tensor | None],
    prompts: Sequence[Prompt],
    progress: Progress = NO_PROGRESS,
) -> Tensor:
    """Per prompt and matrix, how much its update adds to its outputs, relative to them: |delta k| / |W k|.

    The largest over the tokens of the subject and what follows it.

    Args:
        updates: change by weight name, (d_out, d_in); for None the matrix's own gain |W k| / |k| is taken.

    Returns:
        (prompts, matrices), float32, on the host.

    Raises:
        AuditError: a gain is not finite.
    """
    found = torch.zeros(len(prompts), len(updates))
    rows = [prompt.ids for prompt in prompts]
    with progress.step("What the weights answer to", total=len(rows)) as bar:
        for group in batches(rows, token_budget(model)):
            ids, mask = left_pad([rows[i] for i in group], model.pad_id, model.device)
            at = torch.arange(ids.shape[1], device=model.device)
            first = torch.tensor(
                [ids.shape[1] - len(rows[i]) + (prompts[i].subject_first or 0) for i in group]
            )
            asked = at >= first.to(model.device)[:, None]
            largest = torch.zeros(len(group), len(updates), device=model.device)
            with _weighed(model, updates, asked, largest):
                passed(model, ids, mask, 1)
            found[group] = largest.cpu()
            bar.advance(len(group))
    if not torch.isfinite(found).all():
        raise AuditError(
            "the model's layers give outputs that are not finite, so subjects cannot be compared"
        )
    return found


def _weighed(
    model: EditableModel, updates: Mapping[str, Tensor | None], asked: Tensor, largest: Tensor
) -> AbstractContextManager[None]:
    """While the model runs, the largest gain of each matrix at the tokens that are asked for."""

    def hook(column: int, update: Tensor | None) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def add(_module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            keys, outputs = args[0].float().norm(dim=-1), out.float().norm(dim=-1)
            if update is None:
                part = outputs / keys.clamp_min(1e-30)
            else:
                part = (args[0] @ update.T).float().norm(dim=-1) / outputs.clamp_min(1e-30)
            largest[:, column] = part.masked_fill(~asked, 0).amax(-1)

        return add

    return hooked(
        model.anatomy.projection(model.model, name).listener.register_forward_hook(hook(column, update))
        for column, (name, update) in enumerate(updates.items())
    )


def area(wanted: Sequence[float], others: Sequence[float]) -> float:
    """Area under the ROC curve: the chance that a wanted score is above another, ties counted half; 0.5 if empty."""
    if not wanted or not others:
        return 0.5
    pairs = [(w > o) + 0.5 * (w == o) for w in wanted for o in others]
    return sum(pairs) / len(pairs)


def patch(model: EditableModel, scene: Scene, progress: Progress) -> Attacked:
    """Rank candidate subjects by what the update adds on them; the facts' own should be no higher than others.

    Raises:
        AuditError: it is not known what was changed.
    """
    update = scene.update
    if update is None:
        raise AuditError("what was changed is not known, so it cannot be asked what the change gives away")
    found = _found(model, scene, loudest(model, update), progress)
    named = {f.id for f in scene.requests.facts if contains(update.said.replace("_", " "), (f.subject,))}
    outcomes = tuple(
        o.model_copy(update={"disclosed": o.disclosed or o.fact in named}) for o in found.outcomes
    )
    return Attacked(
        outcomes=outcomes,
        note=f"By the update alone, {found.note}; {len(named)} named by the patch's header.",
    )


def traces(model: EditableModel, scene: Scene, progress: Progress) -> Attacked:
    """Rank candidate subjects by the gain of a down-projection on them, with nothing but the model at hand."""
    downs = [model.anatomy.weight_name(layer) for layer in range(model.anatomy.layers)]
    found = _found(model, scene, dict.fromkeys(downs), progress)
    return Attacked(outcomes=found.outcomes, note=f"By the weights alone, {found.note}.")


def _found(
    model: EditableModel, scene: Scene, updates: Mapping[str, Tensor | None], progress: Progress
) -> Attacked:
    """An outcome per fact, disclosed if its subject is among the top ones; the note counts them."""
    outcomes: list[Outcome] = []
    mine: list[float] = []
    rest: list[float] = []
    unseen: list[float] = []
    candidates = 0
    for relation in dict.fromkeys(fact.relation for fact in scene.requests.facts):
        facts = [fact for fact in scene.requests.facts if fact.relation == relation]
        scores = _scores(model, scene, updates, relation, facts, progress)
        own = {fact.subject for fact in facts}
        top = set(sorted(scores, key=lambda subject: -scores[subject])[: len(own)])
        for fact in facts:
            top_one = fact.subject in top and scores[fact.subject] > 0
            outcomes.append(Outcome(key=fact.id, fact=fact.id, disclosed=top_one, refused=False))
        held = {f.subject for f in scene.requests.held_out_neighbours if f.relation == relation}
        candidates += len(scores)
        mine += [scores[subject] for subject in own]
        rest += [score for subject, score in scores.items() if subject not in own]
        unseen += [score for subject, score in scores.items() if subject in held - own]
    note = (
        f"{sum(o.disclosed for o in outcomes)} of {len(outcomes)} found among {candidates} candidate subjects "
        f"({100 * len(mine) / max(candidates, 1):.0f} % by chance); area under the ROC curve {area(mine, rest):.2f}"
    )
    note += f", {area(mine, unseen):.2f} against subjects that the edit never saw" if unseen else ""
    return Attacked(outcomes=tuple(outcomes), note=note)


def _scores(
    model: EditableModel,
    scene: Scene,
    updates: Mapping[str, Tensor | None],
    relation: str,
    facts: Sequence[Fact],
    progress: Progress,
) -> dict[str, float]:
    """By candidate subject, its gain in standard deviations over all of them, averaged over the prompts.

    Standardised by prompt, since an update adds something whoever is asked about: most where the prompt resembles its
    own. Gains of updates are summed; of the matrices' own gains, the one that is most skewed is taken: few subjects
    with long outputs are what an edit looks like to somebody who does not know where it is.
    """
    own = list(dict.fromkeys(fact.subject for fact in facts))
    others = dict.fromkeys(fact.subject for fact in scene.candidates(relation) if fact.subject not in own)
    most = scene.suite.patch_subjects
    subjects = [*own, *some(list(others), None if most is None else max(most - len(own), 1), scene.seed)]
    if not updates:
        return dict.fromkeys(subjects, 0.0)
    spec = scene.requests.policy.relations[relation]
    templates = some(spec.held_out or spec.prompts, scene.suite.patch_prompts, scene.seed)
    prompts = [ask(model.tokenizer, template, subject) for subject in subjects for template in templates]
    each = gains(model, updates, prompts, progress).view(len(subjects), len(templates), len(updates))
    if not any(update is None for update in updates.values()):
        each = each.sum(2, keepdim=True)
    scores = _standard(each).mean(1)
    best = int(_standard(scores).pow(3).mean(0).argmax())
    return dict(zip(subjects, scores[:, best].tolist(), strict=True))


def _standard(values: Tensor) -> Tensor:
    """Centred and in standard deviations over the first axis."""
    centred = values - values.mean(0)
    return centred / centred.square().mean(0).sqrt().clamp_min(1e-12)


PATCH = (
    Attack(named("attack.patch"), patch, states=("after",), work=2.0),
    Attack(named("attack.traces"), traces, work=2.0),
)
