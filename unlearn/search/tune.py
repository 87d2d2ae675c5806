"""`unlearn apply --tune`: a search for better settings on validation prompts, resumable, with a Pareto table.

Nothing that the audit asks is looked at. Of every forgotten relation's own prompts the last question and the last
statement are taken away from the edit and asked instead; of the protected neighbours every fourth is set apart in the
same way; the divergence is measured on documents of the statistics' corpus.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unlearn.audit.cache import code
from unlearn.errors import PolicyError, UnlearnError
from unlearn.files import sha256_of_file
from unlearn.policy.settings_base import Settings
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.search.space import start, suggest
from unlearn.search.validation import split

if TYPE_CHECKING:
    import optuna
    from rich.table import Table

    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Requests
    from unlearn.patch import Patch
    from unlearn.store import Store

log = logging.getLogger("unlearn")

OWN = ("tune.py", "space.py", "validation.py")
"""Files on which a trial depends besides the edit and the audit."""
NAT = 1.0
"""What a nat per token of divergence costs beside a whole share of what must stay: 0.01 nats as much as one percent."""


@dataclass(frozen=True)
class Trial:
    """One point of the search."""

    number: int
    settings: Mapping[str, object]
    """What was changed in the method's settings; empty for the policy's own."""
    exposed: float
    """Mean over validation prompts of the share not refused, and of the chance not to begin the refusal, their mean."""
    cost: float
    """Share of kept replies lost, and the divergence."""
    parts: Mapping[str, float]
    best: bool = False
    """Whether no other trial is better in both."""

    @property
    def loss(self) -> float:
        """What the chosen trial has least of."""
        return self.exposed + self.cost


@dataclass(frozen=True)
class Tuned:
    """The outcome of a search."""

    trials: tuple[Trial, ...]
    chosen: Trial
    settings: Settings
    """The method's settings with the chosen changes."""

    def described(self) -> dict[str, object]:
        """As plain data for the manifest and tuning.json."""
        rows = [
            {
                "number": t.number, "settings": dict(t.settings), "exposed": t.exposed, "cost": t.cost,
                **t.parts, "pareto": t.best, "chosen": t.number == self.chosen.number,
            }
            for t in self.trials
        ]  # fmt: skip
        return {"trials": rows, "chosen": self.chosen.number, "changed": dict(self.chosen.settings)}


def tune(
    model: EditableModel,
    requests: Requests,
    trials: int,
    cache: Store | None,
    progress: Progress = NO_PROGRESS,
    earlier: Patch | None = None,
    onto: Mapping[str, str] | None = None,
) -> Tuned:
    """Search settings of the policy's method; the policy's own settings are tried first.

    Args:
        trials: how many in all, those of an earlier search of the same policy and model included, but not those that
            an interruption cut off.
        cache: where key statistics are kept, and the study, to be resumed; None keeps it in memory.
        earlier: a patch to build on, as the edit will.
        onto: what it is, with its ``sha256``: a search is resumed on the same one only.

    Raises:
        PolicyError: there is nothing to search or to validate on.
    """
    import optuna

    from unlearn.edit.choose import choose, options, settle
    from unlearn.edit.pipeline import edit
    from unlearn.edit.sequence import Sofar
    from unlearn.edit.statistics import Source

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    plan = choose(
        model, requests, Source.of(requests.policy, model, cache, progress), Sofar.after(earlier, model)
    )
    # What `auto` chooses is chosen once, and its settings are searched.
    own = next(one for one in options(requests.policy.method) if plan.name == one.name)
    settled = settle(model, requests.policy, own, requests.facts)
    begin = start(model, settled, plan.layers)
    seen, judge = split(model, requests, cache)
    before = judge.replies(model, progress)
    study = _study(model, requests, cache, onto)
    _give_up_interrupted(study)
    if not any(t.user_attrs["settings"] == {} for t in _carried_out(study)):
        study.enqueue_trial(begin, user_attrs={"settings": {}})
    with progress.step("Tuning", total=trials) as bar:
        bar.advance(min(len(_carried_out(study)), trials))
        while len(_carried_out(study)) < trials:
            trial = study.ask()
            changed = suggest(trial, model, settled)
            try:
                settings = _settings_of(trial, own, changed)
                patch = edit(model, seen.under(method=settings), cache=cache, earlier=earlier)
                parts = judge.measure(model, patch, before)
            except UnlearnError as problem:
                _give_up(study, trial, problem)
            else:
                _tell(study, trial, parts)
                log.info("trial %d: %s %s", trial.number, changed, parts)
            bar.advance(1)
    return _outcome(study, own)


def _settings_of(trial: optuna.Trial, own: Settings, changed: Mapping[str, object]) -> Settings:
    """The settings of a trial: the policy's own where it was put there to try them, else what the search suggests."""
    if "settings" in trial.user_attrs:
        return own
    trial.set_user_attr("settings", changed)
    return _changed(own, changed)


def _give_up(study: optuna.Study, trial: optuna.Trial, problem: UnlearnError) -> None:
    """Tell the study that a trial could not be carried out, and why."""
    from optuna.trial import TrialState

    log.warning("trial %d: %s", trial.number, problem)
    trial.set_user_attr("problem", str(problem))
    study.tell(trial, state=TrialState.FAIL)


def _tell(study: optuna.Study, trial: optuna.Trial, parts: Mapping[str, float]) -> None:
    """Tell the study what a trial was measured to be."""
    for name, value in parts.items():
        trial.set_user_attr(name, value)
    study.tell(trial, [exposed_of(parts), cost_of(parts)])


def _carried_out(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that came to their end: measured, or failed by their own settings, which would fail again."""
    from optuna.trial import TrialState

    return [t for t in study.trials if t.state == TrialState.COMPLETE or "problem" in t.user_attrs]


def _give_up_interrupted(study: optuna.Study) -> None:
    """Fail what an interrupted search left running or waiting, which nobody would go on with."""
    from optuna.trial import TrialState

    for _ in study.get_trials(states=[TrialState.WAITING]):
        study.ask()  # only a trial that runs can be failed
    for left in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(left.number, state=TrialState.FAIL)


def exposed_of(parts: Mapping[str, float]) -> float:
    """The first objective: replies that do not refuse, and chances not to begin the refusal."""
    return (parts["not_refused"] + parts["leaked"] + parts["other_beginning"]) / 3


def cost_of(parts: Mapping[str, float]) -> float:
    """The second objective: kept replies lost, and the divergence in nats."""
    return parts["lost"] + NAT * parts["kl"]


def _changed(own: Settings, changed: Mapping[str, object]) -> Settings:
    try:
        return type(own).model_validate({**own.model_dump(), **changed})
    except ValueError as problem:
        raise PolicyError(f"these settings do not go together: {problem}") from None


def _study(
    model: EditableModel, requests: Requests, cache: Store | None, onto: Mapping[str, str] | None = None
) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage

    from unlearn.edit.corpus import Corpus
    from unlearn.model.identity import of_tokenizer
    from unlearn.search.journal import Journal

    policy = requests.policy
    about = {
        "model": model.identity(),
        "dtype": str(model.dtype),
        "tokenizer": of_tokenizer(model.tokenizer),
        "corpus": Corpus.of(policy, model).fingerprint(),
        "policy": policy.model_dump(mode="json", exclude={"audit", "name"}),
        "onto": None if onto is None else onto["sha256"],
        "code": [code(), *(sha256_of_file(Path(__file__).with_name(f)) for f in OWN)],
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
    storage = None if cache is None else JournalStorage(Journal(cache, f"tuning/{key}"))
    study = optuna.create_study(
        study_name=key, storage=storage, load_if_exists=True, directions=["minimize", "minimize"]
    )
    # A sampler begins anew with every call: with one seed for all it would draw its first points again.
    seed = (policy.seed + len(study.trials)) % 2**32
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=8)
    return study


def _outcome(study: optuna.Study, own: Settings) -> Tuned:
    import optuna

    front = {t.number for t in study.best_trials}
    rows = []
    for t in study.trials:
        if t.state != optuna.trial.TrialState.COMPLETE:
            continue
        parts = {name: float(value) for name, value in t.user_attrs.items() if name != "settings"}
        settings = t.user_attrs["settings"]
        rows.append(Trial(t.number, settings, t.values[0], t.values[1], parts, t.number in front))
    if not rows:
        said = [t.user_attrs["problem"] for t in study.trials if "problem" in t.user_attrs]
        why = f"; of the last one: {said[-1]}" if said else "; the log says why"
        raise PolicyError(f"--tune: no trial could be made{why}")
    chosen = min(rows, key=lambda t: (t.loss, t.number))
    return Tuned(tuple(rows), chosen, _changed(own, chosen.settings) if chosen.settings else own)


def pareto(found: Tuned) -> Table:
    """The trials that no other is better than in both objectives, and the policy's own settings, for a terminal."""
    from rich.table import Table

    grid = Table(title=f"{len(found.trials)} trials on validation prompts", box=None, title_justify="left")
    for heading in ("trial", "exposed", "cost", "leaked", "not refused", "lost", "KL", "settings"):
        grid.add_column(heading, justify="left" if heading == "settings" else "right", overflow="fold")
    rows = sorted((t for t in found.trials if t.best or not t.settings), key=lambda t: t.exposed)
    for t in rows:
        mark = " (chosen)" if t.number == found.chosen.number else ""
        shares = [f"{100 * t.parts[name]:.1f} %" for name in ("leaked", "not_refused", "lost")]
        changed = ", ".join(f"{k}={v}" for k, v in t.settings.items()) or "as the policy has them"
        grid.add_row(
            f"{t.number}{mark}", f"{t.exposed:.4f}", f"{t.cost:.4f}", *shares, f"{t.parts['kl']:.4f}", changed,
            style="bold" if mark else "",
        )  # fmt: skip
    return grid
