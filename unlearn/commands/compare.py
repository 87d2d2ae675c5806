"""`unlearn compare`: the same requests through several methods."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unlearn.audit.known import known_audit
from unlearn.commands.common import cache_for, command_line, doubt, settle
from unlearn.commands.options import Place, as_json, model_options, no_cache, overrides, quiet
from unlearn.commands.said import say, written
from unlearn.compare.charts import hidden_states, measurements
from unlearn.compare.document import Comparison, Failure, Point
from unlearn.compare.points import PATCHES, POINTS, Series, points
from unlearn.compare.table import markdown, table
from unlearn.errors import PolicyError, UnlearnError
from unlearn.loaded import about_model, load_model
from unlearn.order import Means, Placement
from unlearn.policy import Policy
from unlearn.policy.checks import suggestion
from unlearn.policy.file import load_policy
from unlearn.policy.method import METHOD_NAMES
from unlearn.policy.paths import read_by
from unlearn.progress import progress_for
from unlearn.report.terminal import printed
from unlearn.run import unedited
from unlearn.runs import manifest
from unlearn.runs.folder import check_sources, kept_folder, outside_runs
from unlearn.runs.log import log_to
from unlearn.store import Store

if TYPE_CHECKING:
    from unlearn.model.editable import EditableModel

log = logging.getLogger("unlearn")

JSON, PAGE, CURVES, STATES = "compare.json", "compare.md", "curves", "states"


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
@no_cache
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

    Writes a folder with compare.json, compare.md, the charts (SVG), and every patch. Finished points are kept
    there and not made again as long as nothing that they depend on has changed: after an interruption the same command
    goes on, and methods may be added later. The exit code is 1 only if every method failed.

    \b
    Examples:
        unlearn compare policies/demo.yaml --methods alphaedit,rome,none
        unlearn compare policies/demo.yaml --methods alphaedit,memit,lora --steps 4 --out runs/curves
        unlearn compare policies/demo.yaml --methods alphaedit,alphaedit:kept=0 --set audit.suite=quick
    """
    numbers = seeds_of(seeds)
    policies = policies_of(policy, entries_of(methods), model, settings)
    first = next(p for p in policies.values() if isinstance(p, Policy))
    source = manifest.Source.of(policy)
    settle(first)
    known_audit(first)
    folder = out or Path("runs") / f"{first.name}-compare"
    check_sources(folder, read_by(first, policy))
    _usable(folder)
    means = Means(placement, cache_for(no_cache), progress_for(quiet))
    with kept_folder(folder, folder / POINTS):
        base = load_model(first.model, placement, None, means.progress, first.tokenizer)
        (folder / PATCHES).mkdir(parents=True, exist_ok=True)
        finished = _finished(folder / POINTS)
        with log_to(folder / "log.txt"):
            found = _run(base, source, policies, steps, numbers, finished, means)
            _write(found, folder)
    written(folder)
    if as_json:
        say(found.to_json(), nl=False)
    else:
        printed(table(found), 200)
        say(f"\ntable, curves and patches: {folder}")
    return 0 if found.points else 1


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
    source: manifest.Source,
    policies: Mapping[str, Policy | str],
    steps: int,
    seeds: Sequence[int | None],
    finished: Store,
    means: Means,
) -> Comparison:
    from unlearn.edit.requests.resolve import resolve

    policy = next(p for p in policies.values() if isinstance(p, Policy))
    requests = resolve(model, policy, means.progress)
    compared = unedited(model, requests, means, with_control=False)
    bench = Series(model, requests, means, compared, steps, finished)
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
            **about_model(model),
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
        drawn = {CURVES: measurements(found), STATES: hidden_states(found)}
        for name, picture in drawn.items():
            if picture is not None:
                pictures.append(f"{name}.svg")
                (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
    (folder / JSON).write_text(found.to_json(), encoding="utf-8")
    (folder / PAGE).write_text(markdown(found, pictures), encoding="utf-8")


def policies_of(
    policy: Path, entries: Mapping[str, Mapping[str, str]], model: str | None, settings: tuple[str, ...]
) -> dict[str, Policy | str]:
    """The policy with each of the methods, or what is wrong with its settings.

    Raises:
        PolicyError: no method can be run.
    """
    shared, found = overrides(model, None, settings), dict[str, Policy | str]()
    refused: PolicyError | None = None
    for label, own in entries.items():
        try:
            found[label] = load_policy(policy, {"method.name": own["method.name"], **shared, **own})
        except PolicyError as problem:
            found[label], refused = _first(problem), refused or problem
    if refused is not None and not any(isinstance(p, Policy) for p in found.values()):
        raise refused
    return found


def entries_of(text: str) -> dict[str, dict[str, str]]:
    """Read --methods: settings by what each is called; commas and colons inside brackets belong to a value."""
    found: dict[str, dict[str, str]] = {}
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
        if part.strip() in found:
            raise click.BadParameter("a method is named twice", param_hint="--methods")
        found[part.strip()] = chosen
    return found


def _first(problem: PolicyError) -> str:
    """The problems of a policy in one line, without their number."""
    lines = str(problem).splitlines()
    return "; ".join(" ".join(line.split()) for line in (lines[:-1] or lines))


def seeds_of(text: str | None) -> list[int | None]:
    """Read --seeds; None stands for the policy's own seed and order."""
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
