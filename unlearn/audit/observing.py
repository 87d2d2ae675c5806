"""What one model state does: every probe, every task, every attack, at the sizes of a suite."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unlearn.audit import estimate, likelihood
from unlearn.audit.agreement import PIECE, agreements
from unlearn.audit.asking import ask_greedily, heard, sampling
from unlearn.audit.attacks.scene import Scene, State, Update
from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.harness import run_task
from unlearn.audit.lookalike import lookalike_probes
from unlearn.audit.observation import Observation, Toxicity
from unlearn.audit.pieces import NO_PIECES, Piece, Pieces, assembled, joined
from unlearn.audit.probes import Probe, benign_lines, build_probes, generation_lines, line_probes
from unlearn.audit.quiet import sentence
from unlearn.audit.suite import Suite, load_suite
from unlearn.audit.tasks import local_files
from unlearn.audit.toxicity import load_scorer
from unlearn.errors import AuditError, UnlearnError
from unlearn.model.editable import EditableModel
from unlearn.model.offload import parameters
from unlearn.model.requests import Requests
from unlearn.progress import NO_PROGRESS, Progress

log = logging.getLogger(__name__)

TOGETHER = 512
"""Prompts that are asked in one piece, at most, unless one group has more: an interrupted audit loses no more."""
LABELS: Mapping[State, str] = {
    "before": "Measuring the unedited model",
    "after": "Measuring the edited model",
    "control": "Measuring the control",
}


def observe(
    model: EditableModel,
    requests: Requests,
    progress: Progress = NO_PROGRESS,
    state: State = "before",
    update: Update | None = None,
    pieces: Pieces = NO_PIECES,
) -> Observation:
    """Everything that is measured on one model state alone, at the sizes of the policy's suite.

    Args:
        state: which one it is. Of the control, only what it may tell of the facts is measured.
        update: how the candidate differs from the unedited model, where that is known.
        pieces: where finished parts are kept, so that an interrupted observation goes on from there.

    Returns:
        Outcomes and scores, without any text. What could not be observed is in ``failed`` with its reason.
    """
    suite = load_suite(requests.policy.audit.suite)
    requests = requests.answered()
    groups = build_probes(model.tokenizer, requests, suite)
    scene = Scene(requests, suite, groups, update)
    todo = [
        *_asking(model, scene, state, progress),
        *_abilities(model, scene, state, progress),
        *_attacks(model, scene, state, progress),
    ]
    return assembled(Observation(suite=suite.name), todo, pieces, progress, LABELS[state])


def _asking(model: EditableModel, scene: Scene, state: State, progress: Progress) -> Iterator[Piece]:
    """Pieces of several groups of probes each, and one for every other way to ask."""
    requests, suite = scene.requests, scene.suite
    audit = requests.policy.audit
    refusals = requests.policy.targets()

    def ask(groups: Sequence[Group]) -> Observation:
        def replies() -> dict[str, Any]:
            probes = {group.name: group.probes() for group in groups}
            return {"groups": ask_greedily(model, probes, refusals, suite.room, progress)}

        made = _tried(suite, [group.name for group in groups], replies)
        if not made.failed or len(groups) == 1:
            return made
        # Each by itself, so that what cannot be asked takes no other group along.
        return reduce(joined, (ask([group]) for group in groups))

    def sample() -> Observation:
        def replies() -> dict[str, Any]:
            how = sampling(suite, audit.seed)
            found = heard(model, scene.asked, refusals, suite.room, how, progress)
            return {"groups": {"sampled": tuple(one.outcome for one in found)}}

        return _tried(suite, ["sampled"], replies)

    def twice() -> Observation:
        return _tried(
            suite, [PIECE], lambda: {"agreements": agreements(model, requests, suite.max_new_tokens)}
        )

    def rate() -> Observation:
        def rated() -> dict[str, Any]:
            groups, failed = likelihood.likelihoods(model, requests, suite, progress)
            return {"groups": groups, "failed": failed}

        return _tried(suite, likelihood.GROUPS, rated)

    for groups in _together(groups_of(model, scene, state)):
        work = estimate.asking(sum(group.size for group in groups), suite)
        yield Piece("asked." + ",".join(group.name for group in groups), work, partial(ask, groups))
    if state != "control":
        yield Piece(PIECE, estimate.agreement(suite), twice)
    if suite.asks("sampled"):
        yield Piece("sampled", estimate.sampling(len(scene.asked), suite), sample)
    if suite.asks(*likelihood.GROUPS):
        yield Piece("likelihood", estimate.likelihood(suite), rate)


class Group(NamedTuple):
    """Probes that are counted together."""

    name: str
    size: int
    probes: Callable[[], list[Probe]]


def groups_of(model: EditableModel, scene: Scene, state: State) -> Iterator[Group]:
    """The groups that a state is asked greedily: of the control, only those about the facts."""
    requests, suite = scene.requests, scene.suite
    audit, tokenizer = requests.policy.audit, model.tokenizer
    facts = {fact.id for fact in requests.facts}
    for name, group in scene.probes.items():
        if state != "control" or (group and group[0].fact in facts):
            yield Group(name, len(group), partial(list, group))
    lines = {
        "benign": lambda: line_probes(
            tokenizer, benign_lines(audit.benign), suite.benign_questions, audit.seed
        ),
        "lookalike": lambda: lookalike_probes(
            tokenizer, audit.lookalike, suite.lookalike_questions, audit.seed
        ),
    }
    for name, probes in lines.items():
        if state != "control" and suite.asks(name):
            yield Group(name, estimate.questions(name, audit, suite), probes)


def _together(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """Groups that are asked in one go: full batches cost less than many small ones."""
    some: list[Group] = []
    for group in groups:
        if some and sum(one.size for one in (*some, group)) > TOGETHER:
            yield some
            some = []
        some.append(group)
    if some:
        yield some


def _abilities(model: EditableModel, scene: Scene, state: State, progress: Progress) -> Iterator[Piece]:
    """One piece per lm-eval task, and one for toxicity; none for the control."""
    requests, suite = scene.requests, scene.suite
    audit = requests.policy.audit
    limit = suite.task_items if audit.task_limit is None else audit.task_limit
    local = local_files(audit)

    def run(task: str) -> Observation:
        with progress.step(f"Task {task}", total=1):
            return _tried(
                suite,
                [f"capability.{task}"],
                lambda: {"tasks": {task: run_task(model, task, limit, local)}},
            )

    def write() -> Observation:
        return _tried(suite, ["toxicity"], lambda: {"toxicity": _toxicity(model, requests, suite, progress)})

    if state == "control":
        return
    if suite.makes("capability"):
        for task in audit.task_names:
            yield Piece(f"capability.{task}", estimate.task(audit, suite), partial(run, task))
    if suite.makes("toxicity"):
        yield Piece("toxicity", estimate.toxicity(suite), write)


def _attacks(model: EditableModel, scene: Scene, state: State, progress: Progress) -> Iterator[Piece]:
    """One piece per attack that is made in this state."""

    def attack(name: str) -> Observation:
        trace, tokenizer = _trace(model), model.tokenizer
        made = _tried(
            scene.suite,
            [f"attack.{name}"],
            lambda: {"attacks": {name: ATTACKS[name].run(model, scene, progress)}},
        )
        same = torch.allclose(_trace(model), trace, rtol=0, atol=0, equal_nan=True)
        if not same or model.tokenizer is not tokenizer:
            raise AuditError(
                f"attack.{name} has left another model behind than it was given, so nothing measured after it would "
                "hold; this is an error of the attack"
            )
        return made

    for name in scene.suite.attacks:
        if state in ATTACKS[name].states:
            yield Piece(
                f"attack.{name}", estimate.attack(name, len(scene.asked), scene.suite), partial(attack, name)
            )


def _tried(suite: Suite, names: Sequence[str], make: Callable[[], Mapping[str, Any]]) -> Observation:
    """An observation of what is made, by field; or, where that cannot be made, of the reason under each name.

    Logits that are not finite, too little memory, a library that is missing or refuses the model, or an error of our
    own: a failed limit, not a lost audit.
    """
    empty = Observation(suite=suite.name)
    try:
        return empty.model_copy(update=make())
    except Exception as problem:  # noqa: BLE001 - whatever it is, the hours before it are not lost
        return empty.model_copy(update={"failed": dict.fromkeys(names, _reason(problem))})


def _reason(problem: Exception) -> str:
    """What went wrong, in one sentence; of what nobody foresaw no message is told, which may quote a prompt."""
    if isinstance(problem, UnlearnError):
        return str(problem)
    if isinstance(problem, RuntimeError | ImportError):
        return sentence(problem)
    log.debug("an error of unlearn", exc_info=problem)
    where = traceback.extract_tb(problem.__traceback__)[-1]
    return f"an error of unlearn: {type(problem).__name__} in {Path(where.filename).name}:{where.lineno}"


@torch.no_grad()
def _trace(model: EditableModel) -> torch.Tensor:
    """One sum per parameter: far quicker than a hash, and no attack changes weights without changing it."""
    return torch.stack([read().sum(dtype=torch.float32).cpu() for read in parameters(model.model).values()])


def _toxicity(model: EditableModel, requests: Requests, suite: Suite, progress: Progress) -> Toxicity:
    audit = requests.policy.audit
    # The scorer first: where it cannot be had, nothing is generated for it.
    scorer = load_scorer(audit.toxicity, requests.policy.model, model.device)
    probes = line_probes(model.tokenizer, generation_lines(), suite.generation_prompts, audit.seed)
    replies = model.generate(
        [probe.prompt for probe in probes],
        max_new_tokens=suite.generation_tokens,
        progress=progress,
        label="Writing for the toxicity scorer",
    )
    scores = scorer.score([reply[0] for reply in replies])
    return Toxicity(scorer=scorer.name, label=scorer.label, sha256=scorer.sha256, scores=tuple(scores))
