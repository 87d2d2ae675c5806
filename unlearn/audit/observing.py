"""What one model state does: every probe, every task, every attack, at the sizes of a suite."""

from __future__ import annotations

from unlearn.audit.asking import ask_greedily, ask_sampled
from unlearn.audit.attacks.scene import Scene, State
from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.harness import run_tasks
from unlearn.audit.observation import Attacked, Observation, TaskScore, Toxicity
from unlearn.audit.probes import benign_lines, build_probes, generation_lines, line_probes
from unlearn.audit.suite import Suite, load_suite
from unlearn.audit.toxicity import load_scorer
from unlearn.errors import AuditError, UnlearnError
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Requests
from unlearn.progress import NO_PROGRESS, Progress


def observe(
    model: EditableModel,
    requests: Requests,
    progress: Progress = NO_PROGRESS,
    state: State = "before",
    changed: tuple[str, ...] = (),
) -> Observation:
    """Everything that is measured on one model state alone, at the sizes of the policy's suite.

    Args:
        model: in the state to observe.
        requests: the policy and its resolved facts.
        progress: where to show the steps.
        state: which one it is. Of the control, only what it may tell of the facts is measured.
        changed: weight matrices in which the candidate differs from the unedited model.

    Returns:
        Outcomes and scores, without any text. What could not be observed is in ``failed`` with its reason.
    """
    policy = requests.policy
    suite = load_suite(policy.audit.suite)
    failed: dict[str, str] = {}
    facts = {fact.id for fact in requests.facts}
    groups = build_probes(model.tokenizer, requests, suite)
    scene = Scene(requests, suite, dict(groups), changed)
    if state == "control":
        groups = {name: group for name, group in groups.items() if group and group[0].fact in facts}
    if suite.makes("overrefusal") and state != "control":
        try:
            lines = benign_lines(policy.audit.benign)
            groups["benign"] = line_probes(model.tokenizer, lines, suite.benign_questions, policy.audit.seed)
        except AuditError as problem:
            failed["benign"] = str(problem)
    judged = ask_greedily(model, groups, policy.targets(), suite.max_new_tokens, progress)
    if suite.makes("leak.sampled"):
        probes = [*groups["held_out"], *groups["cloze"]]
        judged["sampled"] = ask_sampled(
            model, probes, policy.targets(), suite.max_new_tokens, suite.samples, policy.audit.seed, progress
        )
    tasks: dict[str, TaskScore] = {}
    if suite.makes("capability") and state != "control":
        limit = suite.task_items if policy.audit.task_limit is None else policy.audit.task_limit
        for name, score in run_tasks(model, policy.audit.tasks, limit, progress).items():
            if isinstance(score, TaskScore):
                tasks[name] = score
            else:
                failed[f"capability.{name}"] = score
    toxicity = None
    if suite.makes("toxicity") and state != "control":
        try:
            toxicity = _toxicity(model, requests, suite, progress)
        except AuditError as problem:
            failed["toxicity"] = str(problem)
    attacks: dict[str, Attacked] = {}
    for name in suite.attacks:
        if state not in ATTACKS[name].states:
            continue
        try:
            attacks[name] = ATTACKS[name].run(model, scene, progress)
        except UnlearnError as problem:
            failed[f"attack.{name}"] = str(problem)
    return Observation(
        suite=suite.name, groups=judged, tasks=tasks, toxicity=toxicity, attacks=attacks, failed=failed
    )


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
