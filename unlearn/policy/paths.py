"""The paths in a policy: relative to the policy's own folder, wherever the command is called from; and what is read.

They are resolved once, when the policy is read; what comes later takes them as they are.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from unlearn.files import at_home, beside, exists
from unlearn.policy.checks import EMBEDDED, OWN, Problem
from unlearn.policy.document import Policy
from unlearn.policy.nodes import Loc
from unlearn.policy.values import SUITES, is_task_file

_MODELS = (EMBEDDED, "embedded-control")
_SCORERS = ("auto", "demo", "original", "unbiased", "multilingual", "original-small", "unbiased-small")


class _Key(NamedTuple):
    """A key of a policy whose value may be a path."""

    loc: Loc
    words: Collection[str]
    """Values that are no paths."""
    names: bool = False
    """Whether any other value may be a name on a hub as well, which is a path only if something is there."""


_KEYS = (
    _Key(("model",), _MODELS, names=True),
    _Key(("tokenizer",), ("auto",), names=True),
    _Key(("statistics", "corpus"), ("auto", EMBEDDED, OWN), names=True),
    _Key(("audit", "control"), ("auto", "none", *_MODELS), names=True),
    _Key(("audit", "suite"), SUITES),
    _Key(("audit", "task_path"), ("auto",)),
    _Key(("audit", "toxicity"), _SCORERS),
    _Key(("audit", "text"), ("auto",)),
    _Key(("audit", "benign"), ("auto",)),
    _Key(("audit", "lookalike"), ("auto",)),
)


def placed(
    policy: Policy, folder: Path, called: Collection[tuple[str | int, ...]] = ()
) -> Policy | list[Problem]:
    """Return a policy whose paths stand by themselves, or what is wrong with them.

    A path in a policy is relative to the policy's folder, and becomes an absolute one; one given on the command line is
    relative to the working folder, and stays as it was given. `~` is the home folder in both. A file that does not
    exist is no problem here, since `check` reads none; one that lies in the working folder instead is, since it is
    easily taken for another.

    Args:
        called: the places of keys whose values came from the command line.
    """
    problems: list[Problem] = []
    found = policy
    folder = Path(os.path.abspath(folder))
    for key, written in _written(policy):
        path = at_home(written) if key.loc in called else _in_policy(written, folder, key)
        if path is None:
            problems.append(Problem(key.loc, _elsewhere(written, folder, key)))
        elif path != written:
            found = _with(found, key.loc, path)
    return problems or found


def moved(policy: Policy, here: Path, there: Path) -> Policy:
    """Return a policy with its paths in the folder `here` as those of the folder `there`, for comparing the two."""
    here, there = (Path(os.path.abspath(folder)) for folder in (here, there))
    for key, written in _written(policy):
        path = Path(written)
        if path.is_absolute() and path.is_relative_to(here):
            policy = _with(policy, key.loc, str(there / path.relative_to(here)))
    return policy


def _in_policy(written: str, folder: Path, key: _Key) -> str | None:
    """The path or name that a policy means; None for a path that leads to something from the working folder alone."""
    path = beside(written, folder)
    if exists(path):
        return path
    if exists(at_home(written)):
        return None
    named = key.names and not written.startswith((".", "/", "~"))
    return written if named else path


def _elsewhere(written: str, folder: Path, key: _Key) -> str:
    return (
        f"there is no {written} in the policy's folder ({folder}), to which paths in a policy are relative, but one in "
        f"the working folder: write its path from there, or give --set {'.'.join(map(str, key.loc[:2]))}=PATH"
    )


def _written(policy: Policy) -> Iterator[tuple[_Key, str]]:
    """Every value that may be a path."""
    for key in _KEYS:
        if (value := _value(policy, key.loc)) not in key.words:
            yield key, value
    for i, task in enumerate(policy.audit.tasks):
        if is_task_file(task):
            yield _Key(("audit", "tasks", i), ()), task


def _value(policy: Policy, loc: Loc) -> str:
    if loc[0] == "audit":
        return str(policy.audit.model_dump(include={str(loc[1])})[str(loc[1])])
    if loc[0] == "statistics":
        return policy.statistics.corpus
    return policy.tokenizer if loc[0] == "tokenizer" else policy.model


def _with(policy: Policy, loc: Loc, path: str) -> Policy:
    if len(loc) == 1:
        return policy.model_copy(update={str(loc[0]): path})
    value: str | tuple[str, ...] = path
    if loc[1] == "tasks":
        value = tuple(path if i == loc[2] else task for i, task in enumerate(policy.audit.tasks))
    part = policy.audit if loc[0] == "audit" else policy.statistics
    return policy.model_copy(update={str(loc[0]): part.model_copy(update={str(loc[1]): value})})


NAMES = (EMBEDDED, OWN, "auto", "none")
"""What may stand in a policy for a model, and is not read from a folder of that name."""


def read_by(policy: Policy, file: Path, *others: Path | str | None) -> tuple[Path | str | None, ...]:
    """What a command reads, so that it writes nothing there: the policy's file, what that names, and others."""
    audit = policy.audit
    files = (policy.statistics.corpus, audit.suite, audit.text, audit.benign, audit.lookalike, *audit.tasks)
    return (
        file,
        *(name for name in files if os.path.isfile(name)),
        *(
            name
            for name in (policy.model, policy.tokenizer, audit.control, audit.toxicity, audit.task_path)
            if name not in NAMES
        ),
        *others,
    )
