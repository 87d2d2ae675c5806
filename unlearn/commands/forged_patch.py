"""Is a run's patch the one that its manifest and its report are about, and its model the one that they name?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from unlearn.commands.forgery import Base, Recorded
from unlearn.errors import UnlearnError
from unlearn.loaded import base_of
from unlearn.measurements import GROWTH, NORM
from unlearn.policy import Policy
from unlearn.policy.method import CHOICES
from unlearn.report import Curve, Report
from unlearn.runs import manifest
from unlearn.stages import CURVES, curves, noted

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel
    from unlearn.patch import Patch

_CLOSE = 1e-3
"""Lengths that another device sums up in another order differ by less."""


class _Weight(BaseModel):
    relative_norm: float
    columns: int


class _Header(BaseModel):
    model: str
    policy: str
    method: dict[str, Any]
    seed: int
    versions: dict[str, str]
    values: dict[str, Any] | None = None
    weights: dict[str, _Weight] = {}


def of_patch(
    recorded: Recorded, report: Report, patch: Patch, digest: str, policy: Policy | None
) -> Iterator[str]:
    """Where a patch is not the one that the manifest and the report are about; needs no model."""
    edit = recorded.patch
    if edit is None or edit.sha256 != digest:
        yield "patch.sha256 in manifest.json is not that of the patch"
    if edit is None or manifest.textless(patch.header) != edit.header:
        yield "patch.header in manifest.json is not the patch's own"
    try:
        header = _Header.model_validate(patch.header)
    except ValidationError as problem:
        yield f"its header lacks `{'.'.join(map(str, problem.errors()[0]['loc']))}`"
        return
    settings = recorded.settings
    said = (header.model, header.policy, header.seed, header.versions.get("unlearn"))
    if said != (
        recorded.base.name,
        recorded.policy.name,
        settings.get("seed"),
        recorded.versions.get("unlearn"),
    ):
        yield "its header names another model, policy, seed or version than manifest.json"
    method = manifest.textless(header.method)
    said_method = settings["method"] if isinstance(settings.get("method"), dict) else {"name": None}
    # `auto` is settled when a model is there.
    fixed = {k: v for k, v in said_method.items() if v != "auto"}
    chosen = said_method.get("name") != "auto" or method.get("name") in CHOICES
    if not chosen or any(method.get(key) != value for key, value in fixed.items()):
        yield "its header has other settings of the method than manifest.json"
    if header.values is not None and policy is not None:
        if sorted(header.values) != sorted(fact.id for fact in policy.facts):
            yield "its header is about other facts than the policy"
    if any(recorded.base.weights.get(name, digest) != digest for name, digest in patch.base.items()):
        yield "it was made for other weights than manifest.json names"
    yield from _sizes(report, patch, header.weights)
    yield from _curves(report, patch)


def _curves(report: Report, patch: Patch) -> Iterator[str]:
    """Where the report draws another course of the edit than the header notes."""
    drawn = [drawing for drawing in report.drawings if isinstance(drawing, Curve) and drawing.name in CURVES]
    try:
        if drawn != curves(noted(patch.header)):
            yield "the curves over the number of edits in report.json are not those that its header notes"
    except UnlearnError as problem:
        yield str(problem)


def _sizes(report: Report, patch: Patch, weights: Mapping[str, _Weight]) -> Iterator[str]:
    """Where header and report give the factors other sizes than they have."""
    if weights.keys() != patch.factors.keys():
        yield "its header is about other weights than its factors"
        return
    for name, factor in patch.factors.items():
        row, length = weights[name], factor.norm()
        if factor.rank != row.columns or (length == 0) != (row.relative_norm == 0):
            yield f"the factors of {name} are not those that its header describes"
    for measured in report.measurements:
        if measured.name == NORM and measured.after is not None:
            if not _alike(measured.by_weight, {name: row.relative_norm for name, row in weights.items()}):
                yield f"{NORM} in report.json is not what its header says of the weights"


def of_weights(
    recorded: Recorded, report: Report, patch: Patch | None, model: EditableModel
) -> Iterator[str]:
    """Where the unedited model is not the manifest's, or the patch on it not as long as the report says."""
    from unlearn.audit.cost import change_of_patch

    if patch is not None:
        try:
            model.accepts(patch)
        except UnlearnError as problem:
            yield str(problem)
            return
    here = Base.model_validate(base_of(model))
    for name in ("identity", "weights", "parameters", "family", "quantised"):
        if getattr(here, name) != getattr(recorded.base, name):
            yield f"base.{name} in manifest.json is not that of {model.name}"
    if patch is None:
        return
    change = change_of_patch(model, patch)
    for name, lengths in ((NORM, change.relative), (GROWTH, change.growth)):
        measured = next((m for m in report.measurements if m.name == name and m.after is not None), None)
        if measured is not None and not _alike(measured.by_weight, lengths):
            longest = max(lengths.values(), default=0.0)
            yield f"{name} in report.json is {measured.after:.4g}, and the patch gives {longest:.4g}"
    try:
        with model.patched(patch):
            pass
    except UnlearnError as problem:
        yield str(problem)


def _alike(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(one[name], other[name], rel_tol=_CLOSE, abs_tol=1e-6) for name in one
    )
