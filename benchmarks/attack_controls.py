"""Does every attack find what is there? All attacks on models of which the outcome is known, as one table.

The columns are the unedited model, the default edit, a model that never knew the facts, and four masks over the same
facts (tests/audit/attacks/masked.py). An attack is worth its name if it recovers something from at least one mask and
nothing from the model that never knew.

    python -m benchmarks.attack_controls --json controls.json
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.options import chosen, kept, told
from benchmarks.rows import Row, Rows, key_of
from tests.audit.attacks import masked
from unlearn.audit.attacks.scene import Scene, State, recovered
from unlearn.audit.attacks.table import ATTACKS
from unlearn.audit.intervals import wilson
from unlearn.audit.probes import build_probes
from unlearn.audit.suite import Suite, load_suite
from unlearn.edit.pipeline import edit
from unlearn.edit.requests.resolve import resolve
from unlearn.errors import UnlearnError
from unlearn.model.editable import EditableModel
from unlearn.model.loading import CONTROL
from unlearn.model.requests import Requests
from unlearn.patch import Patch
from unlearn.policy import Policy
from unlearn.progress import progress_for
from unlearn.shipped import shipped

LEAKS = ("leak.held_out", "leak.cloze")
"""Asked without any attack, at the head of the table."""
COLUMNS: Mapping[str, str] = {
    "unedited": "unedited",
    "edit": "default edit",
    "control": "never knew",
    "guard": "system prompt",
    "refusal_lora": "refusal LoRA",
    "rank_one": "ROME",
    "sign_descent": "sign descent",
}


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(prog="attack_controls", description=__doc__.split("\n")[0])
    options.add_argument("--attacks", default=",".join((*LEAKS, *ATTACKS)), help="names, with commas")
    options.add_argument("--models", default=",".join(COLUMNS), help=f"of {', '.join(COLUMNS)}, with commas")
    options.add_argument(
        "--facts", type=int, default=8, help="how many of the demo's facts are masked and asked for"
    )
    options.add_argument("--suite", default="standard", help="whose sizes are taken")
    options.add_argument(
        "--patch", type=Path, help="the default edit's patch of the demo policy, if there is one"
    )
    options.add_argument("--control", default=CONTROL, help="the model that never knew: a name or a folder")
    kept(options)
    return options


def _default_edit(path: Path | None) -> Patch:
    """The patch of the demo policy."""
    if path is not None:
        return Patch.load(path)
    policy = Policy.model_validate(yaml.safe_load((shipped("policies") / "demo.yaml").read_text()))
    model = masked.base()
    return edit(model, resolve(model, policy), progress=progress_for())


@contextmanager
def _opened(name: str, args: argparse.Namespace) -> Iterator[tuple[EditableModel, State, Patch | None]]:
    """One of the models in its state, with its patch if it has one."""
    if name == "control":
        yield EditableModel.load(args.control, device="cpu"), "control", None
        return
    if name == "unedited":
        yield masked.base(), "before", None
        return
    patch = _default_edit(args.patch) if name == "edit" else masked.MASKS[name](args.facts)
    with masked.base().patched(patch) as model:
        yield model, "after", patch


def scene_of(model: EditableModel, requests: Requests, suite: Suite, patch: Patch | None) -> Scene:
    """What an attack is given of a model, with what its patch gives away."""
    probes = build_probes(model.tokenizer, requests, suite)
    return Scene(requests, suite, probes, None if patch is None else masked.update(patch))


def measure(name: str, model: EditableModel, scene: Scene) -> Row:
    """How much one attack, or plain asking, recovers: hits of n."""
    start = time.perf_counter()
    if name in LEAKS:
        outcomes = recovered(model, scene, probes=scene.probes[name.partition(".")[2]])
    else:
        outcomes = ATTACKS[name].run(model, scene, progress_for()).outcomes
    hits = sum(o.disclosed for o in outcomes)
    seconds = round(time.perf_counter() - start, 1)
    return {
        "hits": hits,
        "n": len(outcomes),
        "ci95": wilson(hits, len(outcomes)) if outcomes else None,
        "seconds": seconds,
    }


def table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """The rows as a Markdown table: per cent recovered; a dash where an attack was not run or does not apply."""
    cells = {(row["attack"], row["model"]): row for row in rows}
    columns = [column for column in COLUMNS if any(row["model"] == column for row in rows)]

    def shown(row: Row | None) -> str:
        return f"{100 * row['hits'] / row['n']:.0f}" if row and row["n"] else "-"

    def size(name: str) -> str:
        return str(next((row["n"] for row in rows if row["attack"] == name and row["n"]), "-"))

    lines = [
        "| | n | " + " | ".join(COLUMNS[column] for column in columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name in names:
        title = name if name in LEAKS else f"attack.{name}"
        values = " | ".join(shown(cells.get((name, column))) for column in columns)
        lines.append(f"| `{title}` | {size(name)} | {values} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    return told(parser().parse_args(argv), _main)


def _main(args: argparse.Namespace) -> None:
    attacks = chosen("attacks", args.attacks, (*LEAKS, *ATTACKS))
    models = chosen("models", args.models, tuple(COLUMNS))
    sizes = load_suite(args.suite)
    suite = sizes.model_copy(update={"measurements": masked.SUITE.measurements})
    requests = masked.requests(args.facts)
    rows = Rows(args.json)
    for name in models:
        _column(name, attacks, args, rows, requests, suite)
    mine = {"facts": args.facts, "suite": args.suite}
    print(
        table([row for row in rows.rows if row["model"] in models and mine.items() <= row.items()], attacks)
    )


def _column(
    name: str,
    attacks: Sequence[str],
    args: argparse.Namespace,
    rows: Rows,
    requests: Requests,
    suite: Suite,
) -> None:
    """All attacks on one model; what is in the file already is not measured again."""
    about: dict[str, Any] = {"model": name, "facts": args.facts, "suite": args.suite}
    made_of = {"edit": str(args.patch), "control": args.control}.get(name, "")
    base = masked.base().weights_sha256()
    keys = {attack: key_of({**about, "attack": attack, "base": base, "from": made_of}) for attack in attacks}
    open_ones = [attack for attack in attacks if rows.find(keys[attack], args.facts) is None]
    if not open_ones:
        return
    with _opened(name, args) as (model, state, patch):
        given = scene_of(model, requests, suite, patch)
        for attack in open_ones:
            if attack not in LEAKS and state not in ATTACKS[attack].states:
                continue
            try:
                found = measure(attack, model, given)
            except UnlearnError as problem:
                found = {"hits": 0, "n": 0, "ci95": None, "seconds": 0.0, "reason": str(problem)}
            rows.add({"run": keys[attack], "edits": args.facts, "attack": attack, **about, **found})
            print(
                f"{name} {attack}: {found['hits']} of {found['n']} in {found['seconds']} s",
                file=sys.stderr,
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
