"""Dropping the top singular directions of weight matrices: large low-rank updates sit there.

After Youssef et al., "Tracing and Reversing Edits in LLMs" (ICLR 2026): a rank-one edit is often the largest singular
component of the matrix that it was written into, so that whoever subtracts the largest few gets the old answer back
without knowing the old weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlearn.audit.attacks.scene import Attack, Scene, any_disclosed, recovered, restored
from unlearn.audit.observation import Attacked, Outcome
from unlearn.audit.suite import some
from unlearn.measurements import named
from unlearn.model.editable import EditableModel
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.report import Curve

EXACT = 1024
"""Narrower side of a matrix up to which its singular values are computed exactly; larger ones are sketched."""


@torch.no_grad()
def top(weight: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The largest singular components of a matrix as factors.

    Args:
        weight: (d_out, d_in).
        count: how many; fewer where the matrix has fewer.
        seed: of the sketch for a large matrix (Halko et al., 2011); the global generators are left as they were.

    Returns:
        (d_out, count), which carries the singular values, and (count, d_in): column i times row i is component i.
    """
    matrix = weight.float()
    narrow = min(matrix.shape)
    count = min(count, narrow)
    if narrow <= EXACT:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return left[:, :count] * values[:count], right[:count]
    devices = [matrix.device] if matrix.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        left, values, columns = torch.svd_lowrank(matrix, q=min(count + 16, narrow), niter=4)
    return left[:, :count] * values[:count], columns.T[:count]


def dropped(
    model: EditableModel,
    names: Sequence[str],
    scene: Scene,
    progress: Progress = NO_PROGRESS,
) -> dict[int, tuple[Outcome, ...]]:
    """Ask with the top k components of all these matrices taken out, for every k of the suite.

    Returns:
        The outcomes by k.
    """
    ranks = sorted(set(scene.suite.singular_ranks))
    probes = some(scene.asked, scene.suite.singular_prompts, scene.seed)
    found: dict[int, tuple[Outcome, ...]] = {}
    with restored(model), torch.no_grad():
        with progress.step("Singular directions", total=len(names)) as bar:
            parts = {}
            for name in names:
                parts[name] = top(model.weight(name), ranks[-1], scene.seed)
                bar.advance(1)
        gone = 0
        with progress.step("Dropping singular directions", total=len(ranks)) as bar:
            for rank in ranks:
                for name, (left, right) in parts.items():
                    model.overwrite(name, model.weight(name).float() - left[:, gone:rank] @ right[gone:rank])
                gone = rank
                found[rank] = recovered(model, scene, progress, probes)
                bar.advance(1)
    return found


def singular(model: EditableModel, scene: Scene, progress: Progress) -> Attacked:
    """Drop directions in all down-projections at once, and in the changed matrices alone; any success counts."""
    downs = [model.anatomy.weight_name(layer) for layer in range(model.anatomy.layers)]
    changed = [] if scene.update is None else list(scene.update.names)
    variants = [downs] if not changed or set(changed) == set(downs) else [changed, downs]
    runs = [dropped(model, names, scene, progress) for names in variants]
    ranks = tuple(runs[0])
    told = {rank: any_disclosed([run[rank] for run in runs]) for rank in ranks}
    outcomes = any_disclosed(list(told.values()))
    shares = tuple(sum(o.disclosed for o in told[rank]) / max(len(outcomes), 1) for rank in ranks)
    curve = Curve(
        name="attack.singular",
        x_label="singular directions dropped",
        y_label="share recovered",
        x=tuple(float(rank) for rank in ranks),
        y=shares,
    )
    best = max(zip(shares, ranks, strict=True), default=(0.0, 0))
    note = f"The most at one number of directions: {100 * best[0]:.1f} % with {best[1]} dropped."
    return Attacked(outcomes=outcomes, drawings=(curve,), note=note if best[0] else "")


SINGULAR = (Attack(named("attack.singular"), singular, work=4.0),)
