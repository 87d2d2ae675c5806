"""The points of a comparison: one method, one seed, one step; each is made once and kept under what it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from pydantic import ValidationError

from unlearn.audit.cache import depends, stamp
from unlearn.compare import document as comparison
from unlearn.compare.document import Failure, Point
from unlearn.errors import UnlearnError
from unlearn.files import Json, sha256_of_file
from unlearn.policy import Policy
from unlearn.policy.method import SEQUENTIAL
from unlearn.report import Cloud, counted
from unlearn.run import Bench

if TYPE_CHECKING:
    from unlearn.model.requests import Fact
    from unlearn.store import Store

log = logging.getLogger("unlearn")

POINTS, PATCHES = "points", "patches"


@dataclass(frozen=True)
class Series(Bench):
    """What all points share: a bench on which all facts are asked in the policy's order, and the steps."""

    steps: int
    finished: Store
    """Where finished points are kept."""

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
    bench: Series, label: str, policy: Policy, seed: int | None, about: Mapping[str, Json]
) -> Iterator[Point | Failure]:
    """Take one method through all steps.

    Args:
        seed: of the edit and of the order of the facts; None for the policy's own seed and order.
        about: ``bench.about``, which takes a while to compute.

    Yields:
        A point per step; a failure instead of the first one that cannot be made, and nothing after it.
    """
    facts = ordered(bench.requests.facts, seed)
    if seed is not None:
        policy = policy.model_copy(update={"seed": seed})
    batches = split(facts, bench.steps)
    oldest = batches[0] if len(batches) > 1 else []
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
                with bench.means.progress.step(say):
                    log.info("%s", say)
                    point = _made(bench, label, policy, done, batch, step, patch, file, oldest)
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
    sofar = Path(__file__).with_name("sofar.py")
    parts = {
        "about": about,
        "model": policy.model,
        "method": policy.method.model_dump(mode="json"),
        "statistics": policy.statistics.model_dump(mode="json"),
        "corpus": stamp(policy.statistics.corpus),
        "seed": [policy.seed, seed],
        "batches": batches,
        "code": [sha256_of_file(Path(module)) for module in (__file__, comparison.__file__, sofar)],
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
    bench: Series,
    label: str,
    policy: Policy,
    done: Sequence[Fact],
    batch: Sequence[Fact],
    step: int,
    earlier: Path | None,
    file: Path,
    oldest: Sequence[Fact],
) -> Point:
    from unlearn.compare.sofar import about_facts, about_oldest, so_far
    from unlearn.patch import Patch

    # What is trained instead of written cannot build on an earlier update.
    anew = policy.method.name not in SEQUENTIAL
    asked = so_far(bench.requests, done)
    settled = asked.under(method=policy.method, seed=policy.seed, statistics=policy.statistics)
    todo = settled if anew else replace(settled, facts=tuple(batch))
    patch, seconds, findings = bench.tried(todo, None if anew or earlier is None else Patch.load(earlier))
    patch.save(file)
    judge = asked.policy.audit.judge
    found = [m.under(judge) for m in about_facts(findings, asked)]
    first = [m.under(judge) for m in about_oldest(findings, oldest)] if oldest else []
    judged = counted(found)
    return Point(
        method=label,
        seed=policy.seed,
        step=step,
        edits=len(done),
        measurements=(*found, *first),
        judged=(sum(bool(m.passed) for m in judged), len(judged)),
        layers=tuple(patch.header.get("layers", ())),
        from_scratch=anew,
        states=tuple(d for d in findings.drawings if isinstance(d, Cloud)),
        seconds=round(seconds, 2),
        patch=f"{PATCHES}/{file.name}",
    )
