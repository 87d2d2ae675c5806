"""What `unlearn verify` looks at besides hashes: do a run's documents, its policy, its patch and its numbers agree?

Hashes alone say nothing once the manifest is rewritten with them. What is derived here from other parts of a run must
be forged in all of them at once. What is left to a forger stands in docs/guides/verify.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel, ValidationError

from unlearn import files
from unlearn.commands.options import overrides
from unlearn.errors import PolicyError, UnlearnError
from unlearn.files import sha256_of_file
from unlearn.policy import Policy
from unlearn.policy.file import load_policy
from unlearn.policy.paths import moved
from unlearn.report import Report
from unlearn.runs import manifest
from unlearn.runs.folder import PATCH
from unlearn.runs.outcome import table_text
from unlearn.version import __version__

_KEPT_SETTINGS = ("model", "statistics", "audit", "seed")
"""Settings that do not change where a search chose the method, or the command line hid a text."""


class _Named(BaseModel):
    name: str
    file: str
    sha256: str
    effective_sha256: str


class Base(BaseModel):
    """The unedited model."""

    name: str
    tokenizer: str = "auto"
    family: str
    parameters: int
    identity: str
    weights: dict[str, str]
    quantised: str | None = None


class _Commit(BaseModel):
    commit: str | None = None


class _Edit(BaseModel):
    sha256: str
    header: dict[str, Any]


class Recorded(BaseModel):
    """What the manifest of an edit or an audit says, as far as it is looked at here."""

    policy: _Named
    settings: dict[str, Any]
    versions: dict[str, str]
    git: _Commit | None
    argv: list[str]
    base: Base
    facts: dict[str, int]
    files: dict[str, str]
    patch: _Edit | None = None
    candidate: dict[str, Any] | None = None
    tuning: dict[str, Any] | None = None


@dataclass
class Findings:
    """What differs, by what was looked at; and what could not be looked at."""

    problems: dict[str, list[str]] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)
    """By what was left out, the reason."""
    overrides: tuple[str, ...] = ()
    """What the run's command line put in the place of the policy's own settings."""


def recorded_in(document: Mapping[str, Any]) -> Recorded:
    """The manifest, typed.

    Raises:
        UnlearnError: it lacks what every edit and every audit writes.
    """
    try:
        return Recorded.model_validate(document)
    except ValidationError as problem:
        where = ".".join(map(str, problem.errors()[0]["loc"]))
        raise UnlearnError(f"manifest.json: `{where}` is missing or not what a run writes") from None


def of_documents(run: Path, recorded: Recorded, report: Report, found: Findings) -> None:
    """Render the report's documents again, and look for those that a run always writes."""
    from unlearn.report.files import DOCUMENTS

    problems = found.problems["documents"] = []
    if (recorded.patch is None) == (recorded.candidate is None):
        problems.append("manifest.json names neither a patch nor a candidate, or both")
    needed = {*DOCUMENTS, "log.txt", *([PATCH] if recorded.patch else [])}
    problems += [f"{name} is not listed in manifest.json" for name in sorted(needed - recorded.files.keys())]
    wrong = [name for name, render in DOCUMENTS.items() if _shows_otherwise(run / name, render(report))]
    log = run / "log.txt"
    if log.is_file() and not _text(log).endswith("\n" + table_text(report)):
        wrong.append(log.name)
    if wrong and (older := _made_by_another(recorded)):
        found.unchecked["documents"] = f"{older}, which may word them otherwise (first: {wrong[0]})"
    else:
        problems += [f"{name} does not show what is in report.json" for name in wrong]


def _shows_otherwise(file: Path, rendered: str) -> bool:
    """Whether a document is not what the report renders to, leaving aside what --show-text adds."""
    from unlearn.report.html.page import without_texts

    return file.is_file() and rendered not in (text := _text(file), without_texts(text))


def _text(file: Path) -> str:
    return files.read_bytes(file).decode("utf-8", "replace")


def _made_by_another(recorded: Recorded) -> str:
    """Which version of this program made a run, in words; empty where it was this one."""
    here = __version__, (manifest.git_commit() or {}).get("commit")
    there = recorded.versions.get("unlearn"), recorded.git and recorded.git.commit
    if here == there:
        return ""
    was, now = (
        f"unlearn {version}{f' at {commit[:8]}' if commit else ''}" for version, commit in (there, here)
    )
    return f"the run was made by {was}, and this is {now}"


def policy_in_force(recorded: Recorded, given: Path | None, found: Findings) -> Policy | None:
    """The policy of a run, from its file and the overrides of its command line; None where it cannot be had.

    Args:
        given: the policy's file as the user gives it; otherwise that which the manifest names, if it is unchanged.
    """
    problems = found.problems["policy"] = []
    file = given or Path(recorded.policy.file)
    if not (file.is_file() and sha256_of_file(file) == recorded.policy.sha256):
        if given is None:
            found.unchecked["policy"] = f"{file} is not there, or has changed since; give it with --policy"
        else:
            problems.append(f"{file} is not the policy of this run")
        return None
    try:
        over = _overridden(recorded.argv)
        found.overrides = tuple(f"--set {key}={value}" for key, value in over.items())
        hidden = {key for key, value in over.items() if value.startswith("sha256:")}
        policy = load_policy(file, {key: value for key, value in over.items() if key not in hidden})
    except (PolicyError, click.ClickException) as problem:
        problems.append(f"{file} with the overrides of `argv`: {str(problem).splitlines()[0]}")
        return None
    # What lies beside a policy may have moved with it.
    then = moved(policy, file.parent, Path(recorded.policy.file).parent)
    whole = not hidden and recorded.tuning is None
    as_it_is, as_it_was = (list(_settings(recorded, p, whole)) for p in (policy, then))
    problems += as_it_was if len(as_it_was) < len(as_it_is) else as_it_is
    if recorded.tuning is not None and not any(word.startswith("--tune") for word in recorded.argv):
        problems.append("manifest.json has a search that its command line did not ask for")
    if problems and (older := _made_by_another(recorded)):
        problems.append(f"({older}, whose defaults may be others)")
    return policy


def _overridden(argv: Sequence[str]) -> dict[str, str]:
    """The overrides of a recorded command line.

    Raises:
        click.ClickException: it is none of `apply` or `audit`.
    """
    from unlearn.commands.apply import apply
    from unlearn.commands.audit import audit

    commands = {"apply": apply, "audit": audit}
    at = next((i for i, word in enumerate(argv) if word in commands), None)
    if at is None:
        raise click.UsageError("it is no command line of apply or audit")
    name, words = argv[at], list(argv[at + 1 :])
    # Under the context of `verify`: a command keeps the help option of the first context that it is parsed in.
    within = click.get_current_context(silent=True)
    with commands[name].make_context(name, words, within, resilient_parsing=True) as context:
        given = context.params
    keys = ("model", "method", "settings", "suite", "tokenizer")
    return overrides(**{key: given[key] for key in keys if given.get(key)})


def _settings(recorded: Recorded, policy: Policy, whole: bool) -> Iterator[str]:
    """Where the manifest's settings are not the policy's."""
    owed = manifest.settings(policy)
    for key in owed if whole else _KEPT_SETTINGS:
        said: Any = recorded.settings.get(key)
        if said == owed[key]:
            continue
        both = isinstance(owed[key], dict) and isinstance(said, dict)
        first = (
            next((f".{name}" for name, value in owed[key].items() if said.get(name) != value), "")
            if both
            else ""
        )
        yield f"settings.{key}{first} in manifest.json is not the policy's"
    if recorded.policy.name != policy.name:
        yield "manifest.json gives the policy another name"
    if whole and recorded.policy.effective_sha256 != manifest.effective_sha256(policy):
        yield "policy.effective_sha256 in manifest.json is not that of the policy with the overrides of `argv`"
    if recorded.base.name != policy.model:
        yield f"base.name in manifest.json is {recorded.base.name}, and the policy's model {policy.model}"
    if recorded.base.tokenizer != policy.tokenizer:
        yield f"base.tokenizer in manifest.json is {recorded.base.tokenizer}, and the policy's {policy.tokenizer}"


def of_numbers(recorded: Recorded, report: Report, policy: Policy | None, found: Findings) -> None:
    """Derive what follows from the report's numbers, from the policy and from its suite."""
    from unlearn.audit.consistency import contradictions
    from unlearn.audit.control import control_of
    from unlearn.audit.expected import unexpected, unlimited
    from unlearn.audit.suite import load_suite

    problems = found.problems["numbers"] = list(contradictions(report))
    known = {"total": len(report.facts), "known": sum(fact.known for fact in report.facts)}
    if recorded.facts != known:
        problems.append("the facts in manifest.json are not those of report.json")
    if policy is None:
        found.unchecked["limits"] = "they are the policy's, which is not there"
        return
    problems += unlimited(report, policy)
    try:
        suite, control = load_suite(policy.audit.suite), control_of(policy) is not None
    except UnlearnError as problem:
        found.unchecked["suite"] = str(problem)
        return
    problems += unexpected(report, policy, suite, control)
