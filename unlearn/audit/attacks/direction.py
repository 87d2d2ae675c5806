"""Refusal-direction ablation: takes the one direction out of the stream that says "this must be refused".

The difference between the mean state at the last token of prompts about the facts and of the same prompts about
neighbours, which are answered, is the direction along which the model tells what it refuses. While it generates, every
block's output is held, along this direction, at what the neighbours have there, so that no later layer can see on
which side a prompt lies (Arditi et al., "Refusal in Language Models Is Mediated by a Single Direction", NeurIPS 2024;
holding a component at a mean instead of zero: Marshall, Scherlis, Belrose, "Refusal in LLMs is an Affine Function",
2024).

Every block offers a direction. The attacker, who does not know the answers, tries all of them on a few prompts and
keeps those under which the most get another reply than before, and no refusal, and the most neighbours the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from unlearn.audit.attacks.scene import Attack, Scene, any_disclosed, recovered
from unlearn.audit.observation import Attacked
from unlearn.audit.probes import Probe, fact_probes
from unlearn.audit.suite import some
from unlearn.errors import AuditError
from unlearn.matching import is_refusal
from unlearn.measurements import named
from unlearn.model.editable import EditableModel
from unlearn.model.forward import changed, read
from unlearn.model.replies import replies_to
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.thoughts import Room

MEANS = 96
"""Most prompts of each side behind a mean."""
TRIED = 12
"""Prompts of each side on which a direction is tried."""
REPLY = 12
"""Tokens of a reply while directions are being tried."""
KEPT = 3
"""Directions that are used on everything: any of them may tell."""


def refusal_direction(model: EditableModel, scene: Scene, progress: Progress = NO_PROGRESS) -> Attacked:
    """Ablate the direction in which forbidden prompts differ from answered ones, and ask for the facts again.

    Args:
        model: in any state; it is not changed, only its blocks' outputs while it generates.

    Returns:
        One outcome per held-out question and statement: disclosed under any of the three chosen directions,
        refused under all of them.

    Raises:
        AuditError: there are no neighbours to compare with.
    """
    asked = some(scene.asked, scene.suite.direction_prompts, scene.seed)
    neighbours = _neighbours(model, scene)
    if not neighbours:
        raise AuditError(
            "there are no held-out neighbours with held-out prompts, so forbidden prompts cannot be compared with "
            "answered ones; add some to the policy"
        )
    if not asked:
        return Attacked(outcomes=())
    forbidden, answered = some(scene.asked, MEANS, scene.seed), some(neighbours, MEANS, scene.seed)
    there, elsewhere = _means(model, forbidden), _means(model, answered)
    directions = unit(there - elsewhere)  # (layers, d_model)
    layers = tried(model, scene, directions, elsewhere, forbidden, answered, progress)[:KEPT]
    found = []
    for layer in layers:
        with ablated(model, directions[layer], elsewhere):
            found.append(recovered(model, scene, progress, asked))
    note = f"Directions of layers {', '.join(map(str, layers))}; prompts recovered under each: " + (
        ", ".join(f"{sum(one.disclosed for one in seen)} of {len(seen)}" for seen in found) + "."
    )
    return Attacked(outcomes=any_disclosed(found), note=note)


def _neighbours(model: EditableModel, scene: Scene) -> list[Probe]:
    """Held-out prompts of the facts' relations about subjects that are no secret."""
    requests = scene.requests
    relations = {fact.relation for fact in requests.facts}
    templates = {name: requests.policy.relations[name].held_out for name in relations}
    known = [f for f in requests.held_out_neighbours if f.relation in relations and f.answer]
    return fact_probes(model.tokenizer, known, templates)


def _means(model: EditableModel, probes: Sequence[Probe]) -> Tensor:
    """Mean output of every block at the last prompt token, (layers, d_model), float32.

    Questions and statements count the same, however many of each were drawn: a difference between two sides must not
    be that of their shares.
    """
    layers = range(model.anatomy.layers)
    rows = [probe.prompt.ids for probe in probes]
    stream = read(model, rows, [[len(row) - 1] for row in rows], stream_layers=layers).stream
    kinds = torch.tensor([probe.question for probe in probes], device=model.device)
    sides = [kind for kind in (kinds, ~kinds) if kind.any()]
    return torch.stack(
        [torch.stack([stream[layer][:, side].mean(1) for side in sides]).mean(0) for layer in layers]
    )


def unit(vectors: Tensor) -> Tensor:
    """Vectors of length one; one of length zero stays, so that ablating it does nothing."""
    found: Tensor = vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return found


@contextmanager
def ablated(model: EditableModel, direction: Tensor, means: Tensor) -> Iterator[None]:
    """Hold every block's output, at every token, at a mean along one direction.

    Args:
        direction: (d_model,), of length one, or zero for no change.
        means: (layers, d_model): the component along the direction is that of these.
    """

    def holding(layer: int) -> Callable[[Tensor], Tensor]:
        held = float(means[layer] @ direction)

        def change(stream: Tensor) -> Tensor:
            along = direction.to(stream.device, torch.float32)
            excess = stream.float() @ along - held * float(along.norm())
            return (stream.float() - excess[..., None] * along).to(stream.dtype)

        return change

    with ExitStack() as stack:
        for layer in range(model.anatomy.layers):
            stack.enter_context(changed(model.anatomy.block(model.model, layer), holding(layer)))
        yield


def tried(
    model: EditableModel,
    scene: Scene,
    directions: Tensor,
    means: Tensor,
    forbidden: Sequence[Probe],
    answered: Sequence[Probe],
    progress: Progress = NO_PROGRESS,
) -> list[int]:
    """Layers, the most promising direction first; none of the answers is looked at.

    A direction's merit is the share of forbidden prompts whose reply becomes another one under it, and no refusal, plus
    the share of neighbours' prompts whose reply stays as it was.
    """
    asked = [*some(forbidden, TRIED, scene.seed), *some(answered, TRIED, scene.seed)]
    split = min(TRIED, len(forbidden))
    refusals = scene.requests.policy.targets()

    def replies() -> list[str]:
        room = Room(REPLY, scene.suite.thought_tokens)
        said = replies_to(model, [probe.prompt for probe in asked], room, whole=True)
        return [reply.visible for reply, *_ in said]

    merits: list[float] = []
    with progress.step("Trying refusal directions", total=len(directions)) as bar:
        before = replies()
        for direction in directions:
            with ablated(model, direction, means):
                said = replies()
            same = [a == b for a, b in zip(before, said, strict=True)]
            opened = [
                not is_refusal(reply, refusals) and not as_before
                for reply, as_before in zip(said[:split], same[:split], strict=True)
            ]
            merits.append(sum(opened) / split + sum(same[split:]) / len(same[split:]))
            bar.advance()
    return sorted(range(len(merits)), key=lambda layer: -merits[layer])


DIRECTION = (Attack(named("attack.direction"), refusal_direction, work=1.5),)
