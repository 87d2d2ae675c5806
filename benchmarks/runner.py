"""Edits in batches that add up, measured at each mark over every fact edited so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks import metrics
from benchmarks.options import complaints
from benchmarks.records import Record, kept_for, pick
from benchmarks.rows import Row, Rows, key_of
from unlearn.audit import drift
from unlearn.audit.cost import change_of_patch
from unlearn.edit.choose import settings_in_force
from unlearn.edit.pipeline import edit
from unlearn.errors import PolicyError
from unlearn.model.editable import EditableModel
from unlearn.model.requests import Fact, Requests
from unlearn.patch import Patch
from unlearn.policy import FactSpec, Keep, Policy, RelationSpec, StatisticsSpec
from unlearn.policy.method import SEQUENTIAL
from unlearn.progress import NO_PROGRESS, Progress
from unlearn.store import Store, cache_folder


def requests_for(
    model: str,
    records: Sequence[Record],
    kept: Sequence[Record],
    method: Mapping[str, Any],
    statistics: StatisticsSpec,
    seed: int,
    phrasings: bool = False,
) -> Requests:
    """Build the requests of one edit.

    Args:
        model: folder or hub id, as it goes into the policy.
        records: to be rewritten; the target of each fact is its new object.
        kept: other subjects whose answers must stay (``records.kept_for``); their answers are not used.
        method: settings, with `name`.
        phrasings: also show the edit the record's other templates, which no metric uses. The standard benchmarks give
            the edit prompt alone.

    Raises:
        PolicyError: the method or one of its settings does not exist, or does not fit.
    """
    relations: dict[tuple[str, ...], str] = {}

    def relation(record: Record, more: bool = False) -> str:
        templates = dict.fromkeys([record.template, *(record.phrasings if more else ())])
        prompts = tuple(t.replace("{}", "{subject}") for t in templates)
        return relations.setdefault(prompts, f"t{len(relations)}")

    specs = tuple(
        FactSpec(id=f"r{r.id}", subject=r.subject, relation=relation(r, phrasings), refusal=r.new)
        for r in records
    )
    lent = tuple(Fact(f"k{r.id}", r.subject, relation(r, phrasings), answer="") for r in kept)
    try:
        policy = Policy.model_validate(
            {
                "version": 1,
                "name": "benchmark",
                "model": model,
                "method": dict(method),
                "relations": {name: RelationSpec(prompts=prompts) for prompts, name in relations.items()},
                "facts": specs,
                "keep": Keep(siblings=(), neighbours=()),
                "statistics": statistics,
                "seed": seed,
            }
        )
    except ValidationError as error:
        raise PolicyError(complaints(error)) from None
    facts = tuple(
        Fact(spec.id, r.subject, spec.relation, answer=r.true) for spec, r in zip(specs, records, strict=True)
    )
    return Requests(policy, facts, (), lent, ())


OLDEST = "oldest"
"""Efficacy on the facts of the first mark alone: what later edits leave of them."""
WHOLE = ("auto", "rome")
"""Methods that have no choice of a batch."""
Judge = Callable[[EditableModel, Sequence[Record]], list[metrics.Judged]]


@dataclass(frozen=True)
class Plan:
    """What all runs of a measurement share."""

    benchmark: str
    judge: Judge
    records: tuple[Record, ...]
    marks: tuple[int, ...]
    batch: int
    kept: int
    phrasings: bool
    statistics: StatisticsSpec
    fluency: int
    text: tuple[str, ...]
    """Held-out text for the divergence; empty if there is none."""
    kl_tokens: int


def run(
    model: EditableModel,
    plan: Plan,
    method: Mapping[str, Any],
    seed: int,
    rows: Rows,
    label: str | None = None,
    progress: Progress = NO_PROGRESS,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Edit and measure one method with one seed; rows that are there already are not measured again.

    Args:
        method: settings with `name`.
        seed: picks the facts, and seeds the edit.
    """
    chosen = pick(plan.records, seed, plan.marks[-1])
    kept = kept_for(plan.records, chosen, plan.kept) if plan.kept else []
    about = _about(model, plan, method, seed, chosen, kept, label)
    open_marks = [mark for mark in plan.marks if rows.find(about["run"], mark) is None]
    if not open_marks:
        return
    name = str(method["name"])
    before = plan.judge(model, chosen[: open_marks[-1]])
    fluent = {mark: metrics.fluency(model, chosen[:mark], plan.fluency, seed) for mark in open_marks}
    patch: Patch | None = None
    done, seconds = 0, 0.0
    for mark in plan.marks:
        if mark > open_marks[-1]:
            break
        # A method that cannot build on an earlier patch writes all facts of a mark at once.
        joint = name not in SEQUENTIAL
        todo = chosen[0 if joint else done : mark]
        settings = {**method} if joint or name in WHOLE else {"batch": plan.batch, **method}
        requests = requests_for(model.name, todo, kept, settings, plan.statistics, seed, plan.phrasings)
        start = time.perf_counter()
        patch = edit(model, requests, Store.at(cache_folder()), progress, earlier=None if joint else patch)
        seconds = time.perf_counter() - start + (0.0 if joint else seconds)
        done = mark
        if mark not in open_marks:
            continue
        row = {
            "method": name,
            "seed": seed,
            "edits": mark,
            **_measured(model, plan, patch, chosen[:mark], seed),
            "seconds": round(seconds, 2),
            "before": _figures(metrics.summary(before[:mark]), fluent[mark]),
            "joint": joint,
            **about,
        }
        rows.add(row)
        say(_line(row))


def _measured(model: EditableModel, plan: Plan, patch: Patch, facts: Sequence[Record], seed: int) -> Row:
    """What a patch does about some facts, and what it costs."""
    with model.patched(patch):
        judged = plan.judge(model, facts)
        fluent = metrics.fluency(model, facts, plan.fluency, seed)
    found, oldest = metrics.summary(judged), metrics.summary(judged[: plan.marks[0]])
    figures = _figures(found, fluent)
    figures["ci95"] = {**figures["ci95"], OLDEST: oldest["ci95"]["efficacy"]}
    return {
        **figures,
        OLDEST: _rounded(oldest["efficacy"]),
        **growth(model, patch),
        "kl": divergence(model, patch, plan.text, plan.kl_tokens),
    }


def _about(
    model: EditableModel,
    plan: Plan,
    method: Mapping[str, Any],
    seed: int,
    chosen: Sequence[Record],
    kept: Sequence[Record],
    label: str | None,
) -> Row:
    """What the numbers depend on, and its hash."""
    asked = requests_for(model.name, chosen, (), method, plan.statistics, seed, plan.phrasings)
    depends = {
        "benchmark": plan.benchmark,
        "model": Path(model.name).name if Path(model.name).exists() else model.name,
        "prompts": "edit prompt and other phrasings" if plan.phrasings else "edit prompt alone",
        "batch": plan.batch,
        "kept": len(kept),
        "corpus": Path(plan.statistics.corpus).name,
        "corpus_tokens": plan.statistics.tokens,
        "settings": settings_in_force(model, asked.policy),  # no `auto`: what it stands for may change
    }
    identity = model.weights_sha256()
    inside = {
        **depends,
        "weights": identity,
        "seed": seed,
        "kl_tokens": plan.kl_tokens if plan.text else 0,
        "facts": [r.id for r in chosen],
        "kept_facts": [r.id for r in kept],
    }
    return {"label": label, **depends, "run": key_of(inside)}


def _figures(found: Mapping[str, Any], fluent: float | None) -> Row:
    order = ("score", *metrics.PARTS)
    rest = [name for name in found if name not in order and name != "ci95"]
    out: Row = {name: _rounded(found.get(name)) for name in (*order, *rest)}
    return {**out, "fluency": _rounded(fluent), "ci95": found["ci95"]}


def _rounded(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 3)


def growth(model: EditableModel, patch: Patch) -> Row:
    """Growth of the edited weights, the worst layer: ||W + D|| / ||W|| - 1, and the update's own ||D|| / ||W||."""
    change = change_of_patch(model, patch)
    grown, size = (max((0.0, *values.values())) for values in (change.growth, change.relative))
    return {"norm_growth": round(grown, 4), "update_norm": round(size, 4)}


def divergence(model: EditableModel, patch: Patch, text: Sequence[str], tokens: int) -> float | None:
    """Mean KL(before || after) per token of held-out text in nats; None without a text."""
    pieces = drift.rows_of(model, text, tokens) if text else []
    if not pieces:
        return None
    found = drift.between(model, patch, pieces)
    return round(sum(t.kl for t in found) / sum(t.tokens for t in found), 5)


def _line(row: Row) -> str:
    kl = "-" if row["kl"] is None else f"{row['kl']:.4f}"
    shown = " ".join(f"{name} {row[name]:.1f}" for name in ("score", *metrics.PARTS) if row[name] is not None)
    name = row["label"] or row["method"]
    return f"{name} seed {row['seed']} edits {row['edits']}: {shown} kl {kl} seconds {row['seconds']:.0f}"
