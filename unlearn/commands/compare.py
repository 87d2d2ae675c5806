"""`unlearn compare`: the same requests through several methods."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unlearn.audit.known import known_audit
from unlearn.commands.common import (
    cache_for,
    command_line,
    doubt,
    load_model,
    settle,
)
from unlearn.commands.options import Place, as_json, model_options, overrides, quiet
from unlearn.commands.outcome import written
from unlearn.commands.said import say
from unlearn.compare.document import Comparison, Failure, Point
from unlearn.compare.points import PATCHES, POINTS, Bench, points
from unlearn.compare.table import markdown, print_table
from unlearn.errors import PolicyError, UnlearnError
from unlearn.order import Placement
from unlearn.policy import Policy
from unlearn.policy.checks import suggestion
from unlearn.policy.file import load_policy
from unlearn.policy.settings import METHOD_NAMES
from unlearn.progress import Progress, progress_for
from unlearn.runs import manifest
from unlearn.runs.folder import check_sources, kept_folder, outside_runs
from unlearn.runs.log import log_to
from unlearn.runs.sources import read_by
from unlearn.store import Store

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel

log = logging.getLogger("unlearn")

JSON, PAGE, CURVES, STATES = "compare.json", "compare.md", "curves", "states"


@dataclass(frozen=True)
class Entry:
    """One of --methods: a name, and settings of its own."""

    label: str
    overrides: dict[str, str]


@click.command(short_help="Run several methods on the same requests: a table and curves.")
@click.argument("policy", type=Place())
@click.option(
    "--methods",
    required=True,
    metavar="A,B,...",
    help="Names of methods, each with settings of its own if need be: alphaedit,memit,alphaedit:kept=0:ridge=1.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=1, show_default=True,
    help="Write the facts in so many batches, one after the other, and measure after each.",
)  # fmt: skip
@click.option(
    "--seeds",
    metavar="N,N,...",
    help="Repeat everything with these seeds, which also shuffle the facts [default: the policy's seed and order].",
)
@click.option(
    "--out",
    type=Place(),
    help="Where to write, and to go on from [default: runs/NAME-compare].",
)
@click.option("--no-cache", is_flag=True, help="Neither read nor write cached statistics and measurements.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one key of the policy for all methods.",
)
@click.option("--model", help="Override `model`: a hub id, a local folder, or embedded.")
@model_options
@as_json
@quiet
def compare(
    policy: Path,
    methods: str,
    steps: int,
    seeds: str | None,
    out: Path | None,
    no_cache: bool,
    settings: tuple[str, ...],
    model: str | None,
    placement: Placement,
    as_json: bool,
    quiet: bool,
) -> int:
    """Take the facts of POLICY through several methods, and compare what each achieves and costs.

    The unedited model is measured once. Every method is then applied and measured, after each step on the facts written
    so far; methods that are trained instead of written (lora, rmu, ...) are made anew at every step. A method that
    fails is a row with its reason.

    Writes a folder with compare.json, compare.md, the charts (PNG and SVG), and every patch. Finished points are kept
    there and not made again as long as nothing that they depend on has changed: after an interruption the same command
    goes on, and methods may be added later. The exit code is 1 only if every method failed.

    \b
    Examples:
        unlearn compare policies/demo.yaml --methods alphaedit,rome,none
        unlearn compare policies/demo.yaml --methods alphaedit,memit,lora --steps 4 --out runs/curves
        unlearn compare policies/demo.yaml --methods alphaedit,alphaedit:kept=0 --set audit.suite=quick
    """
    entries = _entries(methods)
    numbers = _seeds(seeds)
    policies: dict[str, Policy | str] = {}
    for entry in entries:
        try:
            policies[entry.label] = load_policy(policy, _merged(entry, model, settings))
        except PolicyError as problem:
            policies[entry.label] = _first(problem)
    right = [p for p in policies.values() if isinstance(p, Policy)]
    if not right:
        load_policy(policy, _merged(entries[0], model, settings))
    source = manifest.Source.of(policy)
    settle(right[0])
    known_audit(right[0])
    folder = out or Path("runs") / f"{right[0].name}-compare"
    check_sources(folder, read_by(right[0], policy))
    _usable(folder)
    cache = cache_for(no_cache)
    with kept_folder(folder, folder / POINTS):
        base = load_model(right[0].model, placement, quiet)
        (folder / PATCHES).mkdir(parents=True, exist_ok=True)
        finished = _finished(folder / POINTS)
        with log_to(folder / "log.txt"):
            progress = progress_for(quiet)
            found = _run(base, right[0], source, policies, steps, numbers, finished, cache, progress)
            _write(found, folder)
    written(folder)
    if as_json:
        say(found.to_json(), nl=False)
    else:
        print_table(found)
        say(f"\ntable, curves and patches: {folder}")
    return 0 if found.points else 1


def _entries(text: str) -> list[Entry]:
    """Read --methods; commas and colons inside brackets belong to a value."""
    found = []
    for part in re.split(r",(?![^\[]*\])", text):
        name, *given = (piece.strip() for piece in re.split(r":(?![^\[]*\])", part.strip()))
        if name not in METHOD_NAMES:
            hint = suggestion(name, METHOD_NAMES) or f"; there are {', '.join(METHOD_NAMES)}"
            raise click.BadParameter(f"there is no method {name!r}{hint}", param_hint="--methods")
        chosen = {"method.name": name}
        for setting in given:
            key, equals, value = setting.partition("=")
            if not equals or not key:
                raise click.BadParameter(
                    f"expected {name}:KEY=VALUE, got {setting!r}", param_hint="--methods"
                )
            chosen[f"method.{key}"] = value
        found.append(Entry(part.strip(), chosen))
    labels = [entry.label for entry in found]
    if len(set(labels)) < len(labels):
        raise click.BadParameter("a method is named twice", param_hint="--methods")
    return found


def _first(problem: PolicyError) -> str:
    """The problems of a policy in one line, without their number."""
    lines = str(problem).splitlines()
    return "; ".join(" ".join(line.split()) for line in (lines[:-1] or lines))


def _seeds(text: str | None) -> list[int | None]:
    if text is None:
        return [None]
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"expected whole numbers such as 0,1,2, got {text!r}", param_hint="--seeds"
        ) from None
    if min(found) < 0 or max(found) >= 2**63 or len(set(found)) < len(found):
        raise click.BadParameter("seeds must differ, not be negative, and have 63 bits", param_hint="--seeds")
    return list(found)


def _merged(entry: Entry, model: str | None, settings: tuple[str, ...]) -> dict[str, str]:
    shared = overrides(model, None, settings)
    return {"method.name": entry.overrides["method.name"], **shared, **entry.overrides}


def _usable(folder: Path) -> None:
    """Leave a folder alone that has other things in it, or that lies in a run."""
    outside_runs(folder)
    there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise PolicyError(f"cannot write to {folder}: {there} is not a folder that may be written")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / POINTS).is_dir():
        raise PolicyError(f"{folder} holds something else than a comparison; choose another name")


def _finished(folder: Path) -> Store:
    """Where the finished points of a comparison are kept: sealed, as what a cache holds."""
    try:
        return Store.at(folder, doubt)
    except UnlearnError as problem:
        raise UnlearnError(
            f"the points in {folder} cannot be used ({problem}); choose another --out"
        ) from None


def _run(
    model: EditableModel,
    policy: Policy,
    source: manifest.Source,
    policies: dict[str, Policy | str],
    steps: int,
    seeds: Sequence[int | None],
    finished: Store,
    cache: Store | None,
    progress: Progress,
) -> Comparison:
    from unlearn.audit.cache import observed
    from unlearn.audit.observing import observe
    from unlearn.edit.pipeline import resolve
    from unlearn.model.about import base_of, device_in_words, dtype_in_words

    requests = resolve(model, policy, progress)
    before = observed(
        model, requests, cache, lambda pieces: observe(model, requests, progress, pieces=pieces)
    )
    bench = Bench(model, requests, before, steps, finished, cache, progress)
    about = bench.about
    made: list[Point] = []
    failed: list[Failure] = []
    for label, mine in policies.items():
        if isinstance(mine, str):
            failed.append(Failure(method=label, seed=policy.seed, step=0, edits=0, reason=mine))
            continue
        for seed in seeds:
            for found in points(bench, label, mine, seed, about):
                if isinstance(found, Point):
                    made.append(found)
                else:
                    failed.append(found)
    return Comparison(
        policy=policy.name,
        model=model.name,
        facts=len(requests.facts),
        steps=min(steps, len(requests.facts)),
        seeds=tuple(policy.seed if seed is None else seed for seed in seeds),
        methods=tuple(policies),
        points=tuple(made),
        failures=tuple(failed),
        manifest=manifest.describe(
            policy,
            source,
            command_line(),
            base=base_of(model),
            hardware=manifest.hardware(device_in_words(model), dtype_in_words(model)),
            methods={
                label: manifest.textless(mine.method.model_dump(mode="json"))
                for label, mine in policies.items()
                if isinstance(mine, Policy)
            },
        ),
    )


def _write(found: Comparison, folder: Path) -> None:
    """Write the documents and the pictures; those of an earlier call with other methods are replaced."""
    pictures = []
    for name in (CURVES, STATES):
        for old in folder.glob(f"{name}.*"):
            old.unlink()
    if found.points:
        from unlearn import charts
        from unlearn.compare.charts import hidden_states, measurements

        pictures.append(CURVES)
        charts.save(measurements(found), folder, CURVES)
        states = hidden_states(found)
        if states is not None:
            pictures.append(STATES)
            charts.save(states, folder, STATES)
    (folder / JSON).write_text(found.to_json(), encoding="utf-8")
    (folder / PAGE).write_text(markdown(found, pictures), encoding="utf-8")
