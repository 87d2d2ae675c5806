"""Forgeries of a run whose hashes all fit: what is changed, and the sentence of `verify` that names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from tests.commands.forging import Forger
from unlearn.algebra.low_rank import LowRank

LEAK = "leak.cloze"
"""Fails its limit in the run."""
Forgery = Callable[[Forger], Any]


def every(forger: Forger, **changes: Any) -> None:
    for row in forger.report["measurements"]:
        row |= {key: value for key, value in changes.items() if row[key] is not None}


def unknown(forger: Forger) -> None:
    for fact in forger.report["facts"]:
        fact["known"] = False
    forger.manifest["facts"]["known"] = 0
    at = next(i for i, item in enumerate(forger.report["not_tested"]) if "(" not in item)
    forger.report["not_tested"].insert(at, "2 of 2 facts, which the unedited model does not know")


def fact_gone(forger: Forger) -> None:
    forger.report["facts"].pop()
    forger.manifest["facts"] = {"total": 1, "known": 1}


def looser(forger: Forger) -> None:
    forger.manifest["settings"]["audit"]["limits"][LEAK] = 0.5
    forger.row(LEAK)["limit"] = 0.5


def shorter(forger: Forger, also_header: bool) -> None:
    for name in ("drift.norm", "drift.norm_growth"):
        row = forger.row(name)
        row["by_weight"] = {key: value / 10 for key, value in row["by_weight"].items()}
        row["after"] /= 10
    if also_header and forger.patch is not None:
        weights = {
            name: {**row, "relative_norm": row["relative_norm"] / 10}
            for name, row in forger.patch.header["weights"].items()
        }
        forger.patch = replace(forger.patch, header={**forger.patch.header, "weights": weights})


def header(forger: Forger, **changes: Any) -> None:
    assert forger.patch is not None
    forger.patch = replace(forger.patch, header={**forger.patch.header, **changes})


def other_factors(forger: Forger) -> None:
    assert forger.patch is not None
    torch.manual_seed(0)
    factors = {n: LowRank(torch.randn_like(f.left), f.right) for n, f in forger.patch.factors.items()}
    forger.patch = replace(forger.patch, factors=factors)


def control(forger: Forger, high: float) -> None:
    row = forger.row("leak.choice")
    row |= {"control_ci95": (row["control_ci95"][0], high), "limit": high}


def other_row(forger: Forger) -> None:
    forger.report["measurements"].append(dict(forger.row("leak.direct")))


def paired_again(forger: Forger) -> None:
    forger.row("capability.unlearn_kept_facts")["change_ci95"] = (-0.01, 0.01)


NUMBERS: dict[str, tuple[Forgery, str]] = {
    "a limit is dropped": (lambda f: f.row(LEAK).update(limit=None), "its limit is none, and the policy's 0.1"),
    "a limit is loosened": (lambda f: f.row(LEAK).update(limit=0.5), f"{LEAK}: its limit is 0.5"),
    "a rule is flipped": (lambda f: f.row(LEAK).update(rule="at least"), "the rule of its limit is 'at most'"),
    "a unit is changed": (lambda f: f.row("drift.kl").update(unit="ratio"), "it is counted in 'nats/token'"),
    "a share is lowered": (lambda f: f.row(LEAK).update(after=0.0), "0 after the edit is not 1 of 6"),
    "a share and its hits": (lambda f: f.row(LEAK).update(after=0.0, hits=0), "after the edit is not that of 0 of 6"),
    "a share, its hits and interval": (lambda f: f.count(LEAK, 0), "its facts' rows add up to 6 before and 1 after"),
    "a share of more items": (lambda f: f.count(LEAK, 1, 60), "no pairing of 6 and 1 of 60|facts' rows"),
    "hits are left out": (lambda f: f.row(LEAK).update(hits=None, after=0.0), "a share without the counts behind it"),
    "a share before the edit": (lambda f: f.row("refusal.direct").update(before=0.5), "0.5 before the edit is not 0"),
    "what is certain before": (
        lambda f: f.row("retain.siblings").update(before=0.9, before_hits=9),
        "before the edit it is 1 by the choice of its prompts",
    ),
    "a p-value": (lambda f: f.row(LEAK).update(p_value=0.9), "has the p-value 0.9"),
    "an interval of a change": (paired_again, "no pairing of 8 and 8 of 8 items has this interval"),
    "a part": (lambda f: f.row(LEAK)["parts"]["recipe"].update(after=0), "its parts do not add up"),
    "a row of a fact": (
        lambda f: [fact["counts"][LEAK].update(after=0) for fact in f.report["facts"]],
        "its facts' rows add up to 6 before and 0 after",
    ),
    "a fact is gone": (fact_gone, r"its facts are not the policy's \(1 for 2; kosdine-recipe is gone\)"),
    "facts are called unknown": (unknown, "glipvex-recipe is called unknown, and the unedited model answers each of"),
    "facts are unknown in one place": (
        lambda f: f.report["facts"][0].update(known=False),
        "the facts in manifest.json are not those of report.json",
    ),
    "a measurement is gone": (
        lambda f: f.report["measurements"].remove(f.row(LEAK)),
        f"{LEAK} is not there: the suite suite makes it",
    ),
    "an attack is gone": (
        lambda f: f.report["measurements"].remove(f.row("attack.prefill")),
        "attack.prefill is not there",
    ),
    "what is asked twice is gone": (
        lambda f: f.report["measurements"].remove(f.row("audit.agreement")),
        "audit.agreement is not there",
    ),
    "a limited task is gone": (
        lambda f: f.report["measurements"].remove(f.row("capability.unlearn_kept_facts")),
        "capability.unlearn_kept_facts is not there: the policy names the task",
    ),
    "a measurement is there twice": (other_row, "the measurement leak.direct is there 2 times"),
    "a measurement of no kind": (lambda f: f.row(LEAK).update(name="leaks.cloze"), "nothing that is measured is"),
    "a definition": (lambda f: f.row(LEAK).update(definition="Fine."), "its definition is another one"),
    "judged otherwise": (lambda f: every(f, judged="strict"), "by 'strict', and the policy says 'point'"),
    "nothing was left out": (lambda f: f.report.update(not_tested=[]), "what it lists as not tested is not"),
    "the control is gone": (lambda f: every(f, control=None, control_ci95=None), "leak.direct: the control is gone"),
    "chance is raised": (lambda f: control(f, 0.99), "the interval of the control is not that of a share"),
    "text drifts less": (lambda f: f.row("drift.kl").update(after=1e-9), "lies outside its interval"),
    "states drift less": (lambda f: f.row("drift.hidden").update(after=1e-9), "its definition does not name 0.0000"),
    "the worst weight": (lambda f: f.row("drift.norm").update(after=0.1), "0.1 is not the worst of its weights"),
    "a weight is left out": (
        lambda f: f.row("drift.norm")["by_weight"].pop("model.layers.4.mlp.down_proj.weight"),
        "drift.norm and drift.norm_growth are about different weights",
    ),
}  # fmt: skip
"""Numbers: what is forged, and the sentence that names it; no model is needed for any."""

RECORDS: dict[str, tuple[Forgery, str]] = {
    "the suite is renamed": (
        lambda f: f.manifest["settings"]["audit"].update(suite="full"),
        "settings.audit.suite in manifest.json is not the policy's",
    ),
    "limits are loosened in both": (looser, "settings.audit.limits in manifest.json is not the policy's"),
    "the effective policy": (
        lambda f: f.manifest["policy"].update(effective_sha256="00" * 32),
        "policy.effective_sha256 in manifest.json is not that",
    ),
    "the policy's name": (
        lambda f: f.manifest["policy"].update(name="other"),
        "gives the policy another name",
    ),
    "the method's settings": (
        lambda f: f.manifest["settings"]["method"].update(steps=99),
        "settings.method.steps in manifest.json.*other settings of the method",
    ),
    "the seed": (lambda f: f.manifest["settings"].update(seed=5), "its header names another .* seed"),
    "the command line": (
        lambda f: f.manifest.update(argv=["unlearn"]),
        "it is no command line of apply or audit",
    ),
    "a search that nobody asked for": (
        lambda f: f.manifest.update(tuning={"trials": 3}),
        "has a search that its command line did not ask for",
    ),
    "a method of no kind": (
        lambda f: f.manifest["settings"].update(method="memit"),
        "other settings of the method",
    ),
    "weights of another model": (
        lambda f: f.manifest["base"]["weights"].update({"model.layers.2.mlp.down_proj.weight": "00" * 32}),
        "it was made for other weights than manifest.json names",
    ),
    "a commit of no kind": (
        lambda f: f.manifest["git"].update(commit=-1),
        "`git.commit` is missing or not what a run writes",
    ),
    "a manifest without its model": (
        lambda f: f.manifest["base"].pop("identity"),
        "`base.identity` is missing",
    ),
    "a patch of nothing": (
        lambda f: setattr(f, "patch", f.scaled(0.0)),
        "are not those that its header describes",
    ),
    "a patch of another seed": (lambda f: header(f, seed=7), "its header names another model, policy, seed"),
    "a patch of other facts": (
        lambda f: header(f, values={"first": {}}),
        "about other facts than the policy",
    ),
    "a patch without its sizes": (lambda f: header(f, weights={}), "its header is about other weights"),
    "a patch with another course": (
        lambda f: header(f, stages=[{"facts": n, "norm_growth": 0.1, "hidden_drift": 0.1} for n in (0, 2)]),
        "the curves over the number of edits in report.json are not those that its header notes",
    ),
    "a patch with a course of no kind": (
        lambda f: header(f, stages=[1]),
        "the patch.s header is not one .*stages.0",
    ),
    "the patch is gone": (lambda f: setattr(f, "patch", None), "names neither a patch nor a candidate"),
    "an update is called shorter": (
        lambda f: shorter(f, also_header=False),
        "drift.norm in report.json is not what its header says",
    ),
}
"""What the numbers are about: the manifest and the patch; no model is needed for any."""

ON_THE_MODEL: dict[str, tuple[Forgery, str]] = {
    "an update is called shorter everywhere": (
        lambda f: shorter(f, also_header=True),
        r"drift.norm in report.json is 0.17\d+, and the patch gives 1.7",
    ),
    "a weaker patch": (lambda f: setattr(f, "patch", f.scaled(0.1)), "drift.norm in report.json is 1.7"),
    "another patch": (other_factors, "drift.norm in report.json is 1.7"),
    "another model": (
        lambda f: f.manifest["base"].update(identity="00" * 32),
        "base.identity in manifest.json is not that of embedded",
    ),
}
"""What only shows on the model."""
