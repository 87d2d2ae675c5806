"""From scores and texts of two model states to measurements: capability, toxicity and divergence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from unlearn.audit.drift import TextDrift
from unlearn.audit.intervals import Interval, bootstrap_mean, bootstrap_ratio, paired, paired_change, wilson
from unlearn.audit.measures import Limits
from unlearn.audit.observation import Observation, TaskScore, Toxicity
from unlearn.errors import AuditError
from unlearn.measurements import named
from unlearn.report import Measurement

KL, PERPLEXITY = "drift.kl", "drift.perplexity"


def capability(task: str, before: Observation, after: Observation, limits: Limits) -> Measurement:
    """The score of one lm-eval task before and after."""
    name = f"capability.{task}"
    limit = limits(name)
    definition = named("capability").definition.format(name=task)
    reason = before.failed.get(name) or after.failed.get(name)
    if reason is None and (task not in before.tasks or task not in after.tasks):
        reason = "the task was not run on both models"
    if reason is not None:
        return Measurement.missing(name, reason, limit, definition=definition)
    was, now = before.tasks[task], after.tasks[task]
    if was.items.keys() != now.items.keys() or was.metric != now.metric:
        raise AuditError(
            f"the task {task} was run on different items before and after the edit; measure both anew"
        )
    rest: dict[str, Any] = {
        "before": was.value,
        "n": len(now.items),
        "definition": f"{definition} Metric: {now.metric}.",
    }
    rest["ci95"], rest["before_ci95"] = _task_interval(now), _task_interval(was)
    if now.binary and was.binary:
        keys = sorted(now.items)
        rest["hits"], rest["before_hits"] = (int(sum(score.items.values())) for score in (now, was))
        rest["p_value"] = paired([was.items[k] == 1 for k in keys], [now.items[k] == 1 for k in keys])
    rest["change_ci95"] = _task_change(was, now)
    return Measurement.made(name, now.value, limit, **rest)


def _task_interval(score: TaskScore) -> tuple[float, float] | None:
    if score.binary and abs(sum(score.items.values()) / len(score.items) - score.value) < 1e-6:
        return wilson(int(sum(score.items.values())), len(score.items))
    if score.stderr is None:
        return None
    return score.value - 1.96 * score.stderr, score.value + 1.96 * score.stderr


def _task_change(was: TaskScore, now: TaskScore) -> Interval | None:
    """Interval of the change over the paired items; None where the score is not the mean of its items."""
    keys = sorted(now.items)
    if not keys or any(
        abs(sum(score.items.values()) / len(keys) - score.value) > 1e-6 for score in (was, now)
    ):
        return None
    if now.binary and was.binary:
        return paired_change([was.items[k] == 1 for k in keys], [now.items[k] == 1 for k in keys])
    return bootstrap_mean([now.items[k] - was.items[k] for k in keys])


SCORE_DECIMALS = 3
"""To so many decimals a mean toxicity is read: two wordings of one insult differ in the fourth."""


def toxicity(
    scorer: str, before: Observation, after: Observation, limits: Limits, seed: int
) -> list[Measurement]:
    """Mean score, and share of texts that score above one half."""
    name, above = f"toxicity.{scorer}", f"toxicity.{scorer}.share"
    reason = before.failed.get("toxicity") or after.failed.get("toxicity")
    was, now = before.toxicity, after.toxicity
    if reason is None and (was is None or now is None):
        reason = "the generations were not scored on both models"
    if reason is not None or was is None or now is None:
        return [
            Measurement.missing(
                name, str(reason), limits(name), unit="score", definition="Mean toxicity score."
            )
        ]
    if was.sha256 != now.sha256 or len(was.scores) != len(now.scores):
        raise AuditError("toxicity was scored differently before and after the edit; measure both anew")
    return [_mean_toxicity(name, was, now, limits(name), seed), _toxic_share(above, was, now, limits(above))]


def _mean_toxicity(name: str, was: Toxicity, now: Toxicity, limit: float | None, seed: int) -> Measurement:
    n = len(now.scores)
    return Measurement.made(
        name,
        round(sum(now.scores) / n, SCORE_DECIMALS),
        limit,
        before=round(sum(was.scores) / n, SCORE_DECIMALS),
        n=n,
        ci95=bootstrap_mean(now.scores, seed),
        before_ci95=bootstrap_mean(was.scores, seed),
        change_ci95=bootstrap_mean([a - b for b, a in zip(was.scores, now.scores, strict=True)], seed),
        unit="score",
        definition=named("toxicity").definition.format(name=now.label),
    )


def _toxic_share(name: str, was: Toxicity, now: Toxicity, limit: float | None) -> Measurement:
    n = len(now.scores)
    before, after = [s > 0.5 for s in was.scores], [s > 0.5 for s in now.scores]
    return Measurement.made(
        name,
        sum(after) / n,
        limit,
        before=sum(before) / n,
        n=n,
        hits=sum(after),
        before_hits=sum(before),
        ci95=wilson(sum(after), n),
        before_ci95=wilson(sum(before), n),
        p_value=paired(before, after),
        change_ci95=paired_change(before, after),
        definition=named("toxicity.share").definition.format(name=now.label),
    )


def divergence(texts: Sequence[TextDrift], limits: Limits, seed: int, about: str) -> dict[str, Measurement]:
    """drift.kl and drift.perplexity from the same texts; the intervals resample texts."""
    sizes = [float(t.tokens) for t in texts]
    tokens = int(sum(sizes))
    kl = [t.kl for t in texts]
    change = [t.nll_after - t.nll_before for t in texts]
    spread = bootstrap_ratio(change, sizes, seed)

    def ratio(nats: float) -> float:
        # A ruined model overflows; infinity then becomes a failed measurement.
        return math.exp(nats) if nats < 700 else math.inf

    ppl_ci = None if spread is None or max(spread) >= 700 else (ratio(spread[0]), ratio(spread[1]))
    note = f" Text: {about}."
    return {
        KL: Measurement.made(
            KL,
            sum(kl) / tokens,
            limits(KL),
            n=tokens,
            ci95=bootstrap_ratio(kl, sizes, seed),
            unit="nats/token",
            definition=named(KL).definition + note,
        ),
        PERPLEXITY: Measurement.made(
            PERPLEXITY,
            ratio(sum(change) / tokens),
            limits(PERPLEXITY),
            n=tokens,
            ci95=ppl_ci,
            unit="ratio",
            definition=named(PERPLEXITY).definition
            + f" Before: {ratio(sum(t.nll_before for t in texts) / tokens):.2f}."
            + note,
        ),
    }
