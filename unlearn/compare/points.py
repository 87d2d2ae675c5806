"""The points of a comparison: one method, one seed, one step; each is made once and kept under what it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from pydantic import ValidationError

from unlearn.audit.cache import depends, stamp
from unlearn.compare import document as comparison
from unlearn.compare.document import Failure, Point, finite
from unlearn.errors import UnlearnError
from unlearn.files import Json, sha256_of_file
from unlearn.measurements import GROWTH, HIDDEN, SHARES
from unlearn.policy import Policy
from unlearn.report import Measurement, counted

if TYPE_CHECKING:
    from unlearn.audit.observation import Attacked, Observation
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Fact, Requests
    from unlearn.patch import Patch
    from unlearn.progress import Progress
    from unlearn.store import Store

log = logging.getLogger("unlearn")

POINTS, PATCHES = "points", "patches"
EDITED = "the largest over the edited layers (of benign questions, where nothing is kept)"
"""At which layers drift.hidden looks in a comparison."""


@dataclass(frozen=True)
class Bench:
    """What all points share."""

    model: EditableModel
    requests: Requests
    """The policy's, all facts in the policy's order: what every audit asks."""
    before: Observation
    steps: int
    finished: Store
    """Where finished points are kept."""
    cache: Store | None
    """For key statistics."""
    progress: Progress

    @property
    def patches(self) -> Path:
        """The folder of their patches."""
        return self.finished.folder.parent / PATCHES

    @property
    def about(self) -> Mapping[str, Json]:
        """What every point depends on: model, requests, audit, code and versions."""
        requests = self.requests
        return {
            **depends(self.model, requests),
            # What only the edit looks at: which fact has which refusal, further forms, what is kept.
            "policy": requests.policy.model_dump(
                mode="json", exclude={"name", "method", "seed", "statistics"}
            ),
            "derived": sorted([*form, own] for form, own in requests.derived.items()),
        }


def split(facts: Sequence[Fact], steps: int) -> list[list[Fact]]:
    """Consecutive batches of sizes that differ by one at most, none of them empty."""
    steps = min(steps, len(facts))
    ends = [len(facts) * (i + 1) // steps for i in range(steps)]
    return [list(facts[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


def ordered(facts: Sequence[Fact], seed: int | None) -> list[Fact]:
    """The facts in the policy's order, or shuffled by a seed."""
    found = list(facts)
    if seed is not None:
        Random(seed).shuffle(found)
    return found


def points(
    bench: Bench, label: str, policy: Policy, seed: int | None, about: Mapping[str, Json]
) -> Iterator[Point | Failure]:
    """Take one method through all steps.

    Args:
        bench: what all methods share.
        label: the method's name in the table.
        policy: with the method's settings.
        seed: of the edit and of the order of the facts; None for the policy's own seed and order.
        about: ``bench.about``, which takes a while to compute.

    Yields:
        A point per step; a failure instead of the first one that cannot be made, and nothing after it.
    """
    facts = ordered(bench.requests.facts, seed)
    if seed is not None:
        policy = policy.model_copy(update={"seed": seed})
    batches = split(facts, bench.steps)
    done: list[Fact] = []
    patch: Path | None = None
    for step, batch in enumerate(batches, 1):
        done = [*done, *batch]
        key = _key(about, policy, seed, [[fact.id for fact in b] for b in batches[:step]])
        stem = f"{re.sub('[^A-Za-z0-9._=-]', '-', label)[:60]}.seed{policy.seed}.step{step}.{key[:16]}"
        file = bench.patches / f"{stem}.safetensors"
        point = _kept(bench.finished, stem, file)
        if point is None:
            say = f"{label}: {len(done)} of {len(facts)} facts" + (
                f", seed {seed}" if seed is not None else ""
            )
            try:
                with bench.progress.step(say):
                    log.info("%s", say)
                    point = _made(bench, label, policy, done, batch, step, patch, file)
            except Exception as problem:
                from unlearn.audit.quiet import sentence

                reason = str(problem) if isinstance(problem, UnlearnError) else sentence(problem)
                log.warning("%s: %s", say, reason)
                yield Failure(method=label, seed=policy.seed, step=step, edits=len(done), reason=reason)
                return
            _keep(bench.finished, stem, file, point)
        patch = file
        yield point.model_copy(update={"method": label})


def _key(
    about: Mapping[str, Json], policy: Policy, seed: int | None, batches: Sequence[Sequence[str]]
) -> str:
    parts = {
        "about": about,
        "model": policy.model,
        "method": policy.method.model_dump(mode="json"),
        "statistics": policy.statistics.model_dump(mode="json"),
        "corpus": stamp(policy.statistics.corpus),
        "seed": [policy.seed, seed],
        "batches": batches,
        "code": [sha256_of_file(Path(module)) for module in (__file__, comparison.__file__)],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _keep(finished: Store, stem: str, file: Path, point: Point) -> None:
    """Keep a point under the hash of its patch, on which the next step builds."""
    finished.keep(stem, f"{sha256_of_file(file)}\n{point.model_dump_json(indent=1)}".encode())


def _kept(finished: Store, stem: str, file: Path) -> Point | None:
    """A finished point; None if it, or its patch, is not there, or is not what it was."""
    content = finished.find(stem)
    if content is None or not file.is_file():
        return None
    digest, _, point = bytes(content).partition(b"\n")
    if sha256_of_file(file) != digest.decode():
        finished.warn(f"{file} has changed since it was made; it is made anew")
        return None
    try:
        return Point.model_validate_json(point)
    except ValidationError:  # a number that is none cannot be written as JSON
        return None


def _made(
    bench: Bench,
    label: str,
    policy: Policy,
    done: Sequence[Fact],
    batch: Sequence[Fact],
    step: int,
    earlier: Path | None,
    file: Path,
) -> Point:
    from unlearn.audit import cost, hidden, pipeline
    from unlearn.edit.baselines import BASELINES
    from unlearn.edit.pipeline import edit, plan_layers
    from unlearn.patch import Patch

    model, whole = bench.model, bench.requests
    # What is trained instead of written cannot build on an earlier update.
    anew = policy.method.name in BASELINES
    subjects = {fact.subject for fact in done}
    siblings = tuple(fact for fact in whole.siblings if fact.subject in subjects)
    settled = whole.under(method=policy.method, seed=policy.seed, statistics=policy.statistics)
    asked = replace(settled, facts=tuple(done if anew else batch), siblings=siblings)
    begin = time.monotonic()
    before = None if anew or earlier is None else Patch.load(earlier)
    patch = edit(model, asked, cache=bench.cache, progress=bench.progress, earlier=before)
    seconds = time.monotonic() - begin
    _save(patch, file)
    findings = pipeline.audit(model, patch, whole, bench.progress, bench.before)
    measured = _about(findings.measurements, bench.before, findings.after, whole, done, siblings)
    layers = tuple(patch.header.get("layers", ())) or plan_layers(model, policy)
    # A method that writes no layer still changes what the others' layers see.
    watched = layers or (2 * model.anatomy.layers // 3,)
    old = hidden.states(model, hidden.prompts(model, asked_so_far(whole, done, siblings)), watched)
    with model.patched(patch):
        new = hidden.states(model, hidden.prompts(model, asked_so_far(whole, done, siblings)), watched)
    shifts = [
        comparison.Shifted(layer=layer, group=group, prompts=s.prompts, mean=s.mean, each=s.each)
        for layer in old
        for group in old[layer]
        if (s := hidden.shift(old[layer][group], new[layer][group])) is not None
        and finite(s.mean) is not None
        and finite(s.each) is not None
    ]
    drawn = hidden.plane(watched[-1], old[watched[-1]], new[watched[-1]]) if old else None
    # A suite may make both; these are about the facts written so far.
    measured = [m for m in measured if m.name not in (GROWTH, HIDDEN)]
    audit = whole.policy.audit
    moved = hidden.shift_of_states(old, new, audit.limit, audit.seed)
    measured += [
        cost.growth(cost.change_of_patch(model, patch), audit.limit),
        # Of all edited layers, where an audit looks at two.
        moved.model_copy(update={"definition": hidden.defined(EDITED)}),
    ]
    measured = [m.under(audit.judge) for m in measured]
    judged = counted(measured)
    return Point(
        method=label,
        seed=policy.seed,
        step=step,
        edits=len(done),
        measurements=tuple(measured),
        judged=(sum(bool(m.passed) for m in judged), len(judged)),
        layers=layers,
        from_scratch=anew,
        hidden=tuple(shifts),
        plane=None if drawn is None else comparison.Plane(**asdict(drawn)),
        seconds=round(seconds, 2),
        patch=f"{PATCHES}/{file.name}",
    )


def asked_so_far(whole: Requests, done: Sequence[Fact], siblings: Sequence[Fact]) -> Requests:
    """The requests with the facts written so far, for reading hidden states."""
    return replace(whole, facts=tuple(done), siblings=tuple(siblings))


def _save(patch: Patch, file: Path) -> None:
    """Whole or not at all: an interrupted run must not leave half a patch to build on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".partial-{file.name}")
    try:
        patch.save(partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _about(
    measured: Sequence[Measurement],
    before: Observation,
    after: Observation,
    whole: Requests,
    done: Sequence[Fact],
    siblings: Sequence[Fact],
) -> list[Measurement]:
    """The measurements of an audit, those about facts and siblings anew for the facts written so far."""
    from unlearn.audit import measures, shares
    from unlearn.audit.attacks.table import ATTACKS

    told = {fact.id for fact in done} | {fact.id for fact in siblings}
    narrow = {row.group for row in SHARES} - shares.ABOUT_OTHERS

    def so_far(seen: Observation) -> Observation:
        groups = {
            name: tuple(o for o in group if o.fact in told) if name in narrow else group
            for name, group in seen.groups.items()
        }
        attacks = {name: attacked_so_far(attacked) for name, attacked in seen.attacks.items()}
        return seen.model_copy(update={"groups": groups, "attacks": attacks})

    def attacked_so_far(attacked: Attacked) -> Attacked:
        kept = tuple(o for o in attacked.outcomes if o.fact in told)
        # A note is about all facts that were attacked.
        note = attacked.note if len(kept) == len(attacked.outcomes) else ""
        return attacked.model_copy(update={"outcomes": kept, "note": note})

    was, now = so_far(before), so_far(after)
    asked = {row.name for row in SHARES if row.group in narrow}
    audit = whole.policy.audit

    def anew(measurement: Measurement) -> Measurement:
        name = measurement.name
        family, _, attack = name.partition(".")
        if name in asked:
            return measures.share(name, was, now, audit.limit, facts=done)
        if family == "attack" and attack in now.attacks:
            return measures.attack(ATTACKS[attack], was, now, None, audit, done)
        return measurement

    return [anew(measurement) for measurement in measured]
