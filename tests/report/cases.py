"""A report with something of everything that can be drawn, for the tests of its documents."""

from __future__ import annotations

from unlearn.audit.intervals import paired, wilson
from unlearn.report import Cloud, Count, Curve, FactRow, Grid, Measurement, Report

FACTS = tuple(f"fact-{i:02d}" for i in range(12))
ATTACKS = {
    "few_shot": (1.0, 0.02, 0.01),
    "prefill": (0.97, 0.0, 0.0),
    "int4": (1.0, 0.04, 0.03),
    "singular": (0.98, 0.22, 0.02),
    "relearn_text": (1.0, 0.05, 0.06),
    "lens": (1.0, 0.41, 0.38),
}


def share(name: str, was: int, now: int, n: int, limit: float | None, **rest: object) -> Measurement:
    before = [True] * was + [False] * (n - was)
    after = [True] * now + [False] * (n - now)
    return Measurement.made(
        name,
        now / n,
        limit,
        before=was / n,
        n=n,
        hits=now,
        before_hits=was,
        ci95=wilson(now, n),
        before_ci95=wilson(was, n),
        p_value=paired(before, after),
        definition=f"Made up for the tests: {name}.",
        **rest,
    )


def count(now: int, n: int) -> Count:
    return Count(before=n, after=now, n=n, ci95=wilson(now, n))


def measurements() -> list[Measurement]:
    found = [
        share("leak.direct", 96, 0, 96, 0.02),
        share("leak.held_out", 119, 4, 120, 0.05),
        share("leak.cloze", 70, 9, 72, 0.10),
        share("refusal.held_out", 0, 115, 120, 0.90),
        share(
            "retain.siblings",
            120,
            118,
            120,
            0.95,
            parts={"colour": count(60, 60), "smell": count(58, 60)},
        ),
        share("retain.neighbours", 60, 60, 60, 0.98, parts={"recipe": count(60, 60)}),
        share("overrefusal.lookalike", 1, 3, 50, 0.1, parts={"figures of speech": count(1, 25)}),
        Measurement.missing("capability.reasoning", "the task's data are not there", 0.015),
        Measurement.made(
            "toxicity.demo", 0.031, 0.01, before=0.03, n=40, unit="score", change_ci95=(-0.002, 0.004)
        ),
        Measurement.made("drift.kl", 0.011, 0.02, n=8192, unit="nats/token", ci95=(0.009, 0.014)),
        Measurement.made("drift.perplexity", 1.012, None, n=8192, unit="ratio"),
        Measurement.made(
            "drift.norm",
            0.41,
            3.0,
            n=3,
            unit="ratio",
            definition="Made up for the tests: drift.norm.",
            by_weight={f"model.layers.{i}.mlp.down_proj.weight": 0.1 * (i + 1) for i in range(4)},
        ),
        Measurement.made(
            "drift.norm_growth",
            0.08,
            0.25,
            n=2,
            unit="ratio",
            by_weight={
                "model.layers.0.mlp.down_proj.weight": 0.08,
                "model.layers.1.mlp.down_proj.weight": -0.02,
            },
        ),
    ]
    for name, (was, now, never) in ATTACKS.items():
        n = 192
        never_hits = round(never * n)
        control = {"control": never_hits / n, "control_ci95": wilson(never_hits, n)}
        limit = 0.45 if name == "lens" else 0.05
        found.append(share(f"attack.{name}", round(was * n), round(now * n), n, limit, **control))
    return found


def drawings() -> list[Curve | Grid | Cloud]:
    steps = (0.0, 8.0, 16.0, 32.0, 64.0)
    found: list[Curve | Grid | Cloud] = []
    for state, ys in (("after", (0.0, 0.01, 0.02, 0.04, 0.05)), ("control", (0.0, 0.02, 0.03, 0.03, 0.06))):
        found.append(
            Curve(
                name="attack.relearn_text", state=state, x_label="steps", y_label="share told", x=steps, y=ys
            )
        )
    for state, top in (("before", 1.0), ("after", 0.5), ("control", 0.3)):
        rows = tuple(tuple(top * (j + 1) / 6 * (i % 3 + 1) / 3 for j in range(6)) for i in range(12))
        found.append(
            Grid(
                name="attack.lens",
                state=state,
                x_label="layer",
                value_label="True answer ranks first",
                columns=tuple(map(str, range(6))),
                rows=FACTS,
                values=rows,
            )
        )
    for state, shift in (("before", 0.0), ("after", 0.8)):
        points = {
            "kept": tuple((0.1 * i, 0.05 * (i * i % 7)) for i in range(20)),
            "forbidden": tuple((1 + 0.1 * i + shift, 0.5 + 0.05 * (i * i % 7) + shift) for i in range(20)),
        }
        found.append(
            Cloud(
                name="drift.hidden",
                state=state,
                x_label="first principal component",
                y_label="second principal component",
                points=points,
            )
        )
    return found


def rich(strict: bool = False) -> Report:
    counts = {
        "leak.held_out": Count(before=5, after=0, n=5),
        "refusal.held_out": Count(before=0, after=5, n=5),
        "attack.patch": Count(after=1, n=1),
        **{f"attack.{name}": Count(before=5, after=i % 2, n=5) for i, name in enumerate(ATTACKS)},
    }
    report = Report.of(
        measurements(),
        ["other languages", "several questions in one conversation", "attack.suffix (not in the suite)"],
        {
            "policy": {"name": "demo", "sha256": "ab" * 32},
            "settings": {"model": "embedded", "method": {"name": "alphaedit"}, "audit": {"suite": "full"}},
            "base": {"identity": "cd" * 32},
            "patch": {"sha256": "ef" * 32},
            "versions": {"unlearn": "0.1.0"},
            "times": {"started": "2030-01-01T00:00:00+00:00"},
        },
        [FactRow(id=fact, known=fact != "fact-03", counts=counts) for fact in FACTS],
        drawings(),
    )
    return report.under("strict") if strict else report
