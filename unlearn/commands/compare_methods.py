"""What `unlearn compare` is asked to run: --methods and --seeds, and the policy with each of the methods."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from unlearn.commands.options import overrides
from unlearn.errors import PolicyError
from unlearn.policy import Policy
from unlearn.policy.checks import suggestion
from unlearn.policy.file import load_policy
from unlearn.policy.method import METHOD_NAMES


@dataclass(frozen=True)
class Entry:
    """One of --methods: a name, and settings of its own."""

    label: str
    overrides: dict[str, str]


def policies_of(
    policy: Path, entries: Sequence[Entry], model: str | None, settings: tuple[str, ...]
) -> dict[str, Policy | str]:
    """The policy with each of the methods, or what is wrong with its settings.

    Raises:
        PolicyError: no method can be run.
    """
    found: dict[str, Policy | str] = {}
    for entry in entries:
        try:
            found[entry.label] = load_policy(policy, _merged(entry, model, settings))
        except PolicyError as problem:
            found[entry.label] = _first(problem)
    if not any(isinstance(p, Policy) for p in found.values()):
        load_policy(policy, _merged(entries[0], model, settings))
    return found


def entries_of(text: str) -> list[Entry]:
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


def _merged(entry: Entry, model: str | None, settings: tuple[str, ...]) -> dict[str, str]:
    shared = overrides(model, None, settings)
    return {"method.name": entry.overrides["method.name"], **shared, **entry.overrides}
