"""What the command lines of all benchmarks share: lists and settings from options, and one sentence for an error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError

from unlearn.errors import PolicyError, UnlearnError
from unlearn.policy.method import METHOD_NAMES


def parser(prog: str, text: str | None, methods: str) -> argparse.ArgumentParser:
    """The options of every benchmark that puts facts through methods."""
    options = argparse.ArgumentParser(prog=prog, description=(text or "").partition("\n")[0])
    known = ", ".join(METHOD_NAMES)
    options.add_argument("--methods", default=methods, help=f"names, with commas; known: {known}")
    options.add_argument("--seeds", default="0,1,2", help="each picks its own facts")
    options.add_argument(
        "--set", action="append", default=[], metavar="method.KEY=VALUE", help="or NAME.KEY=VALUE"
    )
    options.add_argument("--label", help="what to call these settings in the table")
    options.add_argument("--device", default="auto")
    kept(options)
    return options


def kept(options: argparse.ArgumentParser) -> None:
    """Add where the rows are kept, and how many threads compute."""
    options.add_argument(
        "--json", type=Path, metavar="OUT", help="rows, added as they come; rows there are not repeated"
    )
    options.add_argument("--threads", type=int, help="CPU threads")


def told(args: argparse.Namespace, work: Callable[[argparse.Namespace], None]) -> int:
    """Do the work of a benchmark with so many threads; returns the exit code as `guarded`."""
    if args.threads:
        torch.set_num_threads(args.threads)
    return guarded(lambda: work(args))


def guarded(work: Callable[[], None]) -> int:
    """Do the work of a benchmark; returns the exit code, with one sentence where it went wrong."""
    try:
        work()
    except UnlearnError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        print("interrupted; rows measured so far are in the file", file=sys.stderr)
        return 130
    return 0


def chosen(option: str, text: str, known: Sequence[str]) -> list[str]:
    """The names of an option, with commas between them.

    Raises:
        PolicyError: one of them is not known.
    """
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise PolicyError(f"--{option} {unknown[0]}: unknown; known: {', '.join(known)}")
    return names


def numbers(option: str, text: str, least: int) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or found[0] < least:
        raise PolicyError(f"--{option} {text}: write whole numbers with commas, such as 10,50,100")
    return found


def settings_of(name: str, changes: Sequence[str]) -> dict[str, Any]:
    """Settings of one method from `--set method.key=value` (every method) and `--set name.key=value` (this one)."""
    found: dict[str, Any] = {"name": name}
    for change in changes:
        key, equals, value = change.partition("=")
        whose, dot, what = key.partition(".")
        if not (equals and dot) or whose not in ("method", *METHOD_NAMES):
            raise PolicyError(
                f"--set {change}: write method.KEY=VALUE, or the name of a method before the dot"
            )
        if whose in ("method", name):
            found[what] = yaml.safe_load(value)
    return found


def complaints(error: ValidationError) -> str:
    """What pydantic finds wrong, with the key of each."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))


def keys_of(changes: Sequence[str]) -> dict[str, Any]:
    """Values by dotted key from `--policy KEY=VALUE`."""
    found = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not (equals and key.strip()):
            raise PolicyError(f"--policy {change}: write KEY=VALUE, such as prompt_variants.templates=3")
        found[key.strip()] = yaml.safe_load(value)
    return found
