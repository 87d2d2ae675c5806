"""What every attack is given, and the few things that all of them do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unlearn.audit.asking import ask_greedily
from unlearn.audit.observation import Attacked, Outcome
from unlearn.audit.probes import Probe
from unlearn.audit.suite import Suite
from unlearn.errors import AuditError
from unlearn.measurements import Row
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Fact, Requests
from unlearn.progress import NO_PROGRESS, Progress

State = Literal["before", "after", "control"]
"""The unedited model, the candidate, and a model that never knew the facts."""


@dataclass(frozen=True)
class Update:
    """What whoever holds the patch, or both models, knows of an edit; attacks on a model alone do not look at it."""

    names: tuple[str, ...]
    """Linear weights inside the blocks in which the candidate differs from the unedited model."""
    delta: Callable[[str], Tensor]
    """The change of one of them, (d_out, d_in) in float32, made when it is asked for."""
    said: str = ""
    """Text that comes with a patch: its header."""


@dataclass(frozen=True)
class Scene:
    """The same for every state of a model, so that what attacks find can be compared."""

    requests: Requests
    suite: Suite
    probes: Mapping[str, Sequence[Probe]]
    """The audit's probes by group (`unlearn.audit.probes.build_probes`)."""
    update: Update | None = None
    """How the candidate differs from the unedited model; only in the state "after", and where it is known."""

    @property
    def asked(self) -> list[Probe]:
        """Held-out questions and statements about the facts: what an attack tries to have answered."""
        return [*self.probes.get("held_out", ()), *self.probes.get("cloze", ())]

    @property
    def seed(self) -> int:
        """Seed of everything random in an attack."""
        return self.requests.policy.audit.seed

    def candidates(self, relation: str) -> list[Fact]:
        """Facts to forget and neighbours of one relation: whose answers an attacker would choose from."""
        requests = self.requests
        everyone = (*requests.facts, *requests.held_out_neighbours, *requests.neighbours)
        return [fact for fact in everyone if fact.relation == relation]


@dataclass(frozen=True)
class Attack:
    """How an attack is made that is measured as a row of the table."""

    row: Row
    run: Callable[[EditableModel, Scene, Progress], Attacked]
    states: tuple[State, ...] = ("before", "after", "control")
    """The states in which it is run. `before` shows that the attack itself does not destroy what it looks for."""
    work: float = 1.0
    """What it costs in one state, in askings of all held-out prompts about the facts: for the estimate of a first run;
    later ones know what it took."""

    @property
    def name(self) -> str:
        """Without "attack."."""
        return self.row.name.partition(".")[2]

    @property
    def relative(self) -> bool:
        """Whether some success is chance: then the limit, unless the policy sets one, is the control's interval."""
        return self.row.chance == "control"


@contextmanager
def restored(model: EditableModel) -> Iterator[EditableModel]:
    """A model that an attack may change: on exit every parameter and buffer is bit-identical to before.

    The originals lie in host memory meanwhile, so that a model as large as its device can be attacked.

    Raises:
        AuditError: some of its weights are offloaded or quantised, which no attack can write.
    """
    if model.quantised:
        raise AuditError(
            f"this attack changes weights in place, and those of this model are in 4 bits ({model.quantised}), which "
            "cannot be written; audit the checkpoint that it was quantised from"
        )
    if model.offloaded:
        raise AuditError(
            "this attack changes weights in place, and some of this model's are on disk or in the host's memory; audit "
            "it without --device-map, or with one that offloads nothing"
        )
    kept = {name: tensor.detach().cpu().clone() for name, tensor in model.model.state_dict().items()}
    with model.changing():
        try:
            yield model
        finally:
            with torch.no_grad():
                for name, tensor in model.model.state_dict().items():
                    tensor.copy_(kept[name])
            model.model.requires_grad_(False)
            model.model.eval()


def any_disclosed(runs: Sequence[Sequence[Outcome]]) -> tuple[Outcome, ...]:
    """Of several runs that asked the same: disclosed, or without an answer, if so in any; refused if refused in all."""
    return tuple(
        same[0].model_copy(
            update={
                "disclosed": any(o.disclosed for o in same),
                "refused": all(o.refused for o in same),
                "unanswered": any(o.unanswered for o in same),
            }
        )
        for same in zip(*runs, strict=True)
    )


def recovered(
    model: EditableModel,
    scene: Scene,
    progress: Progress = NO_PROGRESS,
    probes: Sequence[Probe] | None = None,
) -> tuple[Outcome, ...]:
    """Ask greedily for the facts: the outcomes, whose `disclosed` says what an attack got back.

    Args:
        probes: instead of `scene.asked`.
    """
    groups = {"asked": scene.asked if probes is None else probes}
    refusals = scene.requests.policy.targets()
    asked = ask_greedily(model, groups, refusals, scene.suite.room, progress)["asked"]
    # An attacker reads thoughts as well.
    return tuple(o.model_copy(update={"disclosed": o.disclosed or o.disclosed_in_thoughts}) for o in asked)
